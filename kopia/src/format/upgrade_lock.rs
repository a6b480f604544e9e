//! The upgrade lock.

use super::json::Fields;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};

/// An upgrade lock as the format blob records it.
#[derive(Debug, Clone)]
pub struct UpgradeLock {
    /// Who upgrades.
    pub owner_id: String,
    /// Message for people.
    pub message: String,
    /// When it was placed.
    pub created: Timestamp,
    /// Nanoseconds from placing to upgrading; Kopia does not check them on reading, so they may be negative.
    advance_notice: i64,
    /// Nanoseconds that clients need to end what they do.
    io_drain_timeout: i64,
    /// Nanoseconds that clocks may differ.
    clock_drift: i64,
}

impl UpgradeLock {
    pub(super) fn from_fields(mut fields: Fields) -> Result<Self> {
        let created = fields.text("creationTime")?;
        Ok(Self {
            owner_id: fields.text("ownerID")?,
            message: fields.text("message")?,
            created: created.parse().map_err(|_| fields.bad("creationTime", "is not a time"))?,
            advance_notice: fields.integer("advanceNoticeDuration")?,
            io_drain_timeout: fields.integer("ioDrainTimeout")?,
            clock_drift: fields.integer("maxPermittedClockDrift")?,
        })
    }

    /// Whether everybody but its owner must keep away now (`repo/format/upgrade_lock_intent.go`).
    #[must_use]
    pub fn is_locked(&self, now: Timestamp) -> bool {
        let drain = i128::from(self.clock_drift) + 2 * i128::from(self.io_drain_timeout);
        let notice = i128::from(self.advance_notice);
        notice < drain || now.as_nanosecond() >= self.created.as_nanosecond() + notice - drain
    }

    /// # Errors
    /// `UpgradeInProgress` while it is locked.
    pub fn check(&self, now: Timestamp) -> Result<()> {
        if !self.is_locked(now) {
            return Ok(());
        }
        let step = format!("{:?} has locked the repository for an upgrade since {}", self.owner_id, self.created);
        let step = if self.message.is_empty() { step } else { format!("{step}: {}", self.message) };
        Err(Error::new(ErrorKind::UpgradeInProgress, step)
            .with_fix("wait until the upgrade is done, or end it with Kopia (repository upgrade commit or rollback)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000_000;

    fn lock(advance_notice: i64) -> UpgradeLock {
        let text = format!(
            r#"{{"ownerID":"me","creationTime":"2026-01-01T02:00:00+02:00","advanceNoticeDuration":{advance_notice},
            "ioDrainTimeout":{},"maxPermittedClockDrift":{},"message":"back soon"}}"#,
            15 * MINUTE,
            5 * MINUTE
        );
        UpgradeLock::from_fields(Fields::parse("the upgrade lock", text.as_bytes()).unwrap()).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn without_notice_it_is_locked_at_once_whatever_the_clock_says() {
        for notice in [0, -1, 35 * MINUTE - 1] {
            assert!(lock(notice).is_locked(at("2026-01-01T00:00:00Z")));
            assert!(lock(notice).is_locked(at("2020-01-01T00:00:00Z")));
        }
        let error = lock(0).check(at("2026-01-01T00:00:00Z")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UpgradeInProgress);
        assert!(error.to_string().contains("back soon") && error.to_string().contains("me"));
    }

    #[test]
    fn with_notice_it_locks_one_drain_interval_before_the_upgrade() {
        // 35 minutes before 02:00Z.
        assert!(!lock(120 * MINUTE).is_locked(at("2026-01-01T01:24:59.999999999Z")));
        assert!(lock(120 * MINUTE).is_locked(at("2026-01-01T01:25:00Z")));
        assert!(lock(120 * MINUTE).check(at("2026-01-01T01:00:00Z")).is_ok());
    }

    #[test]
    fn extreme_durations_do_not_overflow() {
        assert!(!lock(i64::MAX).is_locked(at("2026-01-01T00:00:00Z")));
        assert!(lock(i64::MIN).is_locked(at("2026-01-01T00:00:00Z")));
    }
}
