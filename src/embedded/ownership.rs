//! In whose name a cycle runs (R22).

use std::time::Duration;
use verger_kopia::mutant::{self, Mutant};

use verger_kopia::clock::Timestamp;
use verger_kopia::maintenance::history::Task;
use verger_kopia::maintenance::owner::Identity;
use verger_kopia::maintenance::{Params, Schedule};
use verger_kopia::manifest::ManifestEntry;
use verger_kopia::manifest::entry::new_id;
use verger_kopia::session::active_sessions;
use verger_kopia::storage::list_all;
use verger_kopia::{Error, ErrorKind, Repository, Result};
use verger_worker::bucket_lease::ACTS_MAX;
use verger_worker::manifests::write_manifests;
use verger_worker::task::record::ScheduleFile;

use super::lease::Held;
use super::{CycleRequest, Session};

/// In whose name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ownership {
    /// As this client; it must be the owner.
    Own,
    /// As this client, which becomes the owner.
    Take,
    /// In the owner's name.
    ActAs(String),
}

impl Ownership {
    /// `user@host` of this maintainer.
    pub fn identity(&self, own: &str) -> String {
        match self {
            Self::ActAs(name) => name.clone(),
            Self::Own | Self::Take => own.to_owned(),
        }
    }

    /// Whether the owner is to be written.
    #[must_use]
    pub fn takes(&self) -> bool {
        *self == Self::Take
    }
}

/// The refusal of safety none without the word, with what was seen of others (R23). Nothing seen proves nothing.
pub(super) fn not_alone(repository: &Repository) -> Error {
    let seen = others(repository).unwrap_or_else(|error| vec![format!("could not look: {}", error.chain())]);
    let seen = if seen.is_empty() { "nothing, which proves nothing".to_owned() } else { seen.join("; ") };
    let step = "--safety none needs the word that no other client is at work";
    Error::new(ErrorKind::Usage, format!("{step} (seen of others in the last 96 hours: {seen})"))
        .with_fix("Say it with --i-am-alone if it is so; without it all margins hold")
}

fn others(repository: &Repository) -> Result<Vec<String>> {
    let storage = repository.storage();
    let recently = storage.now()?.checked_sub(SEEN_FOR).unwrap_or(Timestamp::MIN);
    let mut seen: Vec<String> = active_sessions(repository)?
        .active
        .values()
        .filter(|session| session.checkpoint >= recently)
        .map(|session| match &session.info {
            Some(info) => format!("a session of {}@{} since {}", info.user, info.host, info.start_time),
            None => format!("a session that cannot be read since {}", session.checkpoint),
        })
        .collect();
    let prefix = if repository.config().epoch.enabled { "xn" } else { "n" };
    let indexes = list_all(&**storage, prefix)?;
    if let Some(newest) = indexes.iter().map(|blob| blob.timestamp).filter(|at| *at >= recently).max() {
        seen.push(format!("an index blob written at {newest}"));
    }
    if let Some(written) = ScheduleFile::load(repository)?.written().filter(|at| *at >= recently) {
        seen.push(format!("a maintenance schedule written at {written}"));
    }
    Ok(seen)
}

/// How long a sign of others is told.
const SEEN_FOR: Duration = Duration::from_secs(96 * 3600);

/// Refuses to run in a name that is not the owner's.
pub(super) fn check(request: &CycleRequest, identity: &str, params: &Params) -> Result<()> {
    if request.owner.takes() || mutant::on(Mutant::R22AnybodyIsOwner) {
        return Identity::parse(identity).map(drop);
    }
    Identity::parse(identity)?.require(&params.owner)
}

/// Whether a run of Kopia has to be waited for (R22).
#[derive(Debug, Clone, Copy)]
pub(super) struct Quiet {
    wanted: bool,
}

