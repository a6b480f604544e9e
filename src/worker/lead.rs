//! A whole cycle, led from here: the same run as in a coordinator's own process, over a machine elsewhere.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use verger_coordinator::api::work::{Ended, Ready, Task};
use verger_coordinator::drive::{Backend, DrivenBackend};
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::{Command, Driver};
use verger_worker::progress::Stop;

use super::Crew;
use super::places::Found;
use super::remote::Remote;
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
    let known = &task.registration;
    if let Err(error) = crew.site.opener.check_secret(&known.name, &known.address, &known.password) {
        hand_back(crew, &task, driver, &error);
        return Ok(Found::Work);
    }
    let repository = task.repository.clone();
    let outcome = lead(crew, &task, driver, run);
    if let Err(error) = &outcome {
        tracing::warn!(repository = %task.registration.name, error = error.chain(), "a cycle could not be led");
    }
    let failed = !matches!(outcome, Ok(Outcome::Ran));
    crew.counts.cycle(failed);
    if let Err(error) = crew.link.ended(&Ended { repository, driver, failed }) {
        tracing::debug!(error = error.chain(), "nobody was told how a cycle ended");
    }
    Ok(Found::Work)
}

/// A cycle for which a secret is missing here is anybody else's: nothing of it was begun, and this worker is not given the repository for
/// a while. It counts neither as done nor as failed.
fn hand_back(crew: &Crew, task: &Task, driver: Driver, why: &Error) {
    let Task { repository, registration, .. } = task;
    tracing::warn!(repository = %registration.name, error = why.chain(), "a cycle is left to others");
    let noted = crew.note_unable(repository, driver, why);
    let left = crew.link.say(Command::LeaveDrive { repository: repository.clone(), driver });
    if let Err(error) = noted.and(left.map(drop)) {
        tracing::warn!(error = error.chain(), "a cycle was not given back: others take it up when its time is over");
        // Whoever gives it out would give it to this worker again at once.
        let ended = Ended { repository: repository.clone(), driver, failed: true };
        if let Err(error) = crew.link.ended(&ended) {
            tracing::debug!(error = error.chain(), "nobody was told how a cycle ended");
        }
    }
}

fn lead(crew: &Arc<Crew>, task: &Task, driver: Driver, run: u64) -> Result<Outcome> {
    let remote = Arc::new(Remote::new(crew.link.clone(), task.repository.clone(), crew.site.router.clone())?);
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
