//! Tells systemd how far the service is (`Type=notify`): sd_notify(3), without its library.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::config::service;

/// What may be told.
#[derive(Debug, Clone, Copy)]
pub(crate) enum State {
    /// The interface answers.
    Ready,
    /// Nothing new is begun; what is under way ends at its next boundary.
    Stopping,
}

/// Tells, if a service manager listens. That it cannot be told ends nothing: it is logged.
pub(crate) fn tell(state: State) {
    let Some(socket) = service::notify_socket() else { return };
    if let Err(error) = tell_at(&socket, state) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

fn tell_at(socket: &OsStr, state: State) -> std::io::Result<()> {
    let text = match state {
        State::Ready => "READY=1",
        State::Stopping => "STOPPING=1",
    };
    // A name that begins with @ is none of the file system.
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address).map(drop)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn heard(listener: &UnixDatagram) -> String {
        let mut bytes = [0; 64];
        let length = listener.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_socket_of_the_file_system_and_one_of_none_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        tell_at(path.as_os_str(), State::Ready).unwrap();
        assert_eq!(heard(&listener), "READY=1");
        let name = format!("verger-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        tell_at(OsStr::new(&format!("@{name}")), State::Stopping).unwrap();
        assert_eq!(heard(&listener), "STOPPING=1");
        assert!(tell_at(folder.path().join("nobody").as_os_str(), State::Ready).is_err());
    }
}
