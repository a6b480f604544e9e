//! The collector's other way: gRPC, as far as OpenTelemetry's `TraceService/Export` needs it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use super::Mood;

type Kept = Arc<Mutex<Vec<Vec<u8>>>>;

const PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// In front of a message: whether it is compressed, and its length in four bytes.
const PREFIX_BYTES: usize = 5;
const INTERNAL: &str = "13";

/// Listens on loopback, as long as the process lives.
pub(super) fn start(mood: Mood, tls: Option<TlsAcceptor>, kept: Kept) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((tcp, _)) = listener.accept().await {
                match tls.clone() {
                    None => drop(tokio::spawn(connection(tcp, mood, kept.clone()))),
                    Some(tls) => {
                        let kept = kept.clone();
                        tokio::spawn(async move { connection(tls.accept(tcp).await.ok()?, mood, kept).await });
                    }
                }
            }
        });
    });
    address
}

/// A certificate for `localhost` that nobody signed but itself.
pub(super) fn tls() -> (TlsAcceptor, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key);
    let mut config = config.unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    (TlsAcceptor::from(Arc::new(config)), made.cert.pem())
}

/// `None` when it broke: whoever exports may be killed.
async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, mood: Mood, kept: Kept) -> Option<()> {
    let mut connection = h2::server::handshake(stream).await.ok()?;
    while let Some(request) = connection.accept().await {
        let (request, respond) = request.ok()?;
        tokio::spawn(answer(request, respond, mood, kept.clone()));
    }
    Some(())
}

async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    mood: Mood,
    kept: Kept,
) -> Option<()> {
    let (head, mut stream) = request.into_parts();
    assert_eq!((head.method.as_str(), head.uri.path()), ("POST", PATH));
    assert_eq!(head.headers["content-type"], "application/grpc");
    let mut body = Vec::new();
    while let Some(part) = stream.data().await {
        let part = part.ok()?;
        stream.flow_control().release_capacity(part.len()).ok()?;
        body.extend(part);
    }
    let length = u32::from_be_bytes(body[1..PREFIX_BYTES].try_into().unwrap()) as usize;
    assert_eq!((body[0], length), (0, body.len() - PREFIX_BYTES), "one message, as it is");
    let mut text = format!("POST {}\r\n", head.uri);
    for (name, value) in &head.headers {
        text.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
    }
    kept.lock().unwrap().extend([text.into_bytes(), body.split_off(PREFIX_BYTES)]);
    let mut response = Response::new(());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    match mood {
        Mood::Good => {
            let mut stream = respond.send_response(response, false).ok()?;
            // A response in which nothing is said is no bytes.
            stream.send_data(Bytes::from_static(&[0; PREFIX_BYTES]), false).ok()?;
            stream.send_trailers(HeaderMap::from_iter([status("0")])).ok()
        }
        Mood::Fails => {
            response.headers_mut().extend([status(INTERNAL)]);
            respond.send_response(response, true).ok().map(drop)
        }
        Mood::Sleeps => std::future::pending().await,
    }
}

fn status(code: &'static str) -> (http::HeaderName, HeaderValue) {
    (http::HeaderName::from_static("grpc-status"), HeaderValue::from_static(code))
}
