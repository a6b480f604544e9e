//! `kopia.blobcfg`: retention settings.

use std::time::Duration;

use super::json::Fields;
use crate::error::{Error, Result};
use crate::storage::RetentionMode;

/// Name of the blob.
pub const BLOB_CONFIG_BLOB: &str = "kopia.blobcfg";

/// Object-lock settings; both or neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlobConfig {
    /// Mode and period.
    pub retention: Option<(RetentionMode, Duration)>,
}

impl BlobConfig {
    /// Parses the decrypted `kopia.blobcfg`.
    ///
    /// # Errors
    /// `Damaged` if it is malformed or names only one of mode and period, `Unsupported` for an unknown mode.
    pub fn parse(plain: &[u8]) -> Result<Self> {
        let mut fields = Fields::parse(BLOB_CONFIG_BLOB, plain)?;
        let mode = fields.text("retentionMode")?;
        let period = fields.duration("retentionPeriod")?;
        let mode = match mode.as_str() {
            "" if period.is_zero() => return Ok(Self::default()),
            _ if mode.is_empty() || period.is_zero() => {
                return Err(Error::damaged(format!("parse {BLOB_CONFIG_BLOB}: it names only one of mode and period")));
            }
            "GOVERNANCE" => RetentionMode::Governance,
            // Kopia's word for Azure and Google, where nobody can shorten it either (`repo/blob/storage.go`).
            "COMPLIANCE" | "Locked" => RetentionMode::Compliance,
            _ => return Err(Error::unsupported(format!("retention mode {mode:?} is not known"))),
        };
        Ok(Self { retention: Some((mode, period)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn mode_and_period_come_together_or_not_at_all() {
        let day = Duration::from_hours(24);
        let parse = |text: &str| BlobConfig::parse(text.as_bytes()).map(|config| config.retention);
        assert_eq!(parse("{}").unwrap(), None);
        let set = |mode| format!(r#"{{"RetentionMode":"{mode}","retentionPeriod":86400000000000}}"#);
        assert_eq!(parse(&set("GOVERNANCE")).unwrap(), Some((RetentionMode::Governance, day)));
        assert_eq!(parse(&set("COMPLIANCE")).unwrap(), Some((RetentionMode::Compliance, day)));
        assert_eq!(parse(&set("SOMETIMES")).unwrap_err().kind(), ErrorKind::Unsupported);
        for half in [&set(""), r#"{"retentionMode":"GOVERNANCE"}"#, r#"{"retentionPeriod":-1}"#, "", "[]"] {
            assert_eq!(parse(half).unwrap_err().kind(), ErrorKind::Damaged, "{half}");
        }
    }
}
