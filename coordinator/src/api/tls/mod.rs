//! TLS in front of the interface: connections are taken, greeted, and handed on.

mod files;
mod validity;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub use files::{Tls, TlsFiles};

/// Who has not finished greeting by then is sent away.
const GREETING: Duration = Duration::from_secs(10);
/// Greetings at a time; whoever comes on top of them is sent away.
const GREETINGS_MAX: usize = 512;
/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

type Greeted = (TlsStream<TcpStream>, SocketAddr);

/// Takes connections; each is greeted on its own, so that one that says nothing holds up nobody.
pub(super) struct TlsListener {
    tcp: TcpListener,
    tls: Arc<Tls>,
    greetings: Arc<Semaphore>,
    done: mpsc::Sender<Greeted>,
    greeted: mpsc::Receiver<Greeted>,
    _watch: Watch,
}

impl TlsListener {
    /// Must be called inside a runtime.
    pub(super) fn new(tcp: TcpListener, tls: Arc<Tls>) -> Self {
        let (done, greeted) = mpsc::channel(1);
        let watch = Watch(tokio::spawn(watch(tls.clone())));
        Self { tcp, tls, greetings: Arc::new(Semaphore::new(GREETINGS_MAX)), done, greeted, _watch: watch }
    }

    fn greet(&self, stream: TcpStream, address: SocketAddr) {
        let Ok(permit) = self.greetings.clone().try_acquire_owned() else { return };
        let (acceptor, done) = (TlsAcceptor::from(self.tls.config()), self.done.clone());
        tokio::spawn(async move {
            let _permit = permit;
            match tokio::time::timeout(GREETING, acceptor.accept(stream)).await {
                // Nobody takes it any more: the interface ends.
                Ok(Ok(stream)) => drop(done.send((stream, address)).await),
                Ok(Err(error)) => tracing::debug!(%address, %error, "a TLS greeting failed"),
                Err(_) => tracing::debug!(%address, "a TLS greeting took too long"),
            }
        });
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> Greeted {
        loop {
            tokio::select! {
                // This end holds a sender, too: there is always another.
                Some(greeted) = self.greeted.recv() => return greeted,
                (stream, address) = Listener::accept(&mut self.tcp) => self.greet(stream, address),
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// Ends with the listener.
struct Watch(tokio::task::JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// New files are taken without a restart, however they came: written over, renamed, or a link that leads elsewhere.
async fn watch(tls: Arc<Tls>) {
    let mut unread = false;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let on = tls.clone();
        match tokio::task::spawn_blocking(move || on.read_again()).await {
            Ok(Ok(true)) => tracing::info!("the certificate of the API was read again"),
            Ok(Ok(false)) => unread = false,
            Ok(Err(error)) if !unread => {
                // Files that cannot be read would be told of every time.
                unread = error.kind() != verger_kopia::error::ErrorKind::Usage;
                tracing::warn!(
                    error = error.chain(),
                    "the certificate of the API was not read again; the one before goes on"
                );
            }
            Ok(Err(_)) | Err(_) => {}
        }
    }
}
