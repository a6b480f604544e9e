//! Where the repository's password comes from.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use verger_kopia::storage::secret::Secret;
use verger_kopia::{Error, ErrorKind, Result};

use super::connection::Connection;
use super::raw::RepositoryArgs;

const VARIABLE: &str = "KOPIA_PASSWORD";

/// A reference to the password that somebody gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reference {
    /// The content of a file.
    File(PathBuf),
    /// The value of an environment variable.
    Variable(String),
    /// Known already.
    Known(Secret),
}

impl Reference {
    /// The reference in these settings, if there is one.
    ///
    /// # Errors
    /// `Usage` if there are two.
    pub(crate) fn of(args: &RepositoryArgs) -> Result<Option<Self>> {
        match (&args.password_file, &args.password_env) {
            (Some(_), Some(_)) => {
                Err(Error::new(ErrorKind::Usage, "both --password-file and --password-env are given")
                    .with_fix("Give one of them"))
            }
            (Some(file), None) => Ok(Some(Self::File(file.clone()))),
            (None, Some(name)) => Ok(Some(Self::Variable(name.clone()))),
            (None, None) => Ok(None),
        }
    }
}

/// The password: from the reference, else `KOPIA_PASSWORD`, else what Kopia saved beside a connection file, else from a prompt.
///
/// # Errors
/// `Usage` if a reference leads nowhere, or there is none and no terminal to ask at.
pub(crate) fn find(reference: Option<&Reference>, connections: &[Connection], address: &str) -> Result<Secret> {
    match reference {
        Some(Reference::Known(secret)) => return Ok(secret.clone()),
        Some(Reference::File(path)) => return read(path),
        Some(Reference::Variable(name)) => {
            return variable(name)?.ok_or_else(|| {
                Error::new(ErrorKind::Usage, format!("environment variable {name} (--password-env) is not set"))
            });
        }
        None => {}
    }
    if let Some(password) = variable(VARIABLE)? {
        return Ok(password);
    }
    for connection in connections {
        if let Some(password) = connection.saved_password()? {
            return Ok(Secret::new(password));
        }
    }
    if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
        let typed = rpassword::prompt_password(format!("Password of {address}: "));
        return typed
            .map(Secret::new)
            .map_err(|e| Error::new(ErrorKind::Usage, "read the password from the terminal").with_source(e));
    }
    Err(Error::new(ErrorKind::Usage, format!("there is no password for {address}"))
        .with_fix("Set KOPIA_PASSWORD, or give --password-file FILE or --password-env NAME"))
}

/// Whether there is a password where these settings say; it is forgotten at once.
///
/// # Errors
/// As [`find`].
pub(crate) fn check_password(args: &RepositoryArgs, address: &str) -> Result<()> {
    find(Reference::of(args)?.as_ref(), &[], address).map(drop)
}

fn variable(name: &str) -> Result<Option<Secret>> {
    match std::env::var(name) {
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => Ok(Some(Secret::new(text))),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(Error::new(ErrorKind::Usage, format!("environment variable {name} is not UTF-8")))
        }
    }
}

fn read(path: &Path) -> Result<Secret> {
    let step = || format!("read password file {}", path.display());
    let mut text = std::fs::read_to_string(path).map_err(|e| Error::new(ErrorKind::Usage, step()).with_source(e))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() {
        return Err(Error::new(ErrorKind::Usage, format!("{}: it is empty", step())));
    }
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_trailing_newline_is_not_part_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        for (text, password) in [("a b", "a b"), ("x\n", "x"), ("x\r\n", "x"), ("x\n\n", "x\n"), (" x ", " x ")] {
            std::fs::write(&path, text).unwrap();
            let found = find(Some(&Reference::File(path.clone())), &[], "a").unwrap();
            assert_eq!(found.expose(), password);
            assert!(!format!("{found:?}").contains('x'));
        }
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(find(Some(&Reference::File(path)), &[], "a").unwrap_err().kind(), ErrorKind::Usage);
    }

    #[test]
    fn a_reference_that_leads_nowhere_is_an_error_and_two_are_one_too_many() {
        let nowhere = Reference::Variable("VERGER_NO_SUCH_VARIABLE".to_owned());
        assert_eq!(find(Some(&nowhere), &[], "a").unwrap_err().kind(), ErrorKind::Usage);
        let both = RepositoryArgs {
            password_env: Some("A".into()),
            password_file: Some("b".into()),
            ..RepositoryArgs::default()
        };
        assert_eq!(Reference::of(&both).unwrap_err().kind(), ErrorKind::Usage);
    }
}
