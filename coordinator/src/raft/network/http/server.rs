//! Answers other coordinators: whoever has no certificate of the authority does not get as far as a request.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::credentials::is_for;
use super::{CLOCK_HEADER, LEVEL_HEADER, PATH, Security, Stream, TooLongOr, host, ledger, level, node_name, read_body};
use crate::raft::network::Call;
use crate::raft::node::Node;

/// Whoever has not agreed on TLS and HTTP/2 by then is not a coordinator.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A request has arrived by then, or never will.
const BODY: Duration = Duration::from_secs(60);
/// After this an accept that failed is tried again: the process may have too many open files for a moment.
const AGAIN: Duration = Duration::from_millis(100);
const CONNECTIONS_MAX: usize = 256;
const STREAMS_MAX: u32 = 64;
const HEADERS_BYTES_MAX: u32 = 16 << 10;
const WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Answers calls on `listener` for `node`, until `shutdown` is over. Without TLS the listener must be of loopback.
pub async fn serve(listener: TcpListener, security: Security, node: Arc<Node>, shutdown: impl Future<Output = ()>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = tokio::task::JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = &mut shutdown => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((tcp, from)) = accepted else {
            tokio::time::sleep(AGAIN).await;
            continue;
        };
        let Ok(place) = room.clone().try_acquire_owned() else {
            tracing::warn!(%from, "too many connections of coordinators: one is refused");
            continue;
        };
        let (security, node) = (security.clone(), node.clone());
        connections.spawn(async move {
            if let Err(error) = connection(tcp, &security, node).await {
                tracing::warn!(%from, %error, "a connection to the peer address was refused or broke");
            }
            drop(place);
        });
    }
}

async fn connection(tcp: TcpStream, security: &Security, node: Arc<Node>) -> Result<(), String> {
    let _ = tcp.set_nodelay(true);
    let late = |_| Err(format!("no agreement within {} s", HANDSHAKE.as_secs()));
    let agreed = tokio::time::timeout(HANDSHAKE, agree(tcp, security)).await;
    let (mut connection, certificate) = agreed.unwrap_or_else(late)?;
    let certificate = Arc::new(certificate);
    let mut requests = tokio::task::JoinSet::new();
    while let Some(request) = connection.accept().await {
        while requests.try_join_next().is_some() {}
        let (request, respond) = request.map_err(|error| error.to_string())?;
        requests.spawn(answer(request, respond, node.clone(), certificate.clone()));
    }
    Ok(())
}

type Agreed = (h2::server::Connection<Box<dyn Stream>, Bytes>, Option<CertificateDer<'static>>);

async fn agree(tcp: TcpStream, security: &Security) -> Result<Agreed, String> {
    let (stream, certificate): (Box<dyn Stream>, _) = match security {
        Security::Mutual(credentials) => {
            let tls = TlsAcceptor::from(credentials.server()).accept(tcp).await;
            let tls = tls.map_err(|error| format!("no TLS: {error}"))?;
            let shown = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let shown = shown.ok_or("it shows no certificate")?.clone().into_owned();
            (Box::new(tls), Some(shown))
        }
        Security::None => (Box::new(tcp), None),
    };
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(WINDOW_BYTES).initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    builder.max_concurrent_streams(STREAMS_MAX).max_header_list_size(HEADERS_BYTES_MAX);
    let connection = builder.handshake(stream).await.map_err(|error| format!("no HTTP/2: {error}"))?;
    Ok((connection, certificate))
}

async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    node: Arc<Node>,
    certificate: Arc<Option<CertificateDer<'static>>>,
) {
    let (status, body) = match reply(request, &node, certificate.as_ref().as_ref()).await {
        Ok(body) => (StatusCode::OK, body),
        Err((status, why)) => {
            tracing::warn!(%status, why, "a call of a coordinator was refused");
            (status, why.into_bytes())
        }
    };
    let mut head = Response::new(());
    *head.status_mut() = status;
    head.headers_mut().insert(CLOCK_HEADER, HeaderValue::from(node.now().0));
    head.headers_mut().insert(LEVEL_HEADER, HeaderValue::from(node.program_level()));
    // Whoever asked may be gone: nobody is left to be told.
    let _ = respond.send_response(head, false).and_then(|mut stream| stream.send_data(Bytes::from(body), true));
}

type Refused = (StatusCode, String);

async fn reply(
    request: Request<h2::RecvStream>,
    node: &Node,
    certificate: Option<&CertificateDer<'static>>,
) -> Result<Vec<u8>, Refused> {
    if request.method() != Method::POST || request.uri().path() != PATH {
        return Err((StatusCode::NOT_FOUND, format!("there is nothing but POST {PATH}")));
    }
    let (level, head) = (level(request.headers()), ledger(request.headers()));
    let late = |_| Err((StatusCode::REQUEST_TIMEOUT, "the body did not arrive".to_owned()));
    let body = tokio::time::timeout(BODY, async {
        read_body(request.into_body()).await.map_err(|error| match error {
            TooLongOr::TooLong => (StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
            TooLongOr::Broken(_) => (StatusCode::BAD_REQUEST, error.to_string()),
        })
    });
    let body = body.await.unwrap_or_else(late)?;
    let call = Call::decode(&body).map_err(|error| {
        // What cannot be read may be what the cluster knows more than this program.
        let why = node.hear_level(level).err().map_or_else(|| error.to_string(), |error| error.chain());
        (StatusCode::BAD_REQUEST, why)
    })?;
    let call = Call { level, head, ..call };
    if let Some(certificate) = certificate {
        check_sender(node, call.from, certificate)?;
    }
    let reply = node.serve(call).await;
    reply.encode().map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// A node that is known here speaks only with a certificate of its own. One that is not may be newer than what this node has heard
/// of the cluster: the authority's signature has to do, or a node that is behind could never be asked for its vote.
fn check_sender(node: &Node, from: u64, certificate: &CertificateDer<'static>) -> Result<(), Refused> {
    let metrics = node.metrics();
    let metrics = metrics.borrow();
    let known = metrics.membership_config.nodes().find(|(id, _)| **id == from);
    let Some((_, peer)) = known else { return Ok(()) };
    if is_for(certificate, host(&peer.address)) || is_for(certificate, &node_name(from)) {
        return Ok(());
    }
    let why = format!("the certificate is neither for {} nor for {}", host(&peer.address), node_name(from));
    Err((StatusCode::FORBIDDEN, why))
}
