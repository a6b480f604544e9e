//! Which names a blob may have, and which are ours rather than Kopia's.

use super::BlobId;
use crate::error::{Error, ErrorKind, Result};

/// Objects whose name starts so are Verger's, not Kopia's: never sharded and without suffix on file systems.
pub const OWN_PREFIX: &str = "verger.";

/// The lock file of a repository on a local disk (R4). It is no blob: it is listed, but never written or deleted through a store.
pub const LOCK_NAME: &str = "verger.lock";

/// Longest name that every store takes, with room for a suffix.
const LENGTH_MAX: usize = 240;

/// Whether this is one of ours.
pub(crate) fn is_own(name: &str) -> bool {
    name.starts_with(OWN_PREFIX)
}

/// As [`check_change`], for what is done to our own objects alone.
pub(crate) fn check_own(id: &BlobId) -> Result<()> {
    check_change(id)?;
    if is_own(id.as_str()) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Usage, format!("blob {id} is not one of ours")))
}

/// Whether a name can be a blob's: no path tricks, nothing a shell or a log would choke on.
pub(crate) fn is_valid(name: &str) -> bool {
    let plain = |c: char| c != '/' && c != '\\' && !c.is_control();
    !name.is_empty() && name.len() <= LENGTH_MAX && name != "." && !name.contains("..") && name.chars().all(plain)
}

/// Refuses names that could leave the repository. Names can come from a hostile index.
pub(crate) fn check(id: &BlobId) -> Result<()> {
    if is_valid(id.as_str()) {
        return Ok(());
    }
    Err(Error::damaged(format!("{:?} is no name for a blob", id.as_str())))
}

/// As [`check`], for a deed on the blob.
pub(crate) fn check_change(id: &BlobId) -> Result<()> {
    check(id)?;
    if id.as_str() == LOCK_NAME {
        return Err(Error::new(
            ErrorKind::Internal,
            format!("{LOCK_NAME} is held by flock and must never be replaced"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_refused() {
        for name in ["", ".", "..", "a/b", "/etc/passwd", "p..q", "a\0b", "a\nb", "a\\b", &"x".repeat(241)] {
            assert!(check(&BlobId::new(name)).is_err(), "{name:?}");
        }
        for name in ["kopia.repository", "_log_2026_x", "xn0_9cf8-c1", "kopia.repository.backup.me@host", "pü"] {
            assert!(check(&BlobId::new(name)).is_ok(), "{name:?}");
        }
        assert!(check_change(&BlobId::new(LOCK_NAME)).is_err());
        assert!(check_own(&BlobId::new("verger.probe-1")).is_ok() && check_own(&BlobId::new("p1")).is_err());
    }
}