impl Quiet {
    /// Not where no other maintainer is at work by a person's word, nor where this is the owner's own machine and Kopia's locks
    /// are held: then no run of it is under way or can begin. The locks say nothing of another owner's runs.
    pub(super) fn of(request: &CycleRequest, own: &str, params: &Params, kopia_locks: usize) -> Self {
        let foreign = params.owner != own || matches!(&request.owner, Ownership::ActAs(name) if name != own);
        Self { wanted: !request.exclusive && !request.alone && (foreign || kopia_locks == 0) }
    }

    pub(super) fn check(self, session: &Session, schedule: &ScheduleFile) -> Result<()> {
        if self.wanted { wait_until_quiet(session, schedule) } else { Ok(()) }
    }
}

/// Writes the parameters with this identity as owner, in place of every earlier manifest of them.
pub(super) fn take(session: &Session, held: &Held) -> Result<()> {
    let repository = &session.workspace.repository;
    let clock = &*session.clock;
    held.keeper().wait_for_takeover(clock, &session.workspace.stop)?;
    let looked_at = clock.since_boot();
    let store_now = repository.storage().now()?;
    held.keeper().cover(store_now)?;
    // Publishing, so inside what the lease announced (R1).
    let acts = Duration::try_from(held.keeper().acts_until().duration_since(store_now)).unwrap_or_default();
    let not_after = looked_at.saturating_add(acts.min(ACTS_MAX));
    let params = Params { owner: session.identity.clone(), ..session.ahead.params.clone() };
    let now = session.clock.now();
    let existing = verger_kopia::maintenance::params::existing(&session.ahead.manifests);
    let mut entries: Vec<ManifestEntry> = existing.into_iter().map(|id| ManifestEntry::deletion(id, now)).collect();
    let labels = [("type".to_owned(), "maintenance".to_owned())].into();
    let data = serde_json::value::RawValue::from_string(params.to_json())
        .map_err(|e| Error::new(ErrorKind::Internal, "write maintenance parameters").with_source(e))?;
    entries.push(ManifestEntry::put(new_id(), labels, now, data));
    write_manifests(&session.workspace, &entries, Some(not_after))
}

/// Nothing is published until the run that wrote the schedule last is over: Kopia checks its owner once, at entry.
fn wait_until_quiet(session: &Session, schedule: &ScheduleFile) -> Result<()> {
    let Some(written) = schedule.written() else { return Ok(()) };
    let until = quiet_from(schedule.schedule(), written);
    let now = session.workspace.repository.storage().now()?;
    if now >= until {
        return Ok(());
    }
    let step = format!("a maintenance run of Kopia that wrote its schedule at {written} may still be under way");
    Err(Error::new(ErrorKind::ForeignMaintenance, step)
        .with_fix(format!("Run again after {until}; or say --exclusive if no other maintainer is at work")))
}

/// When the run that wrote the schedule last is certainly over (R22): at once if its last record is that of a finished run, else
/// after the longer of a day and twice the longest run.
fn quiet_from(schedule: &Schedule, written: Timestamp) -> Timestamp {
    if mutant::on(Mutant::R22NoQuietPeriod) {
        return written;
    }
    let newest = newest(schedule);
    let near = |end: Timestamp| written.duration_since(end).unsigned_abs() <= Duration::from_secs(300);
    if let Some((task, end, success, start)) = &newest
        && near(*end)
    {
        let cleaned = schedule.latest_success(&[Task::CleanupLogs]).unwrap_or(Timestamp::MIN);
        let full_since = schedule.runs.iter().any(|(name, runs)| {
            (name == Task::SnapshotGc.as_str() || name.starts_with("full-")) && runs.iter().any(|run| run.end > cleaned)
        });
        let finished = task == Task::CleanupLogs.as_str()
            || !success
            || (task == Task::AdvanceEpoch.as_str() && !full_since && *start <= *end);
        if finished {
            return written;
        }
    }
    let longest = schedule.runs.values().flatten().map(|run| run.end.duration_since(run.start).unsigned_abs()).max();
    written + longest.map_or(Duration::ZERO, |longest| longest * 2).max(Duration::from_secs(24 * 3600))
}

