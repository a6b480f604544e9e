//! Which packs and session markers may be deleted (`repo/maintenance/pack_gc.go`).

use super::facts::{Facts, Frozen, SessionFact, after};
use super::plan::{DeletePlan, DeleteRule, Deletion};
use super::rows::Rows;
use crate::clock::Timestamp;
use crate::maintenance::Margins;
use crate::maintenance::margins::CUTOFF_SLACK;
use crate::mutant::{self, Mutant};
use crate::storage::{BlobId, BlobMetadata};
use std::collections::HashMap;

/// Why a blob that nothing references stays, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Written after the cycle began.
    AfterCutoff,
    /// Younger than `PackDeleteMinAge`.
    Young {
        /// When it is old enough.
        until: Timestamp,
    },
    /// Its session may still be writing.
    Session {
        /// When the session expires.
        until: Timestamp,
    },
}

/// Active sessions and their latest checkpoint, by session ID.
#[derive(Debug, Default)]
pub struct Sessions<'a>(HashMap<&'a str, Timestamp>);

impl<'a> Sessions<'a> {
    /// Of several markers of one session the latest checkpoint counts. An unreadable marker counts by its storage time
    /// (R11), and a session of ours that is provably over does not count (R21).
    #[must_use]
    pub fn of(facts: &'a [SessionFact]) -> Self {
        let mut sessions: HashMap<&str, Timestamp> = HashMap::new();
        for fact in facts.iter().filter(|fact| !fact.over) {
            let time = fact.checkpoint.unwrap_or(fact.marker.timestamp);
            let Some(id) = session_id(fact.marker.id.as_str()) else { continue };
            sessions.entry(id).and_modify(|latest| *latest = (*latest).max(time)).or_insert(time);
        }
        Self(sessions)
    }
}

/// Session ID in a blob's name: the first part after the first dash that starts with `s`.
#[must_use]
pub fn session_id(blob: &str) -> Option<&str> {
    blob.split('-').skip(1).find(|part| part.starts_with('s'))
}

/// Why an unreferenced blob has to stay; `None`: it may go. Tests are in Kopia's order.
#[must_use]
pub fn keep(blob: &BlobMetadata, sessions: &Sessions<'_>, started: Timestamp, margins: &Margins) -> Option<Keep> {
    let cutoff = after(started, CUTOFF_SLACK);
    if blob.timestamp > cutoff && !mutant::on(Mutant::I6NewBlobDeleted) {
        return Some(Keep::AfterCutoff);
    }
    let until = after(blob.timestamp, margins.pack_delete_min_age);
    if until > cutoff && !mutant::on(Mutant::S2YoungPackDeleted) {
        return Some(Keep::Young { until });
    }
    let checkpoint = sessions.0.get(session_id(blob.id.as_str())?)?;
    let until = after(*checkpoint, margins.session_expiration_age);
    (until > cutoff).then_some(Keep::Session { until })
}

/// Deletes every listed blob that `referenced` does not name and no age or session protects. `s` blobs are never
/// referenced.
#[must_use]
pub fn select<'a>(
    listed: impl Iterator<Item = &'a BlobMetadata>,
    referenced: impl Fn(&BlobId) -> bool,
    sessions: &Sessions<'_>,
    started: Timestamp,
    margins: &Margins,
) -> DeletePlan {
    let mut plan = DeletePlan::default();
    for blob in listed {
        let marker = blob.id.as_str().starts_with('s');
        if !marker && referenced(&blob.id) {
            continue;
        }
        let stats = &mut plan.stats;
        if keep(blob, sessions, started, margins).is_some() {
            stats.retained_pack_count += 1;
            stats.retained_total_size += blob.length;
            continue;
        }
        stats.unreferenced_pack_count += 1;
        stats.unreferenced_total_size += blob.length;
        let rule = if marker { DeleteRule::ExpiredSession } else { DeleteRule::UnreferencedPack };
        plan.blobs.push(Deletion { blob: blob.id.clone(), length: blob.length, rule });
    }
    plan.blobs.sort_by(|a, b| a.blob.cmp(&b.blob));
    plan.stats.deleted_pack_count = plan.stats.unreferenced_pack_count;
    plan.stats.deleted_total_size = plan.stats.unreferenced_total_size;
    plan
}

/// Whether a blob is under the prefixes that a deletion looks at.
#[must_use]
pub fn candidate(blob: &BlobId, quick: bool) -> bool {
    let name = blob.as_str();
    // Whatever else somebody keeps under these letters is none of ours: Kopia's names go on in hex.
    let hash = name.get(1..).and_then(|rest| rest.split('-').next()).unwrap_or_default();
    if hash.is_empty() || !hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return false;
    }
    name.starts_with('q') || !quick && (name.starts_with('p') || name.starts_with('s'))
}

