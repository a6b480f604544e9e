//! Who this client is to Kopia.

/// Kopia's default identity: the OS user, and the host name cut at the first dot and in lower case (`repo/userhost.go`).
#[must_use]
pub(crate) fn default_identity() -> String {
    format!("{}@{}", user_name(), host_name())
}

fn user_name() -> String {
    let uid = rustix::process::getuid().as_raw();
    user_of_uid(uid).or_else(|| std::env::var("USER").ok()).unwrap_or_else(|| "nobody".to_owned())
}

fn user_of_uid(uid: u32) -> Option<String> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// Host name as Kopia shortens it.
#[must_use]
pub(crate) fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let short = name.split('.').next().unwrap_or_default().to_lowercase();
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
