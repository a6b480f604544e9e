//! Putting an offer into the stream.

use std::time::Duration;

use async_nats::{HeaderMap, Request, RequestErrorKind};
use serde::Deserialize;

use super::super::{Offer, WorkQueueError};
use super::Core;
use super::upkeep::Upkeep;
use crate::Digest;

/// How long an offer waits to be stored, synced.
pub(super) const OFFER_WAIT: Duration = Duration::from_secs(2);
/// The header that a trace goes on in.
pub(super) const TRACE_HEADER: &str = "traceparent";
const ID_HEADER: &str = "Nats-Msg-Id";
/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// No room for messages or bytes.
const FULL: [u32; 4] = [10023, 10047, 10077, 10122];

/// What the stream says.
#[derive(Deserialize, Default)]
struct Answer {
    #[serde(default)]
    duplicate: bool,
    error: Option<Fault>,
}

#[derive(Deserialize)]
struct Fault {
    #[serde(default)]
    err_code: u32,
    #[serde(default)]
    description: String,
}

/// Whether it was new.
pub(super) async fn put(
    core: &Core,
    upkeep: &Upkeep,
    offer: &Offer,
    id: Digest,
    message: Vec<u8>,
) -> Result<bool, WorkQueueError> {
    upkeep.need(&offer.pool);
    let mut headers = HeaderMap::new();
    headers.insert(ID_HEADER, id.to_string());
    if let Some(trace) = &offer.trace {
        headers.insert(TRACE_HEADER, trace.to_string());
    }
    let request = Request::new().headers(headers).payload(message.into()).timeout(Some(OFFER_WAIT));
    let sent = core.client.send_request(core.names.subject(&offer.pool), request);
    // Once more around it: a full line of commands waits outside the client's own limit.
    let answer = core.link.while_up(tokio::time::timeout(OFFER_WAIT, sent)).await?;
    match answer {
        Err(_) => Err(core.link.silent()),
        Ok(Ok(message)) => {
            core.link.answered();
            let answer = message.payload.get(..message.payload.len().min(ANSWER_BYTES_MAX)).unwrap_or_default();
            read(serde_json::from_slice(answer).map_err(|_| "its answer cannot be read".to_owned()))
        }
        Ok(Err(error)) => match error.kind() {
            RequestErrorKind::TimedOut => Err(core.link.silent()),
            RequestErrorKind::NoResponders => {
                core.link.answered();
                upkeep.ask();
                let stream = || WorkQueueError::Absent(format!("stream {}", core.names.stream()));
                Err(core.link.unmade().map_or_else(stream, WorkQueueError::Denied))
            }
            RequestErrorKind::MaxPayloadExceeded => Err(WorkQueueError::Unfit(error.to_string())),
            _ => Err(WorkQueueError::Away(error.to_string())),
        },
    }
}

fn read(answer: Result<Answer, String>) -> Result<bool, WorkQueueError> {
    match answer.map_err(WorkQueueError::Away)? {
        Answer { error: None, duplicate } => Ok(!duplicate),
        Answer { error: Some(fault), .. } if FULL.contains(&fault.err_code) => Err(WorkQueueError::Full),
        Answer { error: Some(fault), .. } => {
            Err(WorkQueueError::Away(format!("{} ({})", fault.description, fault.err_code)))
        }
    }
}
