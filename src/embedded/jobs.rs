//! The jobs of a cycle, by whoever leads it: heard of, chosen, claimed, run, reported.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use verger_coordinator::drive::{Drive, LocalControl};
use verger_coordinator::machine::Phase;
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::Command;
use verger_proto::control::{Control, ControlError};
use verger_proto::id::{CycleId, WorkerId};
use verger_proto::queue::{Hint, Queue};
use verger_proto::report::{FailureKind, JobReport};
use verger_worker::kept::Next;
use verger_worker::run::{Work, error_kind};

use super::words::Telling;
use super::{Session, trace};

/// How long a worker waits for the next job of its own cycle.
const JOB_WAIT: Duration = Duration::from_millis(500);
/// And how long between looks at shards that are left to others for a moment.
const LEFT_WAIT: Duration = Duration::from_millis(50);

/// Claims, runs and reports the cycle's jobs until the machine has closed, parked or refused it.
#[allow(clippy::too_many_arguments, reason = "the parts of one process, named once")]
pub(super) fn drive_to_end(
    drive: &Drive,
    queue: &dyn Queue,
    control: &LocalControl,
    worker: &WorkerId,
    cycle: CycleId,
    work: &mut Work<'_>,
    told: &mut trace::Told,
    session: &Session,
) -> Result<()> {
    let span = told.span().clone();
    let _under_way = span.enter();
    let mut left = None;
    loop {
        match drive.state(|state| state.cycles.get(&cycle).map(|cycle| cycle.phase.clone())) {
            None | Some(Phase::Parked | Phase::WaitingForWord) => return Ok(()),
            // Others have what there is to do: nothing here would notice.
            Some(Phase::Running) if session.workspace.stop.is_asked() => {
                drive.submit(Command::ParkCycle { cycle })?;
                continue;
            }
            Some(Phase::Running | Phase::Stopping(_)) => {}
        }
        let heard = match left.take() {
            Some(hint) => Ok(Some(hint)),
            None => queue.take(JOB_WAIT),
        };
        let Ok(Some(heard)) = heard else {
            drive.submit(Command::Tick)?;
            continue;
        };
        let Next::Shard(hint) = chosen(session, drive, worker, &heard) else {
            left = Some(heard);
            std::thread::sleep(LEFT_WAIT);
            continue;
        };
        // Another one may have had it first; then what was heard of is still to be done.
        let wanted = if hint == heard { vec![hint] } else { vec![hint, heard] };
        let there = wanted.into_iter().filter(|hint| drive.is_there(hint, worker)).map(|hint| hint.ticket(worker));
        let claimed = there.filter_map(|ticket| Some((control.claim(&ticket).ok()?, ticket))).next();
        let Some((spec, ticket)) = claimed else { continue };
        // A shard's worker says all this for itself, whoever he is.
        let keeps_claim = session.fleet.is_some() && spec.shard.is_whole();
        let (words, stop, every) = (&*session.words, &session.workspace.stop, session.tell_every);
        let is_lost = AtomicBool::new(false);
        let telling = Telling { words, drive, control, every, stop, is_lost: &is_lost, keeps_claim };
        let report = telling.until_done(&ticket, || told.job(&spec, work));
        let interrupted = matches!(&report.outcome,
            verger_proto::report::Outcome::Failed(failure) if failure.kind == FailureKind::Interrupted);
        if interrupted {
            drive.submit(Command::ParkCycle { cycle })?;
        }
        if is_lost.load(Ordering::Relaxed) {
            let step =
                format!("the job of stage {} was taken away: nobody who leads heard of it for too long", spec.stage);
            return Err(Error::new(ErrorKind::StoreUnavailable, step)
                .with_fix("See whether the coordinators can be reached, and keep up"));
        }
        match control.report(&ticket, report) {
            Ok(()) => {}
            Err(refused @ ControlError::Refused(_)) => {
                // The machine does not take it for the end of the job, and nobody else will do it. Of a fenced job this is refused, too.
                let text = format!("the report of a job was refused: {refused}");
                let _ = control.report(&ticket, JobReport::failed(FailureKind::Internal, text, false));
            }
            // It may have been taken all the same: whoever goes on with the cycle sees.
            Err(unheard) => return Err(unheard_of(unheard)),
        }
    }
}

/// The job that is done next by whoever heard of one.
fn chosen(session: &Session, drive: &Drive, worker: &WorkerId, heard: &Hint) -> Next {
    let Some(kept) = &session.chooses_by else { return Next::Shard(heard.clone()) };
    let waiting = drive.waiting(heard);
    // A whole stage, or a shard whose claim was heard and the answer to it was not.
    let is_apart = drive.is_there(heard, worker) && waiting.iter().all(|(other, _)| other != heard);
    if is_apart { Next::Shard(heard.clone()) } else { kept.next_of_lead(heard.clone(), &waiting, Instant::now()) }
}

fn unheard_of(error: ControlError) -> Error {
    let kind = match &error {
        ControlError::Ledger { kind, .. } => error_kind(*kind),
        ControlError::Unavailable(_) | ControlError::Refused(_) => ErrorKind::StoreUnavailable,
    };
    Error::new(kind, "tell the machine what came of a job").with_source(error)
}
