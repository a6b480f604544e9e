//! The facts of a survey in the shape that the rules take.

use verger_kopia::clock::Timestamp;
use verger_kopia::error::Result;
use verger_kopia::index_set::IndexView;
use verger_kopia::maintenance::margins::INCOMPLETE_INDEX_MAX_AGE;
use verger_kopia::maintenance::rules::facts::{Frozen, IndexFacts, SessionFact};
use verger_kopia::session::SessionId;

use crate::task::solve::{Damage, Used, Wrong};
use crate::task::survey::Survey;

/// What the rules need besides the survey itself.
pub struct Gathered {
    /// Kopia's unique ID, hex.
    pub unique_id: String,
    /// Address of the store.
    pub store: String,
    /// Digest of the view.
    pub view: String,
    /// Now: the earlier of the storage's and this machine's clock.
    pub now: Timestamp,
    /// Session markers.
    pub sessions: Vec<SessionFact>,
    /// The index manager's side.
    pub index: IndexFacts,
    /// What must not happen.
    pub frozen: Frozen,
    /// Why; empty if nothing is frozen.
    pub frozen_why: String,
}

/// BLAKE3 (hex) over the sorted names of the view's index blobs, a line each, and the watermark.
#[must_use]
pub fn view_digest(view: &IndexView) -> String {
    let mut names: Vec<&str> = view.blobs.iter().map(|blob| blob.id.as_str()).collect();
    names.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    for name in names {
        hasher.update(name.as_bytes()).update(b"\n");
    }
    match view.watermark {
        Some(watermark) => hasher.update(format!("watermark {watermark}\n").as_bytes()),
        None => hasher.update(b"no watermark\n"),
    };
    hasher.finalize().to_hex().to_string()
}

/// R11: what the damage forbids, and why, for people.
#[must_use]
pub fn frozen(survey: &Survey, damages: &[Damage]) -> (Frozen, String) {
    let lost = damages.iter().find(|damage| damage.wrong == Wrong::Missing);
    if let Some(damage) = lost {
        let place = damage.touches.first().map_or_else(String::new, |touch| {
            format!(" (snapshot {}, {})", touch.snapshot, if touch.path.is_empty() { "its root" } else { &touch.path })
        });
        let why = format!("object {} is needed{place} and no index entry names it: an index blob may be lost", damage.object);
        return (Frozen::Everything, why);
    }
    if let Some(unreadable) = survey.unreadable.first() {
        return (Frozen::MarksAndDrops, format!("{} cannot be read: {}", unreadable.what, unreadable.error));
    }
    if let Some(damage) = damages.first() {
        return (Frozen::MarksAndDrops, format!("object {} cannot be read: {}", damage.object, damage.error));
    }
    (Frozen::Nothing, String::new())
}

/// Session markers, in the shape of the rules.
pub(super) fn sessions(survey: &Survey, over: impl Fn(&SessionId) -> bool) -> Vec<SessionFact> {
    let mut facts = Vec::new();
    for session in survey.sessions.active.values() {
        let checkpoint = session.info.as_ref().map(|_| session.checkpoint);
        let over = over(&session.id);
        facts.extend(session.markers.iter().map(|marker| SessionFact { marker: marker.clone(), checkpoint, over }));
    }
    facts
}
