//! What a worker may say to the machine: what the work of one repository needs, and nothing that is a person's.

use verger_proto::{Command, CycleId, Driven, Refusal, RepositoryId};

use crate::machine::State;

/// The repository that a worker's command is about; `None`: about no repository.
///
/// # Errors
/// `UnknownCycle`: it is about a cycle that is not open. Any other: no worker may say this.
pub(super) fn about(state: &State, command: &Command) -> Result<Option<RepositoryId>, Refusal> {
    match command {
        // Shards are claimed by whoever comes; the machine lets nobody have another job like this.
        Command::ClaimJob { ticket } | Command::ReportProgress { ticket, .. } | Command::CompleteJob { ticket, .. } => {
            of(state, ticket.cycle).map(Some)
        }
        Command::FailJob { ticket, .. } => of(state, ticket.cycle).map(Some),
        Command::LoseWorker { .. } => Ok(None),
        Command::LeaveDrive { repository, .. } => Ok(Some(repository.clone())),
        Command::TakeDrive { repository, driver } => {
            // It is given out by the desk; said again, it changes nothing.
            let present = state.repositories.get(repository).and_then(|entry| entry.driver);
            let is_same = present.is_some_and(|(present, _)| present == *driver);
            if is_same { Ok(Some(repository.clone())) } else { Err(Refusal::NotDriving) }
        }
        Command::Driven(driven) => driven_about(state, driven).map(Some),
        _ => Err(Refusal::NotDriving),
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
        Command::LoseWorker { .. } | Command::Tick => driven.repository.clone(),
        _ => return Err(Refusal::NotDriving),
    };
    if named == driven.repository { Ok(named) } else { Err(Refusal::OtherRepository) }
}

fn of(state: &State, cycle: CycleId) -> Result<RepositoryId, Refusal> {
    state.cycles.get(&cycle).map(|cycle| cycle.repository.clone()).ok_or(Refusal::UnknownCycle)
}

/// A cycle that has ended is nobody's: the machine says so itself.
fn of_or(state: &State, cycle: CycleId, driven: &Driven) -> RepositoryId {
    of(state, cycle).unwrap_or_else(|_| driven.repository.clone())
}

#[cfg(test)]
mod tests {
    use verger_proto::{Driver, Mode, Registration, RepositoryName, SecretRef, Stage};

    use super::*;
    use crate::testing::{Rig, options, repository};

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
        assert_eq!(about(&rig.state, &driven(repository(), park.clone())), Ok(Some(repository())));
        assert_eq!(about(&rig.state, &driven(other.clone(), park.clone())), Err(Refusal::OtherRepository));
        assert_eq!(about(&rig.state, &driven(repository(), Command::Tick)), Ok(Some(repository())));
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
}
