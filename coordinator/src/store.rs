//! Whether what was seen of a store allows changes there.

use verger_kopia::error::{Error, ErrorKind, Result};
use verger_proto::{StoreFlaw, StoreProbe};

/// Refuses a store in which nothing may be changed. `exclusive`: a person's word that nobody else maintains the repository (R23).
///
/// # Errors
/// `Unsupported` or `Clock`, with what is wrong and what helps.
pub fn check(probe: &StoreProbe, address: &str, exclusive: bool) -> Result<()> {
    let Some(flaw) = probe.flaw(exclusive) else { return Ok(()) };
    let (kind, fix) = match flaw {
        StoreFlaw::StaleReads(_) | StoreFlaw::StaleLists(_) => (
            ErrorKind::Unsupported,
            "nothing can be changed safely where answers tell what was before: use a store, or a setting of it, that reads and lists \
             what was written; `verger plan`, and in a fleet --observe, only look at the repository",
        ),
        StoreFlaw::Clock(_) => (ErrorKind::Clock, "set the clock of this machine (NTP), then try again"),
        StoreFlaw::Stamps(_) => (ErrorKind::Clock, "set the clocks of the store's machines (NTP), then try again"),
        StoreFlaw::NoConditions => (
            ErrorKind::Unsupported,
            "if no one else maintains this repository, say so with --exclusive; `verger plan`, and in a fleet --observe, only look \
             at it",
        ),
    };
    Err(Error::new(kind, format!("{address}: {flaw}")).with_fix(fix))
}
