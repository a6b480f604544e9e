//! The facts of a survey in the shape that the rules take.

use verger_kopia::clock::Timestamp;
use verger_kopia::error::Result;
use verger_kopia::index_set::legacy::{LegacyState, read_cleanups};
use verger_kopia::maintenance::Margins;
use verger_kopia::maintenance::rules::facts::{CleanupNote, CompactionLog, Facts, Frozen, IndexFacts, SessionFact};
use verger_kopia::maintenance::rules::plan::Mode;
use verger_kopia::mutant::{self, Mutant};
use verger_kopia::session::SessionId;

use crate::task::solve::{Damage, Used, Wrong};
use crate::task::survey::Survey;

/// What is asked for.
pub struct Request<'a> {
    /// Quick, full, or index.
    pub mode: Mode,
    /// Waits.
    pub margins: &'a Margins,
    /// Start that this cycle's snapshot GC will record.
    pub gc_started: Timestamp,
    /// Sessions of our own whose job provably ended (R21).
    pub over: &'a dyn Fn(&SessionId) -> bool,
}

/// What the rules need besides the survey itself, owned.
pub struct Gathered<'a> {
    survey: &'a Survey,
    used: Option<&'a Used>,
    mode: Mode,
    margins: &'a Margins,
    gc_started: Timestamp,
    unique_id: String,
    store: String,
    view: String,
    now: Timestamp,
    sessions: Vec<SessionFact>,
    index: IndexFacts,
    frozen: Frozen,
    frozen_why: String,
}

impl<'a> Gathered<'a> {
    /// Reads the clocks and, with the legacy index, its logs. `used`: `None` unless it is a full cycle.
    ///
    /// # Errors
    /// `Damaged` if a legacy compaction log or clean-up note cannot be read; storage errors.
    pub fn new(survey: &'a Survey, used: Option<&'a Used>, request: &Request<'a>) -> Result<Self> {
        let repository = &survey.repository;
        let (frozen, frozen_why) = frozen(survey, used.map_or(&[], |used| &used.damages));
        Ok(Self {
            survey,
            used,
            mode: request.mode,
            margins: request.margins,
            gc_started: request.gc_started,
            unique_id: hex(repository.unique_id()),
            store: repository.storage().address(),
            view: survey.view.digest(),
            now: repository.storage().now()?.min(repository.clock().now()),
            sessions: sessions(survey, request.over),
            index: index(survey)?,
            frozen,
            frozen_why,
        })
    }

    /// The facts, for the rules.
    #[must_use]
    pub fn facts(&self) -> Facts<'_> {
        let survey = self.survey;
        Facts {
            mode: self.mode,
            margins: self.margins,
            unique_id: &self.unique_id,
            store: &self.store,
            view: &self.view,
            started: survey.started,
            now: self.now,
            gc_started: self.gc_started,
            table: &survey.view.table,
            used: self.used.map(|used| &used.rows),
            frozen: self.frozen,
            frozen_why: &self.frozen_why,
            packs: &survey.listing.packs,
            sessions: &self.sessions,
            format_blobs: &survey.listing.format,
            logs: &survey.listing.logs,
            index: &self.index,
            schedule: &survey.schedule.schedule,
            params: &survey.params,
            blob_config: survey.repository.blob_config(),
            max_pack_size: survey.repository.config().max_pack_size,
        }
    }

    /// What must not happen, and why.
    #[must_use]
    pub fn frozen(&self) -> (Frozen, &str) {
        (self.frozen, &self.frozen_why)
    }
}

/// R11: what the damage forbids, and why, for people.
#[must_use]
pub fn frozen(survey: &Survey, damages: &[Damage]) -> (Frozen, String) {
    if let Some(damage) =
        damages.iter().find(|damage| damage.wrong == Wrong::Missing && !mutant::on(Mutant::R11LostIndexStopsNothing))
    {
        let why = format!("object {}{} has no index entry: an index blob may be lost", damage.object, place(damage));
        return (Frozen::Everything, why);
    }
    if mutant::on(Mutant::R11DamageStopsNothing) {
        return (Frozen::Nothing, String::new());
    }
    if let Some(unreadable) = survey.unreadable.first() {
        return (Frozen::MarksAndDrops, format!("{} cannot be read: {}", unreadable.what, unreadable.error));
    }
    if let Some(damage) = damages.iter().find(|damage| damage.wrong == Wrong::Unreadable) {
        let why = format!("object {}{} cannot be read: {}", damage.object, place(damage), damage.error);
        return (Frozen::MarksAndDrops, why);
    }
    (Frozen::Nothing, String::new())
}

fn place(damage: &Damage) -> String {
    let Some(touch) = damage.touches.first() else { return String::new() };
    let path = if touch.path.is_empty() { "its root" } else { &touch.path };
    format!(" (snapshot {}, {path})", touch.snapshot)
}

fn sessions(survey: &Survey, over: &dyn Fn(&SessionId) -> bool) -> Vec<SessionFact> {
    let mut facts = Vec::new();
    for session in survey.sessions.active.values() {
        // R11: one whose body cannot be read counts by its storage time, which the rules take when there is no checkpoint.
        let checkpoint = session.info.as_ref().map(|_| session.checkpoint);
        let over = over(&session.id);
        facts.extend(session.markers.iter().map(|marker| SessionFact { marker: marker.clone(), checkpoint, over }));
    }
    facts
}

fn index(survey: &Survey) -> Result<IndexFacts> {
    let repository = &survey.repository;
    let parameters = &repository.config().epoch;
    if parameters.enabled {
        let blobs = survey.listing.indexes.iter().filter(|blob| blob.id.as_str().starts_with('x'));
        return Ok(IndexFacts::Epochs { parameters: parameters.clone(), blobs: blobs.cloned().collect() });
    }
    let state = LegacyState::load(repository)?;
    let log = |(blob, log): &(_, verger_kopia::index_set::legacy::CompactionLog)| CompactionLog {
        blob: Clone::clone(blob),
        inputs: log.inputs().cloned().collect(),
        outputs: log.outputs().cloned().collect(),
    };
    let notes = read_cleanups(repository, survey.listing.cleanups())?.into_iter();
    let notes = notes.filter_map(|(blob, note)| Some((blob, note.ok()?))).map(|(blob, note)| CleanupNote {
        blob,
        logs: note.logs.unwrap_or_default(),
        scheduled: note.scheduled,
    });
    Ok(IndexFacts::Legacy {
        active: survey.view.blobs.clone(),
        logs: state.logs.iter().map(log).collect(),
        notes: notes.collect(),
        all: state.indexes,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