/// The record that ended last: task, end, success, start. Of several at one moment, the one that Kopia writes last.
fn newest(schedule: &Schedule) -> Option<(String, Timestamp, bool, Timestamp)> {
    let records = schedule.runs.iter().flat_map(|(task, runs)| runs.iter().map(move |run| (task, run)));
    let is_last = |task: &str| task == Task::CleanupLogs.as_str() || task == Task::AdvanceEpoch.as_str();
    let (task, run) = records.max_by_key(|(task, run)| (run.end, is_last(task)))?;
    Some((task.clone(), run.end, run.success, run.start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use verger_kopia::maintenance::history::RunRecord;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn schedule(runs: &[(Task, i64, bool)]) -> Schedule {
        let mut schedule = Schedule::default();
        for (task, end, success) in runs {
            let record = if *success {
                RunRecord::success(at(end - 10), at(*end))
            } else {
                RunRecord::failure(at(end - 10), at(*end), "x")
            };
            schedule.report(*task, record);
        }
        schedule
    }

    #[test]
    fn r22_kopias_locks_of_this_machine_say_nothing_of_another_owners_runs() {
        let request = |owner: Ownership, exclusive: bool| CycleRequest {
            mode: None,
            by_itself: false,
            safety: super::super::Safety::Full,
            alone: false,
            exclusive,
            allow_removing: None,
            dry_run: false,
            wait: false,
            mark_to_drop: None,
            owner,
            plan_out: None,
        };
        let wanted = |of: &str, owner: Ownership, locks: usize, exclusive: bool| {
            let params = Params { owner: of.to_owned(), ..Params::kopia_default() };
            Quiet::of(&request(owner, exclusive), "me@here", &params, locks).wanted
        };
        let as_other = || Ownership::ActAs("other@there".to_owned());
        assert!(!wanted("me@here", Ownership::Own, 1, false), "Kopia of this machine is locked out");
        assert!(wanted("me@here", Ownership::Own, 0, false), "there may be another machine of this name");
        assert!(wanted("other@there", Ownership::Take, 1, false) && wanted("other@there", as_other(), 1, false));
        assert!(!wanted("me@here", Ownership::Take, 1, false), "it is the owner already");
        assert!(!wanted("other@there", Ownership::Take, 0, true), "a person's word");
    }

    #[test]
    fn r22_a_finished_run_is_quiet_at_once_and_any_other_after_a_day() {
        let day = Duration::from_secs(24 * 3600);
        let full =
            [(Task::SnapshotGc, 100, true), (Task::FullRewriteContents, 200, true), (Task::CleanupLogs, 300, true)];
        assert_eq!(quiet_from(&schedule(&full), at(301)), at(301));
        assert_eq!(quiet_from(&schedule(&full[..2]), at(201)), at(201) + day, "in the middle of a full run");
        assert_eq!(quiet_from(&schedule(&[(Task::SnapshotGc, 100, false)]), at(101)), at(101), "it failed");
        let quick = [(Task::CleanupLogs, 50, true), (Task::AdvanceEpoch, 100, true)];
        assert_eq!(quiet_from(&schedule(&quick), at(101)), at(101));
        let at_once =
            [(Task::CleanupLogs, 50, true), (Task::CompactSingleEpoch, 100, true), (Task::AdvanceEpoch, 100, true)];
        assert_eq!(quiet_from(&schedule(&at_once), at(101)), at(101), "one record for both, as Verger writes them");
        let begun = [(Task::CleanupLogs, 50, true), (Task::SnapshotGc, 90, true), (Task::AdvanceEpoch, 100, true)];
        assert_eq!(quiet_from(&schedule(&begun), at(101)), at(101) + day, "a full run goes on after its epochs");
        assert_eq!(quiet_from(&schedule(&full), at(3000)), at(3000) + day, "written by somebody after the last record");
    }
}
