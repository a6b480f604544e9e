//! Who may run maintenance: exact equality with `user@host` (`repo/userhost.go`). No authentication stands behind it.

use crate::error::{Error, ErrorKind, Result};
use std::fmt;

/// An identity as Kopia writes it: `user@host`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity(String);

impl Identity {
    /// Takes `user@host` as it is.
    ///
    /// # Errors
    /// `Usage` if a side of the `@` is empty or there is none.
    pub fn parse(text: &str) -> Result<Self> {
        match text.split_once('@') {
            Some((user, host)) if !user.is_empty() && !host.is_empty() => Ok(Self(text.to_owned())),
            _ => Err(Error::new(ErrorKind::Usage, format!("{text:?} is not an identity of the form USER@HOST"))),
        }
    }

    /// From a user and a host name, both as they are.
    #[must_use]
    pub fn new(user: &str, host: &str) -> Self {
        Self(format!("{user}@{host}"))
    }

    /// `user@host`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether maintenance parameters with this `owner` let us run. An empty owner lets nobody.
    #[must_use]
    pub fn owns(&self, owner: &str) -> bool {
        self.0 == owner
    }

    /// Refuses if we are not the owner.
    ///
    /// # Errors
    /// `NotOwner`, with both identities and both ways out.
    pub fn require(&self, owner: &str) -> Result<()> {
        if self.owns(owner) {
            return Ok(());
        }
        let fix = if owner.is_empty() {
            format!("nobody owns this repository's maintenance; to become its owner as {self}: --take-ownership")
        } else {
            format!(
                "this is {self}, the owner is {owner}; to become the owner: --take-ownership; \
                 to run in the owner's name: --act-as {owner}"
            )
        };
        Err(Error::new(ErrorKind::NotOwner, format!("maintenance must be run by designated user: {owner}"))
            .with_fix(fix))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The host name cut at its first dot, in lower case.
#[must_use]
pub fn short_host(name: &str) -> String {
    name.split('.').next().unwrap_or_default().to_lowercase()
}

/// Name of a user in the password file, which Go's `user.Current` reads first (without cgo, as Kopia's releases are built).
#[must_use]
pub fn user_of(passwd: &str, uid: u32) -> Option<String> {
    let uid = uid.to_string();
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _password, id) = (fields.next()?, fields.next()?, fields.next()?);
        (id == uid && !name.is_empty() && !name.starts_with(['#', '+', '-'])).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparison_is_exact_and_an_empty_owner_is_nobody() {
        let me = Identity::parse("ann@box").unwrap();
        assert!(me.require("ann@box").is_ok());
        for owner in ["", "Ann@box", "ann@box.local", "ann@box ", "bob@box"] {
            let error = me.require(owner).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotOwner);
            assert_eq!(error.to_string(), format!("maintenance must be run by designated user: {owner}"));
            let fix = error.fix().unwrap();
            assert!(fix.contains("ann@box") && fix.contains("--take-ownership"), "{fix}");
            assert_eq!(fix.contains(&format!("--act-as {owner}")), !owner.is_empty(), "{fix}");
        }
        assert!(Identity::parse("@box").is_err() && Identity::parse("ann").is_err());
    }

    #[test]
    fn host_is_cut_at_the_first_dot_and_lowered() {
        assert_eq!(short_host("Box-7.Example.COM"), "box-7");
    }

    #[test]
    fn the_password_file_names_the_user() {
        let passwd = "# x\nroot:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nbroken\n";
        assert_eq!(user_of(passwd, 1000).as_deref(), Some("ann"));
        assert_eq!(user_of(passwd, 1), None);
    }
}
