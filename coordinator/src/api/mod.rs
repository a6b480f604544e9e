//! The HTTP interface: JSON over one table of routes.
//!
//! ```text
//! connection -> route -> gate -> body and query -> handler (on a thread that may block) -> backend / hands / events
//! ```
//! The table in `route` makes both the router and the OpenAPI document. State is asked of the backend, what happened of the events;
//! nothing is kept here but figures that follow from them.

mod board;
mod call;
mod cluster;
mod cycles;
mod deeds;
mod desk;
mod event_json;
mod events;
mod feed;
mod figures;
mod gate;
mod hands;
mod health;
mod leases;
mod metrics;
mod openapi;
mod plans;
mod problem;
mod repositories;
mod requests;
mod route;
mod server;
mod shards;
mod show;
mod standing;
mod store;
mod tls;
mod tokens;
mod verification;
mod watch;
pub mod work;
mod workers;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use verger_kopia::clock::Clock;

use crate::drive::Backend;
use crate::ledger::evidence::Shelf;
use crate::meters::Meters;

pub use desk::{Ask, Desk};
pub use events::{Events, LedgerEvents};
pub use gate::{Gate, TokenGate};
pub use hands::{Hands, Probed, Wanted};
pub use standing::{Alone, Members, MembersError, Newcomer, Stand, Standing};
pub use tls::{Tls, TlsFiles};

/// What the interface stands on.
pub struct Api {
    /// Orders commands, shows the state.
    pub backend: Arc<dyn Backend>,
    /// Reaches stores.
    pub hands: Arc<dyn Hands>,
    /// Gives out work to workers in processes of their own.
    pub desk: Arc<dyn Desk>,
    /// Reads what happened.
    pub events: Arc<dyn Events>,
    /// Tells who calls; what they may do, `auth` says.
    pub gate: Arc<dyn Gate>,
    /// Says whether commands can be taken here.
    pub stand: Arc<dyn Stand>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Names of what was done.
    pub evidence: Shelf,
    /// What this process counts.
    pub meters: Arc<Meters>,
    /// This program's version.
    pub version: String,
    /// How much is borne.
    pub limits: Limits,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("version", &self.version).field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// How much the interface bears.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// How long a call may take; those that follow something have no end.
    pub call: Duration,
    /// Calls that follow something, at a time.
    pub followers: usize,
    /// Repositories that are looked at on somebody's word, at a time.
    pub probes: usize,
    /// After a shutdown was asked for, calls under way have this long.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let (call, grace) = (Duration::from_secs(30), Duration::from_secs(10));
        Self { body_bytes: 1 << 20, call, followers: 256, probes: 16, grace }
    }
}

/// Answers calls on `listener` until `shutdown` is over; then those that follow something end, and the others have
/// [`Limits::grace`].
///
/// # Errors
/// The listener's.
pub async fn serve(
    listener: tokio::net::TcpListener,
    api: Arc<Api>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    server::serve(listener, api, shutdown).await
}

/// As [`serve`], behind TLS. The files of the certificate are looked at every other second, and taken when they changed.
///
/// # Errors
/// The listener's.
pub async fn serve_tls(
    listener: tokio::net::TcpListener,
    tls: Arc<Tls>,
    api: Arc<Api>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    server::serve(tls::TlsListener::new(listener, tls), api, shutdown).await
}

#[cfg(test)]
mod tests;
