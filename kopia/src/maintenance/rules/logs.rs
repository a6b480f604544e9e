//! Log clean-up (`repo/maintenance/cleanup_logs.go`).

use super::facts::{age, shorter};
use super::plan::{DeleteRule, Deletion, LogsPlan};
use crate::clock::Timestamp;
use crate::maintenance::params::LogRetention;
use crate::storage::BlobMetadata;

/// Walks the logs from the newest on; the first that breaks a limit goes, with all older ones.
#[must_use]
pub fn plan(logs: &[BlobMetadata], limits: &LogRetention, now: Timestamp) -> LogsPlan {
    let limits = limits.or_default();
    let positive = |limit: i64| u64::try_from(limit).ok().filter(|limit| *limit > 0);
    let mut newest_first: Vec<&BlobMetadata> = logs.iter().filter(|log| log.id.as_str().starts_with("_log_")).collect();
    // Kopia leaves the order of equal times open; names make it the same every time.
    newest_first.sort_by(|a, b| (b.timestamp, &b.id).cmp(&(a.timestamp, &a.id)));
    let mut plan = LogsPlan::default();
    let stats = &mut plan.stats;
    for log in newest_first {
        let kept_bytes = stats.retained_blob_size.saturating_add(log.length);
        let nanos = age(now, 0) - log.timestamp.as_nanosecond();
        let over = stats.to_delete_blob_count > 0
            || positive(limits.max_total_size).is_some_and(|limit| kept_bytes > limit)
            || positive(limits.max_count).is_some_and(|limit| stats.retained_blob_count >= limit)
            || !limits.max_age.is_zero() && nanos > 0 && !shorter(nanos - 1, limits.max_age);
        if over {
            stats.to_delete_blob_count += 1;
            stats.to_delete_blob_size = stats.to_delete_blob_size.saturating_add(log.length);
            plan.blobs.push(Deletion { blob: log.id.clone(), length: log.length, rule: DeleteRule::Log });
        } else {
            stats.retained_blob_count += 1;
            stats.retained_blob_size = kept_bytes;
        }
    }
    stats.deleted_blob_count = stats.to_delete_blob_count;
    stats.deleted_blob_size = stats.to_delete_blob_size;
    plan.blobs.sort_by(|a, b| a.blob.cmp(&b.blob));
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    /// Logs of 10 bytes, written 1, 2, 3 … seconds ago.
    fn logs(count: i64) -> Vec<BlobMetadata> {
        let log = |n: i64| BlobMetadata {
            id: format!("_log_{n:03}").as_str().into(),
            length: 10,
            timestamp: at(-n),
            etag: None,
        };
        (1..=count).map(log).collect()
    }

    #[test]
    fn each_limit_alone_and_the_defaults() {
        let none = LogRetention::default();
        let table = [
            (LogRetention { max_count: 3, ..none.clone() }, 3),
            (LogRetention { max_total_size: 45, ..none.clone() }, 4),
            (LogRetention { max_total_size: 50, ..none.clone() }, 5),
            (LogRetention { max_age: Duration::from_secs(6), ..none.clone() }, 6),
            (LogRetention { max_total_size: -1, max_count: 2, ..none.clone() }, 2),
            (none, 9),
        ];
        for (limits, kept) in table {
            let plan = plan(&logs(9), &limits, at(0));
            assert_eq!(plan.stats.retained_blob_count, kept, "{limits:?}");
            assert_eq!(plan.stats.to_delete_blob_count, 9 - kept);
            assert_eq!(plan.stats.retained_blob_size + plan.stats.deleted_blob_size, 90);
            let oldest: Vec<String> = (kept + 1..=9).map(|n| format!("_log_{n:03}")).collect();
            assert_eq!(plan.blobs.iter().map(|d| d.blob.as_str().to_owned()).collect::<Vec<_>>(), oldest);
        }
    }

    #[test]
    fn nothing_but_logs_goes() {
        let foreign = BlobMetadata { id: "p1".into(), length: 1, timestamp: Timestamp::MIN, etag: None };
        assert!(plan(&[foreign], &LogRetention::default(), at(0)).blobs.is_empty());
    }
}
