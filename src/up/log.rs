//! What a service says while it works: lines on standard error, or JSON for collectors. Never a secret (S9).

use tracing_subscriber::EnvFilter;
use verger_kopia::{Error, ErrorKind, Result};

/// What is said unless somebody asks for more: the raft library tells every step of its own otherwise.
pub(crate) const DEFAULT: &str = "info,openraft=warn,sled=warn";
/// The same for one of several: what cannot be reached is told once by the transport, not at each heartbeat by the library.
pub(crate) const TOGETHER: &str = "info,openraft=off,sled=warn";

/// From now on events of this process are told.
///
/// # Errors
/// `Usage` for a filter that is none.
pub(crate) fn start(filter: &str, json: bool) -> Result<()> {
    let filter = EnvFilter::builder().parse(filter).map_err(|error| {
        Error::new(ErrorKind::Usage, format!("--log {filter} is no filter"))
            .with_source(error)
            .with_fix(format!("Give a level (error, warn, info, debug, trace), or such as {DEFAULT}"))
    })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    let set = if json { lines.json().flatten_event(true).try_init() } else { lines.try_init() };
    set.map_err(|error| Error::new(ErrorKind::Internal, format!("begin to log: {error}")))
}
