//! Settings of stores, resolved by whoever reads environment and files, and opening by them.

use std::path::PathBuf;
use std::sync::Arc;

use super::secret::Secret;
use super::throttle::{Throttle, ThrottledStorage};
use super::{Access, Address, FsStorage, Storage};
use crate::clock::SystemClock;
use crate::error::{Error, Result};

/// All that opening a store may need besides its address. Nothing here is read from the environment.
#[derive(Debug, Clone, Default)]
pub struct StoreSettings {
    /// For `filesystem://`.
    pub filesystem: FsSettings,
    /// For `s3://`.
    pub s3: S3Settings,
    /// For `gcs://`.
    pub gcs: GcsSettings,
    /// For `azure://`.
    pub azure: AzureSettings,
    /// Limits, for any store.
    pub throttle: Throttle,
}

/// Settings of file systems.
#[derive(Debug, Clone, Default)]
pub struct FsSettings {
    /// Mode of new files; Kopia's own is 0600.
    pub file_mode: Option<u32>,
    /// Mode of new directories; Kopia's own is 0700.
    pub directory_mode: Option<u32>,
}

/// Settings of S3 stores.
#[derive(Debug, Clone, Default)]
pub struct S3Settings {
    /// Host, with port and scheme if given: `http://` means no TLS, no scheme means TLS. `None`: Amazon's.
    pub endpoint: Option<String>,
    /// Region. `None`: what the default chain says, else `us-east-1`.
    pub region: Option<String>,
    /// Whose requests these are.
    pub credentials: S3Credentials,
    /// Bucket in the path rather than in the host name. `None`: with a custom endpoint.
    pub path_style: Option<bool>,
    /// No TLS, whatever the endpoint says.
    pub disable_tls: bool,
    /// TLS without looking at the certificate.
    pub skip_tls_verification: bool,
    /// Certificates to trust, PEM, in place of the system's.
    pub root_ca: Option<Vec<u8>>,
    /// Kopia's point in time: the store as it was then, read-only. Not supported; named so that opening can refuse it.
    pub point_in_time: Option<crate::clock::Timestamp>,
}

/// Whose S3 requests these are.
#[derive(Debug, Clone, Default)]
pub enum S3Credentials {
    /// What the AWS tools find: environment, profile files, web identity, instance metadata.
    #[default]
    Chain,
    /// These.
    Static {
        /// Access key ID.
        access_key: String,
        /// Secret access key.
        secret_key: Secret,
        /// Session token of temporary credentials.
        session_token: Option<Secret>,
    },
    /// Unsigned requests.
    Anonymous,
}

/// Settings of Google Cloud Storage.
#[derive(Debug, Clone, Default)]
pub struct GcsSettings {
    /// File with a service account's or a user's credentials (`GOOGLE_APPLICATION_CREDENTIALS`). `None`: the machine's own.
    pub credentials_file: Option<PathBuf>,
    /// The same as text.
    pub credentials_json: Option<Secret>,
    /// Another endpoint, for emulators.
    pub endpoint: Option<String>,
}

/// Settings of Azure Blob Storage.
#[derive(Debug, Clone, Default)]
pub struct AzureSettings {
    /// Storage account.
    pub account: Option<String>,
    /// Its key.
    pub key: Option<Secret>,
    /// Shared access signature, in place of the key.
    pub sas_token: Option<Secret>,
    /// Tenant, client and secret of a service principal, in place of the key.
    pub tenant_id: Option<String>,
    /// See `tenant_id`.
    pub client_id: Option<String>,
    /// See `tenant_id`.
    pub client_secret: Option<Secret>,
    /// Domain of the service, such as `blob.core.usgovcloudapi.net`. `None`: `blob.core.windows.net`.
    pub domain: Option<String>,
    /// Another endpoint, for emulators.
    pub endpoint: Option<String>,
}

/// Opens the store at `address`.
///
/// # Errors
/// `NotARepository`, `Permission`, `Usage` (settings that contradict each other), `Unsupported`, `StoreUnavailable`.
pub fn open(address: &Address, settings: &StoreSettings, access: Access) -> Result<Arc<dyn Storage>> {
    let store: Arc<dyn Storage> = match address {
        Address::Filesystem(path) => {
            let modes = &settings.filesystem;
            Arc::new(FsStorage::open(path, access)?.with_modes(modes.file_mode, modes.directory_mode))
        }
        #[cfg(feature = "s3")]
        Address::S3(place) => {
            guard(super::s3::S3Storage::connect(super::s3::S3Options::new(place.clone(), settings.s3.clone()))?, access)
        }
        #[cfg(feature = "gcs")]
        Address::Gcs(place) => guard(super::gcs::connect(place, &settings.gcs)?, access),
        #[cfg(feature = "azure")]
        Address::Azure(place) => guard(super::azure::connect(place, &settings.azure)?, access),
        #[allow(unreachable_patterns, reason = "depends on the features")]
        other => {
            let step = format!("open {other}: this build has no support for this kind of store");
            return Err(Error::unsupported(step).with_fix("build with default features"));
        }
    };
    if settings.throttle.is_unlimited() {
        return Ok(store);
    }
    Ok(Arc::new(ThrottledStorage::new(store, &settings.throttle, Arc::new(SystemClock))))
}

#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
fn guard(store: impl Storage + 'static, access: Access) -> Arc<dyn Storage> {
    match access {
        Access::ReadWrite => Arc::new(store),
        Access::ReadOnly => Arc::new(super::readonly::ReadOnlyStorage::new(Arc::new(store))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::storage::{BlobId, PutOptions};

    #[test]
    fn access_and_limits_reach_the_store() {
        let directory = tempfile::tempdir().unwrap();
        let address = Address::Filesystem(directory.path().to_owned());
        let mut settings = StoreSettings::default();
        let store = open(&address, &settings, Access::ReadOnly).unwrap();
        let refused = store.put(&BlobId::new("p1"), "x".into(), &PutOptions::default()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Permission);
        settings.throttle.upload_bytes_per_second = Some(1.0);
        let store = open(&address, &settings, Access::ReadWrite).unwrap();
        assert!(format!("{store:?}").starts_with("ThrottledStorage"));
    }

    #[test]
    fn secrets_do_not_show() {
        let credentials = S3Credentials::Static {
            access_key: "AKIA".to_owned(),
            secret_key: Secret::new("hush-1"),
            session_token: Some(Secret::new("hush-2")),
        };
        let settings = StoreSettings {
            s3: S3Settings { credentials, ..S3Settings::default() },
            azure: AzureSettings { key: Some(Secret::new("hush-3")), ..AzureSettings::default() },
            ..StoreSettings::default()
        };
        assert!(!format!("{settings:?}").contains("hush"));
    }
}
