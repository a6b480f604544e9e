//! From settings as given to what a command works with: flag before environment before file.

use std::path::Path;
use std::sync::Arc;

use verger_kopia::clock::SystemClock;
use verger_kopia::format::FORMAT_BLOB;
use verger_kopia::storage::secret::Secret;
use verger_kopia::storage::settings::{self, StoreSettings};
use verger_kopia::storage::{Access, Address, BlobId, Storage};
use verger_kopia::{Error, ErrorKind, Repository, Result};
use verger_worker::kopia_lock::KopiaLocks;
use zeroize::Zeroizing;

use super::connection::{self, Connection};
use super::own_store::OwnStore;
use super::password::{self, Reference};
use super::raw::RepositoryArgs;
use super::{identity, stores};

pub(crate) use super::engine::Engine;

/// Which repository, how it is reached, and who this client is to it. Its `Debug` shows no secret.
#[derive(Clone)]
pub(crate) struct Target {
    /// Where it lies.
    pub address: Address,
    identity: String,
    /// Kopia's connection files on this machine that lead to it.
    pub connections: Vec<Connection>,
    settings: StoreSettings,
    password: Option<Reference>,
    read_only: bool,
    /// Where keys come from that its store alone has.
    own_keys: Option<String>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let connections: Vec<_> = self.connections.iter().map(|c| &c.path).collect();
        f.debug_struct("Target")
            .field("address", &self.address)
            .field("identity", &self.identity)
            .field("connections", &connections)
            .finish_non_exhaustive()
    }
}

impl Target {
    /// Finds out which repository is meant.
    ///
    /// # Errors
    /// `Usage` if nothing or contradicting things were given; `Unsupported` for backends that Verger does not reach.
    pub(crate) fn resolve(args: RepositoryArgs, file: RepositoryArgs) -> Result<Self> {
        let (args, file) = (place_once(args)?, file);
        let file = without_overridden(file, &args);
        let reference = Reference::of(&args)?.map_or_else(|| Reference::of(&file), |r| Ok(Some(r)))?;
        let args = RepositoryArgs { password_env: None, password_file: None, ..args.or(file) };
        let named = args.config_file.as_deref().map(connection::read).transpose()?;
        let address: Address = match (&args.repository, &named) {
            (Some(text), _) => text.parse()?,
            (None, Some(named)) => named.address()?.parse()?,
            (None, None) => {
                return Err(Error::new(ErrorKind::Usage, "no repository is given").with_fix(
                    "Give its address (filesystem:///path, s3://bucket/prefix, gcs://bucket/prefix, \
                     azure://container/prefix), or --config-file with a Kopia connection file",
                ));
            }
        };
        let environment = stores::with_flags(stores::from_environment(), &args)?;
        let mut connections = named.clone().into_iter().collect::<Vec<_>>();
        connections
            .extend(known(&address, &environment).into_iter().filter(|c| args.config_file.as_ref() != Some(&c.path)));
        let settings = match (&named, connections.first()) {
            // A file that was named comes before what lies about in the environment; one that was found comes after it.
            (Some(named), _) => stores::or(stores::from_connection(named)?, stores::from_environment()),
            (None, Some(found)) => stores::or(stores::from_environment(), stores::from_connection(found)?),
            (None, None) => stores::from_environment(),
        };
        Ok(Self {
            identity: connections.first().map_or_else(identity::default_identity, |c| c.identity.clone()),
            settings: stores::with_flags(settings, &args)?,
            read_only: named.is_some_and(|named| named.read_only),
            password: reference,
            address,
            connections,
            own_keys: None,
        })
    }

    /// The same, with what its store has of its own.
    #[must_use]
    pub(crate) fn with_own(self, own: OwnStore) -> Self {
        Self { settings: stores::or(own.settings, self.settings), own_keys: own.keys, ..self }
    }

    /// A target that no setting led to: a repository on this disk with this password.
    #[must_use]
    pub(crate) fn local(path: &Path, password: &str) -> Self {
        Self {
            address: Address::Filesystem(path.to_owned()),
            identity: identity::default_identity(),
            connections: Vec::new(),
            settings: StoreSettings::default(),
            password: Some(Reference::Known(Secret::new(password))),
            read_only: false,
            own_keys: None,
        }
    }

