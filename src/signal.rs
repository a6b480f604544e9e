//! Ctrl-C and termination: ask the work to stop; the second time, stop at once.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use verger_kopia::{Error, ErrorKind, Result};
use verger_worker::progress::Stop;

const INTERRUPTED: i32 = 130;

/// From now on a first signal asks `stop`, and a second ends the process with code 130 wherever it is: whatever is under way is
/// safe to leave, the next run continues.
///
/// # Errors
/// `Internal` if handlers cannot be set.
pub(crate) fn listen(stop: Stop) -> Result<()> {
    let failed = |e| Error::new(ErrorKind::Internal, "listen for signals").with_source(e);
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_shutdown(signal, INTERRUPTED, asked.clone()).map_err(failed)?;
        signal_hook::flag::register(signal, asked.clone()).map_err(failed)?;
    }
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(failed)?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for _ in signals.forever() {
                crate::output::interrupting();
                stop.ask();
            }
        })
        .map(drop)
        .map_err(failed)
}

/// A flag that a first signal sets, for work that looks at one.
///
/// # Errors
/// As [`listen`].
pub(crate) fn flag() -> Result<Arc<AtomicBool>> {
    let failed = |e| Error::new(ErrorKind::Internal, "listen for signals").with_source(e);
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_shutdown(signal, INTERRUPTED, asked.clone()).map_err(failed)?;
        signal_hook::flag::register(signal, asked.clone()).map_err(failed)?;
    }
    Ok(asked)
}
