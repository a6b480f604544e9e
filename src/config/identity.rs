//! Who this client is to Kopia.

use verger_kopia::maintenance::owner::{short_host, user_of};

/// Kopia's default identity: the OS user, and the host name cut at the first dot and in lower case (`repo/userhost.go`).
#[must_use]
pub(crate) fn default_identity() -> String {
    format!("{}@{}", user_name(), host_name())
}

fn user_name() -> String {
    let passwd = std::fs::read("/etc/passwd").unwrap_or_default();
    let named = user_of(&String::from_utf8_lossy(&passwd), rustix::process::getuid().as_raw());
    let variable = || std::env::var("USER").ok().filter(|user| !user.is_empty());
    named.or_else(variable).unwrap_or_else(|| "nobody".to_owned())
}

/// Host name as Kopia shortens it.
#[must_use]
pub(crate) fn host_name() -> String {
    let short = short_host(&rustix::system::uname().nodename().to_string_lossy());
    if short.is_empty() { "nohost".to_owned() } else { short }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_is_short_and_lower_case() {
        let host = host_name();
        assert!(!host.contains('.') && host == host.to_lowercase() && !host.is_empty());
        assert!(default_identity().ends_with(&format!("@{host}")));
    }
}
