//! Calls between coordinators over HTTP/2, with mutual TLS.
//!
//! ```text
//! Link -> PeerClient -> one kept connection a peer (TLS, h2) -> PeerServer -> Node::serve
//! ```
//! A call is the body of one POST, its answer the body of the response; both are records of the envelope, which limits their length.
//! Whoever has a certificate of the cluster's authority speaks for the node whose name or address is in it: use an authority that
//! signs nothing else.

mod client;
mod credentials;
mod server;

use tokio::io::{AsyncRead, AsyncWrite};
use verger_proto::envelope::{BODY_BYTES_MAX, HEADER_BYTES};

use crate::ledger::segment::LedgerHead;

pub use client::PeerClient;
pub use credentials::{Credentials, PeerFiles, Security};
pub use server::serve;

/// Longest body, in bytes.
const MESSAGE_BYTES_MAX: usize = BODY_BYTES_MAX + HEADER_BYTES;
const PATH: &str = "/raft/v1";
const CONTENT_TYPE: &str = "application/vnd.verger.raft";
/// In an answer: what the clock of whoever answers shows, in milliseconds since 1970. Whoever does not know it goes without.
const CLOCK_HEADER: &str = "verger-clock";
/// In a call: the level of the cluster, as whoever asks knows it; in an answer: what the program of whoever answers knows.
const LEVEL_HEADER: &str = "verger-level";

/// In a call with entries: how far the leader's ledger goes, as records, bytes and the digest of the last record.
const LEDGER_HEADER: &str = "verger-ledger";

fn ledger_text(head: &LedgerHead) -> String {
    format!("{} {} {}", head.records, head.bytes, head.last)
}

/// The ledger's end in a message's head; none if it says nothing that can be understood.
fn ledger(headers: &http::HeaderMap) -> Option<LedgerHead> {
    let mut words = headers.get(LEDGER_HEADER)?.to_str().ok()?.split(' ');
    let (records, bytes) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(LedgerHead { records, bytes, last: words.next()?.parse().ok()? })
}

/// The level in a message's head; 0 if it says none.
fn level(headers: &http::HeaderMap) -> u32 {
    headers.get(LEVEL_HEADER).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0)
}

/// A connection, encrypted or not.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The name that a node's certificate may carry instead of its address.
#[must_use]
pub fn node_name(id: u64) -> String {
    format!("node-{id}")
}

/// The host of an address; brackets of IPv6 are taken off.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Reads a body to its end, unless it is longer than a message may be.
async fn read_body(mut body: h2::RecvStream) -> Result<Vec<u8>, TooLongOr> {
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(TooLongOr::Broken)?;
        if bytes.len().saturating_add(piece.len()) > MESSAGE_BYTES_MAX {
            return Err(TooLongOr::TooLong);
        }
        bytes.extend_from_slice(&piece);
        body.flow_control().release_capacity(piece.len()).map_err(TooLongOr::Broken)?;
    }
    Ok(bytes)
}

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
enum TooLongOr {
    #[error("a body of more than {MESSAGE_BYTES_MAX} bytes")]
    TooLong,
    #[error("the connection broke: {0}")]
    Broken(h2::Error),
}

#[cfg(test)]
mod tests;
