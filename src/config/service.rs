//! What a service manager says to the services that it starts.

use std::ffi::OsString;

/// The socket of a manager that wants to be told how far the service is (sd_notify(3)).
pub(crate) fn notify_socket() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty())
}
