//! What a worker may say to the machine: what the work of one repository needs, and nothing that is a person's.

use verger_proto::{Command, CycleId, Driven, Refusal, RepositoryId, Ticket, WorkerId};

use crate::machine::{JobStatus, State};

/// The repository that a worker's command is about.
///
/// # Errors
/// `UnknownCycle`: it is about a cycle that is not open. Any other: no worker may say this.
pub(super) fn about(state: &State, command: &Command) -> Result<RepositoryId, Refusal> {
    match command {
        Command::ClaimJob { ticket } | Command::ReportProgress { ticket, .. } | Command::FailJob { ticket, .. } => {
            of_part(state, ticket)
        }
        // Whoever does a shard leaves outputs. How later stages are cut, and what the plan is, says who drives.
        Command::CompleteJob { ticket, report } => {
            let is_of_part = report.cuts.is_empty() && report.plan.is_none() && report.checked.is_none();
            if is_of_part { of_part(state, ticket) } else { Err(Refusal::NotDriving) }
        }
        Command::LeaveDrive { repository, .. }
        | Command::NoteUnable { repository, .. }
        | Command::NoteShutOut { repository, .. } => Ok(repository.clone()),
        Command::Driven(driven) => driven_about(state, driven),
        // Drives are given out at the desk and nowhere else.
        _ => Err(Refusal::NotDriving),
    }
}

/// Shards are anybody's. A job for a whole stage is its driver's alone, also when it is nobody's for a moment, and whoever shows the name
/// that has it: names can be read.
fn of_part(state: &State, ticket: &Ticket) -> Result<RepositoryId, Refusal> {
    let cycle = state.cycles.get(&ticket.cycle).ok_or(Refusal::UnknownCycle)?;
    match cycle.jobs.get(&ticket.job) {
        Some(job) if job.shard.is_whole() => Err(Refusal::NotDriving),
        // It would be about a job that is only to come.
        None if ticket.job.0 >= state.next_job => Err(Refusal::UnknownCycle),
        // What is over, the machine knows how to answer: no number is given twice.
        _ => Ok(cycle.repository.clone()),
    }
}

/// What a driver says must be about the repository that it drives: the machine looks at that one alone to see whether it may.
fn driven_about(state: &State, driven: &Driven) -> Result<RepositoryId, Refusal> {
    let named = match &driven.command {
        Command::TakeLease { repository, .. }
        | Command::RenewLease { repository, .. }
        | Command::LoseLease { repository, .. }
        | Command::ReleaseLease { repository, .. }
        | Command::OpenCycle { repository, .. }
        | Command::DropRequest { repository, .. }
        | Command::RecordReport { repository, .. }
        | Command::RecordLook { repository, .. }
        | Command::RecordProbe { repository, .. }
        | Command::IdentifyStore { repository, .. }
        | Command::NoteLease { repository, .. }
        | Command::NoteWrite { repository, .. }
        | Command::NoteSession { repository, .. } => repository.clone(),
        Command::ClaimJob { ticket }
        | Command::ReportProgress { ticket, .. }
        | Command::CompleteJob { ticket, .. }
        | Command::FailJob { ticket, .. }
        | Command::AddRevivals { ticket, .. }
        | Command::ApproveBatch { ticket, .. }
        | Command::BatchDone { ticket, .. } => of_or(state, ticket.cycle, driven),
        Command::ParkCycle { cycle } | Command::ResumeCycle { cycle } | Command::AbortCycle { cycle, .. } => {
            of_or(state, *cycle, driven)
        }
        Command::LoseWorker { worker } if is_elsewhere(state, worker, &driven.repository) => {
            return Err(Refusal::OtherRepository);
        }
        Command::LoseWorker { .. } | Command::Tick => driven.repository.clone(),
        _ => return Err(Refusal::NotDriving),
    };
    if named == driven.repository { Ok(named) } else { Err(Refusal::OtherRepository) }
}

pub(super) fn of(state: &State, cycle: CycleId) -> Result<RepositoryId, Refusal> {
    state.cycles.get(&cycle).map(|cycle| cycle.repository.clone()).ok_or(Refusal::UnknownCycle)
}

/// Whether a worker has jobs of other repositories.
fn is_elsewhere(state: &State, worker: &WorkerId, repository: &RepositoryId) -> bool {
    let others = state.cycles.values().filter(|cycle| cycle.repository != *repository);
    let mut jobs = others.flat_map(|cycle| cycle.jobs.values());
    jobs.any(|job| matches!(&job.status, JobStatus::Claimed(by, _) if by == worker))
}

/// A cycle that has ended is nobody's: the machine says so itself.
fn of_or(state: &State, cycle: CycleId, driven: &Driven) -> RepositoryId {
    of(state, cycle).unwrap_or_else(|_| driven.repository.clone())
}

#[cfg(test)]
mod tests {
    use verger_proto::report::Cut;
    use verger_proto::{Driver, FailureKind, JobReport, Mode, Registration, RepositoryName, SecretRef, Shard, Stage};

    use super::*;
    use crate::testing::{Rig, cut_scan, failure, options, output, repository, worker};