/// The deletion before rewriting. `survives` says which packs (by ordinal) a row still names after the drop.
///
/// # Errors
/// The reason why nothing is deleted.
pub fn plan<R: Rows>(facts: &Facts<'_, R>, survives: &[bool], quick: bool) -> Result<DeletePlan, &'static str> {
    if facts.frozen == Frozen::Everything {
        return Err("Not deleting packs: an index may be lost, and they may be all that is left to recover from.");
    }
    let hidden = facts.table.hidden_packs();
    let referenced = |blob: &BlobId| {
        let named = facts.table.packs().binary_search(blob).is_ok_and(|pack| survives[pack]);
        named
            || !mutant::on(Mutant::R11HiddenPackDeleted)
                && facts.frozen == Frozen::MarksAndDrops
                && hidden.binary_search(blob).is_ok()
    };
    let listed = facts.packs.iter().filter(|blob| candidate(&blob.id, quick));
    let plan = select(listed, referenced, &Sessions::of(facts.sessions), facts.started, facts.margins);
    Ok(DeletePlan { quick, ..plan })
}

#[cfg(test)]
mod tests {
    use super::*;

    const H: i64 = 3600;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn blob(name: &str, written: i64) -> BlobMetadata {
        BlobMetadata { id: name.into(), length: 10, timestamp: at(written), etag: None }
    }

    fn marker(name: &str, written: i64, checkpoint: Option<i64>) -> SessionFact {
        SessionFact { marker: blob(name, written), checkpoint: checkpoint.map(at), over: false }
    }

    #[test]
    fn session_ids_are_read_as_kopia_reads_them() {
        for (name, id) in [
            ("p0011-s22", Some("s22")),
            ("s0011-s2233", Some("s2233")),
            ("p0011", None),
            ("p0011-x-s9", Some("s9")),
            ("p0011-x", None),
        ] {
            assert_eq!(session_id(name), id, "{name}");
        }
    }

    #[test]
    fn odd_names_are_no_packs() {
        for name in ["p", "q", "s", "q_", "p-s1", "pü", "photos", "qA0-s1", "p0 1", "q.tmp"] {
            assert!(!candidate(&name.into(), false), "{name}");
        }
        assert!(candidate(&"p00ff-s22".into(), false) && !candidate(&"p00ff-s22".into(), true));
        assert!(candidate(&"q00ff".into(), true));
    }

    #[test]
    fn i6_s2_ages_at_the_boundary() {
        let full = Margins::full();
        let day = 24 * H;
        // The cutoff is the start and one second, so a blob of exactly 24 h less one second is old enough.
        let table = [
            ("p1", -day + 1, None),
            ("p1", -day + 2, Some(Keep::Young { until: at(2) })),
            ("p1", 1, Some(Keep::Young { until: at(day + 1) })),
            ("p1", 2, Some(Keep::AfterCutoff)),
            ("p1-sa", -day, Some(Keep::Session { until: at(96 * H - 95 * H) + std::time::Duration::from_secs(1) })),
            ("p1-sb", -day, None),
            ("p1-sc", -day, Some(Keep::Session { until: at(96 * H - 30 * H) })),
            ("p1-sd", -day, None),
            ("sff-sa", -day, Some(Keep::Session { until: at(H + 1) })),
        ];
        let mut over = marker("s5-sd", -30 * H, Some(-30 * H));
        over.over = true;
        let facts = [
            marker("s1-sa", -95 * H, Some(-95 * H - 9)),
            marker("s2-sa", -95 * H, Some(-95 * H + 1)),
            marker("s3-sb", -96 * H, Some(-96 * H + 1)),
            marker("s4-sc", -30 * H, None),
            over,
        ];
        let sessions = Sessions::of(&facts);
        for (name, written, expected) in table {
            assert_eq!(keep(&blob(name, written), &sessions, at(0), &full), expected, "{name} {written}");
        }
        // Without margins only what is newer than the start stays.
        for (written, kept) in [(1, false), (2, true), (-5, false)] {
            assert_eq!(keep(&blob("p1-sa", written), &sessions, at(0), &Margins::none()).is_some(), kept);
        }
    }

    #[test]
    fn i6_referenced_packs_stay_and_are_not_counted() {
        let listed =
            [blob("p1", -48 * H), blob("q2", -48 * H), blob("s3-sz", -97 * H), blob("p4", -H), blob("p0", -48 * H)];
        let plan = select(listed.iter(), |id| id.as_str() == "p1", &Sessions::default(), at(0), &Margins::full());
        let names: Vec<&str> = plan.blobs.iter().map(|d| d.blob.as_str()).collect();
        assert_eq!(names, ["p0", "q2", "s3-sz"]);
        assert_eq!(plan.blobs[2].rule, DeleteRule::ExpiredSession);
        assert_eq!((plan.stats.unreferenced_pack_count, plan.stats.deleted_total_size), (3, 30));
        assert_eq!((plan.stats.retained_pack_count, plan.stats.retained_total_size), (1, 10));
        assert!(candidate(&"q1".into(), true) && !candidate(&"p1".into(), true) && !candidate(&"s1".into(), true));
        assert!(candidate(&"s1".into(), false) && !candidate(&"xn0_1".into(), false));
    }
}
