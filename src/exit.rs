//! Exit codes: one a kind of failure, documented in `docs/exit-codes.md`.

use verger_kopia::ErrorKind;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, or nothing was due.
    Done,
    /// A cycle did what was still safe and left the rest.
    Degraded,
    /// A failure of this kind.
    Failed(ErrorKind),
}

impl Exit {
    /// The process's exit code.
    #[must_use]
    pub(crate) fn code(self) -> u8 {
        let kind = match self {
            Self::Done => return 0,
            Self::Degraded => return 14,
            Self::Failed(kind) => kind,
        };
        match kind {
            ErrorKind::Usage => 2,
            ErrorKind::NotARepository => 10,
            ErrorKind::Locked => 11,
            ErrorKind::WrongPassword => 12,
            ErrorKind::NotOwner => 13,
            ErrorKind::Unsupported => 15,
            ErrorKind::PlanRefused => 16,
            ErrorKind::Damaged | ErrorKind::NotFound => 17,
            ErrorKind::UpgradeInProgress => 18,
            ErrorKind::Clock => 19,
            ErrorKind::Permission => 20,
            ErrorKind::ForeignMaintenance | ErrorKind::PreconditionFailed => 21,
            ErrorKind::StoreUnavailable | ErrorKind::DeadlinePassed => 22,
            ErrorKind::DiskFull | ErrorKind::MemoryLimit => 23,
            ErrorKind::Interrupted => 130,
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_documentation() {
        let page = include_str!("../docs/exit-codes.md");
        for (kind, code) in [
            (ErrorKind::Internal, 1),
            (ErrorKind::Usage, 2),
            (ErrorKind::NotARepository, 10),
            (ErrorKind::Locked, 11),
            (ErrorKind::WrongPassword, 12),
            (ErrorKind::NotOwner, 13),
            (ErrorKind::Unsupported, 15),
            (ErrorKind::PlanRefused, 16),
            (ErrorKind::Damaged, 17),
            (ErrorKind::UpgradeInProgress, 18),
            (ErrorKind::Clock, 19),
            (ErrorKind::Permission, 20),
            (ErrorKind::ForeignMaintenance, 21),
            (ErrorKind::StoreUnavailable, 22),
            (ErrorKind::DiskFull, 23),
            (ErrorKind::Interrupted, 130),
        ] {
            assert_eq!(Exit::Failed(kind).code(), code);
            assert!(page.contains(&format!("| {code} |")), "docs/exit-codes.md lacks {code}");
        }
        assert_eq!((Exit::Done.code(), Exit::Degraded.code()), (0, 14));
    }
}
