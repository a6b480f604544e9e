//! One error for everything that crosses this library's surface: what kind, at which step, what helps.

use std::fmt;

/// Shorthand for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure it is. Callers branch on this, never on text; the binary maps it to an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A defect of this program.
    Internal,
    /// A bad argument or setting.
    Usage,
    /// There is no Kopia repository at this address.
    NotARepository,
    /// The named blob, content, object or manifest is provably not there.
    NotFound,
    /// Somebody else holds the lease, or a lock file.
    Locked,
    /// The password does not open the format blob.
    WrongPassword,
    /// Kopia's maintenance owner is another identity.
    NotOwner,
    /// Unknown version, feature, algorithm or backend.
    Unsupported,
    /// The plan does not hold together, or needs a person's word.
    PlanRefused,
    /// Something that is there cannot be read: truncated, bit-flipped, malformed, hostile.
    Damaged,
    /// An upgrade lock is set in the format blob.
    UpgradeInProgress,
    /// Local and storage clock disagree by more than five minutes.
    Clock,
    /// Read-only storage, or no right to do this.
    Permission,
    /// Another maintainer acted during this cycle.
    ForeignMaintenance,
    /// The store does not answer, or answers with an error that may pass.
    StoreUnavailable,
    /// A conditional write found another object than expected, or one where none was expected.
    PreconditionFailed,
    /// No room left on a local disk.
    DiskFull,
    /// The work does not fit the memory limit.
    MemoryLimit,
    /// A deadline passed before the deed.
    DeadlinePassed,
    /// Ctrl-C or a termination signal.
    Interrupted,
}

impl ErrorKind {
    /// Its name in JSON and in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Usage => "usage",
            Self::NotARepository => "not-a-repository",
            Self::NotFound => "not-found",
            Self::Locked => "locked",
            Self::WrongPassword => "wrong-password",
            Self::NotOwner => "not-owner",
            Self::Unsupported => "unsupported",
            Self::PlanRefused => "plan-refused",
            Self::Damaged => "damaged",
            Self::UpgradeInProgress => "upgrade-in-progress",
            Self::Clock => "clock",
            Self::Permission => "permission",
            Self::ForeignMaintenance => "foreign-maintenance",
            Self::StoreUnavailable => "store-unavailable",
            Self::PreconditionFailed => "precondition-failed",
            Self::DiskFull => "disk-full",
            Self::MemoryLimit => "memory-limit",
            Self::DeadlinePassed => "deadline-passed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// A failure: its kind, the step that failed, what helps, and the cause.
///
/// `Display` names the step and never repeats the source; print the chain with [`Error::chain`].
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    step: String,
    fix: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A failure of `kind` at `step` ("read index blob xn3_…", "maintenance must be run by …").
    pub fn new(kind: ErrorKind, step: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, step: step.into(), fix: None, source: None }))
    }

    /// A failure of a local file: no room for it, or no right to it.
    pub fn of_file(step: impl Into<String>, error: std::io::Error) -> Self {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        // A file too large: the limit that somebody set for files of this process.
        let is_full = matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge);
        let kind = if is_full { ErrorKind::DiskFull } else { ErrorKind::Permission };
        Self::new(kind, step).with_source(error)
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Adds what a person can do about it.
    #[must_use]
    pub fn with_fix(mut self, fix: impl Into<String>) -> Self {
        self.0.fix = Some(fix.into());
        self
    }

    /// The same failure seen from an outer step: the kind and the fix stay, this error becomes the source.
    #[must_use]
    pub fn at(self, step: impl Into<String>) -> Self {
        let kind = self.0.kind;
        let fix = self.0.fix.clone();
        Self(Box::new(Inner { kind, step: step.into(), fix, source: Some(Box::new(self)) }))
    }

    /// The same failure as another kind (a missing blob that an index names is damage, not absence).
    #[must_use]
    pub fn into_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// The kind of this failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What a person can do about it, if known.
    #[must_use]
    pub fn fix(&self) -> Option<&str> {
        self.0.fix.as_deref()
    }

    /// Whether trying the same again may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.0.kind, ErrorKind::StoreUnavailable)
    }

    /// Steps from the outside in, joined by ": ".
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }

    /// Shorthand: something that is there cannot be read.
    pub fn damaged(step: impl Into<String>) -> Self {
        Self::new(ErrorKind::Damaged, step)
    }

    /// Shorthand: an algorithm, version or shape that this program does not handle.
    pub fn unsupported(step: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, step)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.step)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.chain())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