    /// `user@host`: of Kopia's connection to it on this machine if there is one, else Kopia's default.
    #[must_use]
    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }

    /// The password, asked for at a terminal if nothing else gives it.
    ///
    /// # Errors
    /// As [`password::find`].
    pub(crate) fn password(&self) -> Result<Zeroizing<String>> {
        let found = password::find(self.password.as_ref(), &self.connections, &self.address.to_string())?;
        Ok(Zeroizing::new(found.expose().to_owned()))
    }

    /// Where what its store knows us by comes from; never what it is.
    pub(crate) fn keys(&self) -> String {
        if let Some(place) = &self.own_keys {
            return format!("the keys in {place}");
        }
        stores::keys(&self.address, &stores::from_environment(), self.connections.first())
    }

    /// Takes Kopia's own maintenance locks of the connections to this repository, so that no run of theirs is under way.
    ///
    /// # Errors
    /// `ForeignMaintenance` if one is held.
    pub(crate) fn maintenance_locks(&self) -> Result<KopiaLocks> {
        let paths: Vec<_> = self.connections.iter().map(Connection::maintenance_lock).collect();
        KopiaLocks::take(&paths)
    }

    /// Opens the store, to be reached no faster than the engine's limits, and looks whether a repository is there.
    ///
    /// # Errors
    /// `NotARepository`; if only `prefix/` holds a repository, the error gives that address. `Permission` for changes through a
    /// connection that is read-only; what opening the store gives.
    pub(crate) fn open(&self, engine: &Engine, access: Access) -> Result<Arc<dyn Storage>> {
        if self.read_only && access == Access::ReadWrite {
            return Err(Error::new(
                ErrorKind::Permission,
                "not running maintenance on read-only repository connection",
            )
            .with_fix("Connect without --readonly, or give the repository's address"));
        }
        let settings = StoreSettings { throttle: engine.throttle, ..self.settings.clone() };
        let storage = settings::open(&self.address, &settings, access).map_err(|error| match error.kind() {
            ErrorKind::NotARepository => error.at(format!("there is no Kopia repository at {}", self.address)),
            _ => error,
        })?;
        match storage.head(&BlobId::from(FORMAT_BLOB)) {
            Ok(_) => Ok(storage),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(self.no_repository(error)),
            Err(error) => Err(error.at(format!("look for a repository at {}", self.address))),
        }
    }

    /// Opens the store and the repository in it. Whether there is one is looked at before a password is asked for.
    ///
    /// # Errors
    /// As [`Target::open`], [`Target::password`] and [`Repository::open`].
    pub(crate) fn open_repository(&self, engine: &Engine, access: Access) -> Result<Repository> {
        let storage = self.open(engine, access)?;
        Repository::open(storage, &self.password()?, Arc::new(SystemClock))
    }

    fn no_repository(&self, source: Error) -> Error {
        let step = format!("there is no Kopia repository at {}: it has no {FORMAT_BLOB}", self.address);
        let error = Error::new(ErrorKind::NotARepository, step);
        let meant = self.address.with_slash().filter(|address| {
            let store = settings::open(address, &self.settings, Access::ReadOnly);
            store.is_ok_and(|store| store.head(&BlobId::from(FORMAT_BLOB)).is_ok())
        });
        match meant {
            Some(address) => error.with_fix(format!("A repository is at {address}: give that address")),
            None => error.with_source(source).with_fix("Check the address; a prefix is taken as written"),
        }
    }
}

/// Address and connection file are two ways to say the same: which one counts if both are there. A variable that merely lies
/// about gives way to what was typed.
fn place_once(mut args: RepositoryArgs) -> Result<RepositoryArgs> {
    let (Some(address), Some(path)) = (&args.repository, &args.config_file) else { return Ok(args) };
    let from_variable = |name: &str, value: &std::ffi::OsStr| std::env::var_os(name).is_some_and(|v| v == value);
    let address_lies_about = from_variable("KOPIA_REPOSITORY", address.as_ref());
    let file_lies_about = from_variable("VERGER_CONFIG_FILE", path.as_os_str());
    match (address_lies_about, file_lies_about) {
        (true, false) => args.repository = None,
        (false, true) => args.config_file = None,
        _ => {
            return Err(Error::new(ErrorKind::Usage, "both an address and a connection file are given")
                .with_fix("Give REPO (KOPIA_REPOSITORY) or --config-file (VERGER_CONFIG_FILE), not both"));
        }
    }
    Ok(args)
}

