//! Opens the repositories of a fleet, with secrets that lie on this machine.

use std::path::PathBuf;

use verger_kopia::storage::Access;
use verger_kopia::{Error, ErrorKind, Repository, Result};
use verger_proto::{RepositoryName, SecretRef};

use crate::config::{Engine, RepositoryArgs, Target, check_password, own_store};

/// A repository's password in a folder with all that is secret of it.
const PASSWORD_FILE: &str = "KOPIA_PASSWORD";

/// Opens repositories by what was said when they were added.
pub(crate) struct Opener {
    /// Limits of each cycle, and where its files go.
    pub(crate) engine: Engine,
    /// Where secrets are mounted, if they are.
    pub(crate) secrets: Option<PathBuf>,
}

impl Opener {
    /// Opens a repository.
    ///
    /// # Errors
    /// As [`Target::open_repository`]; `Usage` for a secret that this machine does not have: the reference is named, never a value.
    pub(crate) fn open(
        &self,
        name: &RepositoryName,
        address: &str,
        password: &SecretRef,
        access: Access,
    ) -> Result<Repository> {
        let target = self.target(name, address, password)?;
        target.open_repository(&self.engine, access).map_err(|error| named(error, name, password, &target))
    }

    /// The failure with the place of what was refused, where something was.
    pub(crate) fn named(&self, error: Error, name: &RepositoryName, address: &str, password: &SecretRef) -> Error {
        match self.target(name, address, password) {
            Ok(target) => named(error, name, password, &target),
            Err(_) => error,
        }
    }

    /// Whether the password can be found here, and the store's keys, if it has its own; nothing is opened.
    ///
    /// # Errors
    /// `Usage` for a secret that this machine does not have: its place is named.
    pub(crate) fn check_secret(&self, name: &RepositoryName, address: &str, password: &SecretRef) -> Result<()> {
        own_store::find(name.as_str(), self.secrets.as_deref())?;
        check_password(&self.arguments(name, address, password)?, address)
    }

    fn target(&self, name: &RepositoryName, address: &str, password: &SecretRef) -> Result<Target> {
        let target = Target::resolve(self.arguments(name, address, password)?, RepositoryArgs::default())?;
        let own = own_store::find(name.as_str(), self.secrets.as_deref())?;
        Ok(match own {
            Some(own) => target.with_own(own),
            None => target,
        })
    }

    fn arguments(&self, name: &RepositoryName, address: &str, password: &SecretRef) -> Result<RepositoryArgs> {
        let given = RepositoryArgs { repository: Some(address.to_owned()), ..RepositoryArgs::default() };
        Ok(match password {
            SecretRef::Env(variable) => RepositoryArgs { password_env: Some(variable.clone()), ..given },
            SecretRef::File(path) => RepositoryArgs { password_file: Some(path.into()), ..given },
            SecretRef::Mounted(file) => {
                let folder = self.secrets.as_ref().ok_or_else(|| {
                    let step = format!("the password of {name} is a mounted secret ({file})");
                    Error::new(ErrorKind::Usage, step).with_fix("Say where secrets are mounted: --secrets DIR")
                })?;
                let (place, own) = (folder.join(file), folder.join(file).join(PASSWORD_FILE));
                // A folder is a whole secret, as VolSync has them.
                RepositoryArgs { password_file: Some(if place.is_dir() { own } else { place }), ..given }
            }
        })
    }
}

/// It is looked for by people who see a machine's environment, and no password.
fn named(error: Error, name: &RepositoryName, password: &SecretRef, target: &Target) -> Error {
    let step = match error.kind() {
        ErrorKind::WrongPassword => format!("open {name} with the password in {}", password.place()),
        ErrorKind::Permission => format!("open {name} with {}", target.keys()),
        _ => return error,
    };
    if error.chain().contains(&step) { error } else { error.at(step) }
}