    fn driven(repository: RepositoryId, command: Command) -> Command {
        let driver = Driver { node: 1, boots: 1, run: 1 };
        Command::Driven(Box::new(Driven { driver, repository, command }))
    }

    #[test]
    fn a_worker_speaks_of_its_own_repository_and_of_nothing_that_is_a_persons() {
        let mut rig = Rig::new();
        rig.open(options(Mode::Full));
        let cycle = rig.state.open_cycle(&repository()).unwrap().id;
        let other: RepositoryId = format!("{}-{}", "cd".repeat(32), "02".repeat(16)).parse().unwrap();
        let park = Command::ParkCycle { cycle };
        assert_eq!(about(&rig.state, &driven(repository(), park.clone())), Ok(repository()));
        assert_eq!(about(&rig.state, &driven(other.clone(), park.clone())), Err(Refusal::OtherRepository));
        assert_eq!(about(&rig.state, &driven(repository(), Command::Tick)), Ok(repository()));
        let registration = Registration {
            name: RepositoryName::new("photos").unwrap(),
            address: "s3://attic/photos/".to_owned(),
            tenant: "default".to_owned(),
            password: SecretRef::Env("X".to_owned()),
            acting: verger_proto::Acting::TakeOwnership,
            exclusive: true,
            index: verger_proto::IndexKind::Epochs,
            schedule: verger_proto::Schedule::default(),
            pool: "default".to_owned(),
            weight: 1,
            mark_to_drop: verger_proto::MarkToDrop::default(),
        };
        for command in [
            Command::AddRepository { repository: repository(), registration: Box::new(registration) },
            Command::RemoveRepository { repository: repository() },
            Command::SealPlan {
                cycle,
                plan: verger_proto::PlanDigest(verger_proto::Digest::default()),
                allow_removing: 100,
            },
            Command::RevokeToken { name: "cron".to_owned() },
            Command::AdmitNode { node: 9, key: 9, replaces: None },
            Command::UnpauseCycle { cycle },
            Command::TakeDrive { repository: repository(), driver: Driver { node: 1, boots: 1, run: 1 } },
            Command::DrainWorker { worker: worker("w1"), drain: true },
            Command::Tick,
            park,
        ] {
            assert!(about(&rig.state, &command).is_err(), "{command:?}");
            if !matches!(command, Command::Tick | Command::ParkCycle { .. }) {
                assert!(about(&rig.state, &driven(repository(), command.clone())).is_err(), "{command:?}");
            }
        }
        assert_eq!(rig.state.cycles[&cycle].stage, Stage::Survey);
    }

    #[test]
    fn a_job_for_a_whole_stage_is_not_for_whoever_shows_the_name_that_has_it() {
        let mut rig = Rig::new();
        rig.open(options(Mode::Full));
        let ticket = rig.claim();
        let report = Box::new(rig.report(&rig.job()));
        let said = [
            Command::ClaimJob { ticket: ticket.clone() },
            Command::ReportProgress { ticket: ticket.clone(), progress: None },
            Command::CompleteJob { ticket: ticket.clone(), report },
            Command::FailJob { ticket: ticket.clone(), failure: failure(FailureKind::Internal, false) },
        ];
        for command in said {
            assert_eq!(about(&rig.state, &command), Err(Refusal::NotDriving), "{command:?}");
            assert_eq!(about(&rig.state, &driven(repository(), command)), Ok(repository()));
        }
        let guessed = Ticket { job: verger_proto::JobId(rig.state.next_job), ..ticket };
        assert_eq!(about(&rig.state, &Command::ClaimJob { ticket: guessed }), Err(Refusal::UnknownCycle));
    }

    #[test]
    fn a_shard_is_anybodys_and_leaves_outputs_alone() {
        let mut rig = cut_scan(&["p8", "q8"]);
        let ticket = rig.claim();
        assert_eq!(about(&rig.state, &Command::ClaimJob { ticket: ticket.clone() }), Ok(repository()));
        let complete = |report| Command::CompleteJob { ticket: ticket.clone(), report: Box::new(report) };
        assert_eq!(about(&rig.state, &complete(JobReport::done(vec![output("s")]))), Ok(repository()));
        let cuts = vec![Cut { stage: Stage::Rewrite, shards: vec![Shard::whole()] }];
        let cutting = JobReport { cuts, ..JobReport::done(vec![output("s")]) };
        assert_eq!(about(&rig.state, &complete(cutting)), Err(Refusal::NotDriving));
        let lose = Command::LoseWorker { worker: ticket.worker.clone() };
        assert_eq!(about(&rig.state, &lose), Err(Refusal::NotDriving));
        assert_eq!(about(&rig.state, &driven(repository(), lose.clone())), Ok(repository()));
        let other: RepositoryId = format!("{}-{}", "cd".repeat(32), "02".repeat(16)).parse().unwrap();
        assert_eq!(about(&rig.state, &driven(other, lose)), Err(Refusal::OtherRepository));
        rig.go(Command::CompleteJob { ticket: ticket.clone(), report: Box::new(JobReport::done(vec![output("s")])) });
        assert_eq!(
            about(&rig.state, &Command::FailJob { ticket, failure: failure(FailureKind::Internal, true) }),
            Ok(repository())
        );
    }
}
