//! A whole cycle, led from here: the same run as in a coordinator's own process, over a machine elsewhere.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use verger_coordinator::api::work::{Ended, Ready, Task};
use verger_coordinator::drive::{Backend, DrivenBackend};
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::{Command, Driver, Failure};
use verger_worker::progress::Stop;

use super::Crew;
use super::places::Found;
use super::remote::Remote;
use super::shards::SHUT_OUT_FOR;
use crate::up::run;
use crate::up::supervisor::Outcome;

/// How often it is told that the cycle's driver lives: three signs may be lost.
const LIVE_EVERY: Duration = Duration::from_secs(4);

/// Takes a cycle and runs it, if there is one.
///
/// # Errors
/// No coordinator leads, or none answers.
pub(super) fn take(crew: &Arc<Crew>) -> Result<Found> {
    let run = crew.runs.fetch_add(1, Ordering::Relaxed);
    let driver = crew.driver(run);
    let Some(task) = crew.link.next(&Ready { driver, pools: crew.pools.clone() })? else {
        return Ok(Found::Nothing);
    };
    let repository = task.repository.clone();
    let outcome = lead(crew, &task, driver, run);
    if let Err(error) = &outcome {
        tracing::warn!(repository = %task.registration.name, error = error.chain(), "a cycle could not be led");
    }
    if matches!(outcome, Ok(Outcome::Unable(_))) {
        return Ok(Found::Work);
    }
    let failed = !matches!(outcome, Ok(Outcome::Ran));
    crew.counts.cycle(failed);
    if let Err(error) = crew.link.ended(&Ended { repository, driver, failed }) {
        tracing::debug!(error = error.chain(), "nobody was told how a cycle ended");
    }
    Ok(Found::Work)
}

/// A cycle for which a secret is missing here, or is refused, is anybody else's: nothing of it was begun, and this worker is not given the
/// repository for a while. It counts neither as done nor as failed. Said before the drive is left: whoever gives it out would give it to
/// this worker again.
fn hand_back(crew: &Crew, task: &Task, driver: Driver, failure: Failure) -> Outcome {
    let Task { repository, registration, .. } = task;
    tracing::warn!(repository = %registration.name, error = failure.text, "a cycle is left to others");
    crew.opened.leave(repository, SHUT_OUT_FOR);
    match crew.note_unable(repository, driver, &failure) {
        Ok(()) => Outcome::Unable(failure),
        Err(error) => {
            tracing::warn!(error = error.chain(), "nobody was told that a repository cannot be opened here");
            Outcome::Failed
        }
    }
}

fn lead(crew: &Arc<Crew>, task: &Task, driver: Driver, run: u64) -> Result<Outcome> {
    let remote = Remote::new(crew.link.clone(), task.repository.clone(), crew.site.router.clone());
    let remote = Arc::new(remote.inspect_err(|_| {
        // Nothing was begun: whoever comes next need not wait until this drive is silent for too long.
        let _ = crew.link.say(Command::LeaveDrive { repository: task.repository.clone(), driver });
    })?);
    let inner: Arc<dyn Backend> = remote.clone();
    let driven = Arc::new(DrivenBackend::given(inner, &task.repository, driver));
    let stop = crew.stop.child();
    let (done, ended) = channel::<()>();
    let followed = remote.clone();
    let following = std::thread::Builder::new().name("follow".to_owned()).spawn(move || followed.follow());
    following.map_err(|error| Error::new(ErrorKind::Internal, "begin a thread").with_source(error))?;
    let outcome = std::thread::scope(|scope| {
        let (driven, stop) = (&driven, &stop);
        scope.spawn(move || {
            while ended.recv_timeout(LIVE_EVERY) == Err(RecvTimeoutError::Timeout) {
                live(driven, task, stop);
            }
        });
        let _over = Over(&remote, done);
        let backend: Arc<dyn Backend> = driven.clone();
        run::run(&crew.site, task, stop.clone(), &backend, &crew.run_name(run))
    });
    let outcome = match outcome {
        Outcome::Unable(failure) => hand_back(crew, task, driver, failure),
        other => other,
    };
    driven.leave();
    Ok(outcome)
}

/// Ends what goes on beside a run, also when it panics.
struct Over<'a>(&'a Remote, #[allow(dead_code, reason = "dropping it is the word")] Sender<()>);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn live(driven: &DrivenBackend, task: &Task, stop: &Stop) {
    match driven.live() {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::Interrupted => {
            let name = &task.registration.name;
            tracing::warn!(repository = %name, error = error.chain(), "a cycle is given away");
            stop.ask();
        }
        Err(error) => tracing::warn!(error = error.chain(), "no sign of life was kept"),
    }
}
