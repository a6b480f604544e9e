//! What a program knows of what coordinators replicate, as one number, so that two programs may run in one cluster.
//!
//! Every node applies every command with its own program. A command that one of them cannot read stops it, and one that it applies in its
//! own way makes another state and another ledger of the same log. So a cluster goes by a level that all of its members know: it is part
//! of the replicated state, rises by [`Command::RaiseLevel`] once every member has said that its program knows more, and never goes down.
//!
//! Whoever changes what is replicated counts [`LEVEL`] up, once a release:
//!
//! - A new command, or a new variant inside of one: give it the new level in [`of`]. It is refused until the cluster has that level.
//! - A command that is to be applied in another way: keep the old way, and branch in the machine, where every replica decides alike:
//!   `if turn.state.level >= 2 { new } else { old }`.
//! - More in a snapshot: a part of its own, left out while it is empty. What fills it is a command of the new level.
//!
//! What stands below a level that no cluster is upgraded from any more can be taken out.

use crate::command::Command;

/// What this program knows. A cluster without a level (0) may have members from before there were levels; they say none.
pub const LEVEL: u32 = 1;

/// The level that a cluster must have before `command` may be in its log.
#[must_use]
pub fn of(command: &Command) -> u32 {
    match command {
        Command::Ordered(ordered) => of(&ordered.command),
        Command::Driven(driven) => of(&driven.command),
        // Its leader alone raises it, and does not ask here: whoever else says so is refused.
        Command::RaiseLevel { level } => *level,
        Command::IdentifyStore { .. }
        | Command::NoteLease { .. }
        | Command::NoteUnable { .. }
        | Command::NoteShutOut { .. }
        | Command::RecordVerification { .. } => 1,
        Command::TakeLease { .. }
        | Command::RenewLease { .. }
        | Command::LoseLease { .. }
        | Command::ReleaseLease { .. }
        | Command::OpenCycle { .. }
        | Command::ClaimJob { .. }
        | Command::ReportProgress { .. }
        | Command::CompleteJob { .. }
        | Command::FailJob { .. }
        | Command::LoseWorker { .. }
        | Command::SealPlan { .. }
        | Command::AddRevivals { .. }
        | Command::ApproveBatch { .. }
        | Command::BatchDone { .. }
        | Command::ParkCycle { .. }
        | Command::ResumeCycle { .. }
        | Command::AbortCycle { .. }
        | Command::Tick
        | Command::AddRepository { .. }
        | Command::ChangeRepository { .. }
        | Command::RemoveRepository { .. }
        | Command::RequestCycle { .. }
        | Command::DropRequest { .. }
        | Command::RecordReport { .. }
        | Command::PauseCycle { .. }
        | Command::UnpauseCycle { .. }
        | Command::RecordLook { .. }
        | Command::CreateToken { .. }
        | Command::RevokeToken { .. }
        | Command::AdmitNode { .. }
        | Command::TakeDrive { .. }
        | Command::LeaveDrive { .. }
        | Command::NoteWrite { .. }
        | Command::NoteSession { .. }
        | Command::SeeWorker { .. }
        | Command::ForgetWorker { .. }
        | Command::DrainWorker { .. }
        | Command::NoteWorkKey { .. }
        | Command::DismissNode { .. }
        | Command::MoveNode { .. }
        | Command::RecoverCluster(_)
        | Command::RecordProbe { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Ordered;
    use crate::id::RepositoryId;

    #[test]
    fn what_is_inside_of_a_command_counts() {
        let repository: RepositoryId = format!("{}-{}", "ab".repeat(32), "01".repeat(16)).parse().unwrap();
        let identify = Command::IdentifyStore { store: repository.store.clone(), repository };
        assert_eq!(of(&identify), 1);
        let ordered = Command::Ordered(Box::new(Ordered { actor: "ann".to_owned(), command: identify }));
        assert_eq!(of(&ordered), 1);
        assert_eq!((of(&Command::Tick), of(&Command::RaiseLevel { level: 7 })), (0, 7));
    }
}
