//! Entries as they are stored: hash-chained, so that an old or a foreign one in an entry's place is noticed.

use verger_kopia::error::{Error, ErrorKind, Result};
use verger_proto::chain::{ChainError, ChainHead};
use verger_proto::envelope::{self, EnvelopeError, Kind};
use verger_proto::{Digest, LogTime};

use crate::raft::types::{LogEntry, LogId};

/// An entry that leaves a gap is a defect of whoever appends it.
pub(super) fn check_follows(last: Option<LogId>, next: LogId) -> Result<()> {
    match last {
        Some(last) if last.index.checked_add(1) != Some(next.index) => {
            Err(Error::new(ErrorKind::Internal, format!("append raft entry {next} right after {last}")))
        }
        _ => Ok(()),
    }
}

/// The entries that were not purged.
pub(super) fn unpurged(entries: &[LogEntry], purged: Option<LogId>) -> &[LogEntry] {
    let kept = entries.iter().position(|entry| purged.is_none_or(|purged| entry.log_id.index > purged.index));
    entries.get(kept.unwrap_or(entries.len())..).unwrap_or_default()
}

/// The record of the next entry. `before` is the digest of the record before it, and becomes that of this one.
pub(super) fn encode(entry: &LogEntry, before: &mut Digest) -> Result<Vec<u8>, EnvelopeError> {
    let body = envelope::encode(Kind::RaftEntry, entry)?;
    let mut head = ChainHead { next: entry.log_id.index, last: *before };
    let record = head.append(LogTime(0), body)?;
    *before = head.last;
    Ok(record)
}

/// The entry of a record. `before`, where known, is the digest of the record before it; the second result is the digest of this one.
pub(super) fn decode(index: u64, record: &[u8], before: Option<Digest>) -> Result<(LogEntry, Digest), ChainError> {
    let mut head = match before {
        Some(last) => ChainHead { next: index, last },
        None => {
            let link: verger_proto::chain::ChainRecord = envelope::decode(Kind::Chain, record)?;
            ChainHead { next: index, last: link.previous }
        }
    };
    let link = head.follow(record)?;
    let entry: LogEntry = envelope::decode(Kind::RaftEntry, &link.body)?;
    if entry.log_id.index == index {
        Ok((entry, head.last))
    } else {
        Err(ChainError::Sequence { found: entry.log_id.index, wanted: index })
    }
}

/// Bytes that an entry takes; `otherwise` for one that cannot be encoded.
pub(super) fn encoded_bytes(entry: &LogEntry, otherwise: usize) -> usize {
    envelope::encode(Kind::RaftEntry, entry).map_or(otherwise, |record| record.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::testing::entry;

    #[test]
    fn an_older_or_foreign_entry_in_its_place_is_noticed() {
        let (mut ours, mut theirs) = (Digest::default(), Digest::default());
        let first = encode(&entry(1, 1, 10), &mut ours).unwrap();
        encode(&entry(1, 1, 11), &mut theirs).unwrap();
        let after_first = ours;
        let second = encode(&entry(1, 2, 10), &mut ours).unwrap();
        let foreign = encode(&entry(1, 2, 10), &mut theirs).unwrap();
        assert_eq!(decode(1, &first, Some(Digest::default())).unwrap(), (entry(1, 1, 10), after_first));
        assert_eq!(decode(2, &second, Some(after_first)).unwrap(), (entry(1, 2, 10), ours));
        assert!(decode(2, &foreign, Some(after_first)).is_err());
        assert!(decode(1, &second, None).is_err(), "of another index");
    }
}