/// The file's settings without those whose alternative a flag or a variable gave.
fn without_overridden(mut file: RepositoryArgs, args: &RepositoryArgs) -> RepositoryArgs {
    if args.repository.is_some() || args.config_file.is_some() {
        file.repository = None;
        file.config_file = None;
    }
    if file.repository.is_some() {
        file.config_file = None;
    }
    file
}

/// Kopia's connection files on this machine that lead to this store. Files that cannot be read belong to no one.
fn known(address: &Address, given: &StoreSettings) -> Vec<Connection> {
    let readable = connection::known().into_iter().filter_map(|path| connection::read(&path).ok());
    readable.filter(|connection| leads_to(connection, address, given)).collect()
}

fn leads_to(connection: &Connection, address: &Address, given: &StoreSettings) -> bool {
    let Some(other) = connection.address().ok().and_then(|text| text.parse::<Address>().ok()) else { return false };
    match (address, &other) {
        (Address::Filesystem(a), Address::Filesystem(b)) => {
            let (a, b) = (std::fs::canonicalize(a), std::fs::canonicalize(b));
            a.is_ok_and(|a| b.is_ok_and(|b| a == b))
        }
        (Address::S3(a), Address::S3(b)) => {
            // Without an endpoint the connection's own is meant.
            let same = |endpoint: &String| {
                stores::endpoint_host(Some(endpoint)) == stores::endpoint_host(connection.text("endpoint").as_deref())
            };
            a == b && given.s3.endpoint.as_ref().is_none_or(same)
        }
        (Address::Azure(a), Address::Azure(b)) => {
            let same = |account: &String| connection.text("storageAccount").as_ref() == Some(account);
            a == b && given.azure.account.as_ref().is_none_or(same)
        }
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(backend: &str, config: &serde_json::Value) -> Connection {
        let (path, identity) = ("c".into(), "u@h".to_owned());
        Connection { path, backend: backend.to_owned(), config: config.clone(), identity, read_only: false }
    }

    #[test]
    fn one_store_under_two_names_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::fs::create_dir(folder.path().join("repo")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("repo"), &link).unwrap();
        let file = connection("filesystem", &serde_json::json!({ "path": folder.path().join("repo") }));
        let none = StoreSettings::default();
        assert!(leads_to(&file, &Address::Filesystem(link), &none));
        assert!(!leads_to(&file, &Address::Filesystem(folder.path().into()), &none));
        let s3 = connection("s3", &serde_json::json!({"bucket": "b", "prefix": "p/", "endpoint": "h:9000"}));
        assert!(leads_to(&s3, &"s3://b/p/".parse().unwrap(), &none));
        assert!(!leads_to(&s3, &"s3://b/p".parse().unwrap(), &none));
        let mut other = StoreSettings::default();
        other.s3.endpoint = Some("https://elsewhere".to_owned());
        assert!(!leads_to(&s3, &"s3://b/p/".parse().unwrap(), &other));
        other.s3.endpoint = Some("http://h:9000".to_owned());
        assert!(leads_to(&s3, &"s3://b/p/".parse().unwrap(), &other));
    }

    #[test]
    fn the_file_gives_way_and_contradictions_are_refused() {
        let file = || RepositoryArgs { repository: Some("/from/file".into()), ..RepositoryArgs::default() };
        let flag = RepositoryArgs { repository: Some("filesystem:///from/flag".into()), ..RepositoryArgs::default() };
        let target = Target::resolve(flag.clone(), file()).unwrap();
        assert_eq!(target.address.to_string(), "filesystem:///from/flag");
        assert_eq!(
            Target::resolve(RepositoryArgs::default(), file()).unwrap().address.to_string(),
            "filesystem:///from/file"
        );
        let nothing = Target::resolve(RepositoryArgs::default(), RepositoryArgs::default());
        assert_eq!(nothing.unwrap_err().kind(), ErrorKind::Usage);
        let both = RepositoryArgs { config_file: Some("c".into()), ..flag };
        assert_eq!(Target::resolve(both, file()).unwrap_err().kind(), ErrorKind::Usage);
        let b2 = RepositoryArgs { repository: Some("b2://bucket".into()), ..RepositoryArgs::default() };
        assert_eq!(Target::resolve(b2, RepositoryArgs::default()).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
