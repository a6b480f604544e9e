//! Small files beside a ledger that are replaced whole: records of one kind, chained so that none is lost unnoticed.

use serde::Serialize;
use serde::de::DeserializeOwned;
use verger_kopia::error::{Error, ErrorKind, Result};
use verger_proto::LogTime;
use verger_proto::chain::{ChainError, ChainHead};
use verger_proto::envelope::{self, Kind};

/// Why a list cannot be read.
pub(crate) type Unreadable = Box<dyn std::error::Error + Send + Sync>;

pub(crate) fn encode<'a, T: Serialize + 'a>(kind: Kind, items: impl IntoIterator<Item = &'a T>) -> Result<Vec<u8>> {
    let (mut chain, mut bytes) = (ChainHead::default(), Vec::new());
    for item in items {
        let body = envelope::encode(kind, item).map_err(ChainError::from);
        let record = body.and_then(|body| Ok(chain.append(LogTime(0), body)?));
        let record = record
            .map_err(|error| Error::new(ErrorKind::Internal, "write a list beside the ledger").with_source(error))?;
        bytes.extend_from_slice(&record);
    }
    Ok(bytes)
}

pub(crate) fn decode<T: DeserializeOwned>(kind: Kind, bytes: &[u8]) -> Result<Vec<T>, Unreadable> {
    let (mut rest, mut chain, mut found) = (bytes, ChainHead::default(), Vec::new());
    while !rest.is_empty() {
        let length = envelope::header(rest)?.record_bytes;
        let (record, after) = rest.split_at_checked(length).ok_or("it is cut short")?;
        found.push(envelope::decode(kind, &chain.follow(record)?.body)?);
        rest = after;
    }
    Ok(found)
}
