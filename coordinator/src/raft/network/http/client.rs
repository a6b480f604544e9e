//! Calls others: a connection to each, kept, and made again when it breaks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request, StatusCode, header};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use verger_proto::LogTime;

use super::{
    CLOCK_HEADER, CONTENT_TYPE, LEDGER_HEADER, LEVEL_HEADER, PATH, Security, Stream, host, ledger_text, read_body,
};
use crate::raft::network::clocks::Clocks;
use crate::raft::network::{Answering, Call, Reply, Transport, Unreached};
use crate::raft::types::Peer;

/// A connection that is not there after this long will not be.
const CONNECT: Duration = Duration::from_secs(5);
/// After so many calls in a row without an answer a connection is taken for dead: its host may be gone without a word.
const SILENT_MAX: u32 = 4;
/// Older connections are made again, so that a certificate that ran out is noticed.
const AGE_MAX: Duration = Duration::from_secs(3600);
const WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Calls other coordinators over HTTP/2. Clones share their connections.
#[derive(Clone, Debug)]
pub struct PeerClient(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    security: Security,
    clocks: Clocks,
    slots: Mutex<BTreeMap<(u64, String), Slot>>,
    /// Nodes that the last call did not get through to.
    down: Mutex<BTreeSet<u64>>,
}

/// Locked while a connection is being made: nobody makes a second one.
type Slot = Arc<tokio::sync::Mutex<Option<Connection>>>;

#[derive(Clone, Debug)]
struct Connection {
    send: SendRequest<Bytes>,
    opened: Instant,
    /// Calls since the last answer. [`SILENT_MAX`] when it is closed.
    silent: Arc<AtomicU32>,
}

impl Connection {
    fn is_good(&self) -> bool {
        self.silent.load(Ordering::Relaxed) < SILENT_MAX && self.opened.elapsed() < AGE_MAX
    }
}

fn unreached(error: impl std::fmt::Display) -> Unreached {
    Unreached(error.to_string())
}

impl PeerClient {
    /// One without connections yet. What others' clocks show is told to `clocks`.
    #[must_use]
    pub fn new(security: Security, clocks: Clocks) -> Self {
        Self(Arc::new(Shared { security, clocks, slots: Mutex::default(), down: Mutex::default() }))
    }

    async fn connection(&self, to: u64, address: &str) -> Result<Connection, Unreached> {
        let slot = {
            let mut slots = self.0.slots.lock().unwrap_or_else(PoisonError::into_inner);
            // A node that moved is not called at its old place any more.
            slots.retain(|(id, at), _| *id != to || at == address);
            slots.entry((to, address.to_owned())).or_default().clone()
        };
        let (shared, address) = (self.0.clone(), address.to_owned());
        // On its own: whoever gives up waiting leaves a connection for the next call.
        let made = tokio::spawn(async move {
            let mut slot = slot.lock().await;
            if let Some(connection) = slot.as_ref().filter(|connection| connection.is_good()) {
                return Ok(connection.clone());
            }
            *slot = None;
            let late = |_| Err(Unreached(format!("no connection to {address} within {} s", CONNECT.as_secs())));
            let made = tokio::time::timeout(CONNECT, connect(&shared.security, to, &address)).await;
            let connection = made.unwrap_or_else(late)?;
            *slot = Some(connection.clone());
            Ok(connection)
        });
        made.await.map_err(unreached)?
    }

    /// Says once that a node cannot be reached, and once that it can again.
    fn tell(&self, to: u64, asked: &Result<Reply, Unreached>) {
        let mut down = self.0.down.lock().unwrap_or_else(PoisonError::into_inner);
        match asked {
            Err(error) if down.insert(to) => tracing::warn!(node = to, %error, "a coordinator cannot be reached"),
            Ok(_) if down.remove(&to) => tracing::info!(node = to, "a coordinator can be reached again"),
            _ => {}
        }
    }

    async fn ask(&self, peer: &Peer, call: Call) -> Result<Reply, Unreached> {
        let (to, level, head) = (call.to, call.level, call.head);
        let body = call.encode().map_err(unreached)?;
        let connection = self.connection(to, &peer.address).await?;
        connection.silent.fetch_add(1, Ordering::Relaxed);
        let mut send = connection.send.clone().ready().await.map_err(unreached)?;
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("https://{}{PATH}", peer.address))
            .header(header::CONTENT_TYPE, CONTENT_TYPE)
            .header(LEVEL_HEADER, level);
        if let Some(head) = head {
            request = request.header(LEDGER_HEADER, ledger_text(&head));
        }
        let request = request.body(()).map_err(unreached)?;
        let asked = self.0.clocks.now();
        let (response, mut stream) = send.send_request(request, false).map_err(unreached)?;
        stream.send_data(Bytes::from(body), true).map_err(unreached)?;
        let response = response.await.map_err(unreached)?;
        let shown = response.headers().get(CLOCK_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
        if let Some(shown) = shown {
            self.0.clocks.hear(to, LogTime(shown), asked);
        }
        let level = super::level(response.headers());
        let (status, body) = (response.status(), read_body(response.into_body()).await.map_err(unreached)?);
        connection.silent.store(0, Ordering::Relaxed);
        if status != StatusCode::OK {
            let said: String = String::from_utf8_lossy(&body).chars().take(500).collect();
            return Err(Unreached(format!("node {to} at {} refuses ({status}): {said}", peer.address)));
        }
        Ok(Reply { level, ..Reply::decode(&body).map_err(unreached)? })
    }
}

impl Transport for PeerClient {
    fn call<'a>(&'a self, peer: &'a Peer, call: Call, _at_most: Duration) -> Answering<'a> {
        Box::pin(async move {
            let to = call.to;
            let asked = self.ask(peer, call).await;
            self.tell(to, &asked);
            asked
        })
    }
}

async fn connect(security: &Security, to: u64, address: &str) -> Result<Connection, Unreached> {
    let failed = |step: &str, error: &dyn std::fmt::Display| Unreached(format!("{step} {address}: {error}"));
    let tcp = TcpStream::connect(address).await.map_err(|error| failed("connect to", &error))?;
    let _ = tcp.set_nodelay(true);
    let stream: Box<dyn Stream> = match security {
        Security::Mutual(credentials) => {
            let config = credentials.client(to).map_err(|error| failed("use the peer certificate for", &error))?;
            let name = ServerName::try_from(host(address).to_owned()).map_err(|error| failed("name", &error))?;
            let tls = TlsConnector::from(config).connect(name, tcp).await;
            Box::new(tls.map_err(|error| failed("agree on TLS with", &error))?)
        }
        Security::None => {
            if !tcp.peer_addr().is_ok_and(|peer| peer.ip().is_loopback()) {
                return Err(Unreached(format!("{address} is not of this machine alone, and there is no TLS")));
            }
            Box::new(tcp)
        }
    };
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(WINDOW_BYTES).initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    let (send, connection) = builder.handshake(stream).await.map_err(|error| failed("agree on HTTP/2 with", &error))?;
    let silent = Arc::new(AtomicU32::new(0));
    let closed = silent.clone();
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(node = to, %error, "the connection to a coordinator ended");
        }
        closed.store(SILENT_MAX, Ordering::Relaxed);
    });
    Ok(Connection { send, opened: Instant::now(), silent })
}
