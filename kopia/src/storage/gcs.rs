//! Google Cloud Storage.

use std::sync::Arc;

use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder};
use object_store::{ClientOptions, RetryConfig};

use super::Address;
use super::address::BucketPrefix;
use super::object::{Clients, ObjectStoreAdapter};
use super::object_date::DateConnector;
use super::settings::GcsSettings;
use crate::error::{Error, ErrorKind, Result};

/// Prepares the client. Without credentials in `settings`: Google's own default, the machine's or the signed-in user's.
///
/// # Errors
/// `Usage` for credentials that cannot be read.
pub fn connect(place: &BucketPrefix, settings: &GcsSettings) -> Result<ObjectStoreAdapter> {
    let date = DateConnector::default();
    let normal = Arc::new(client(place, settings, &date, RetryConfig::default())?);
    let once = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let once = Arc::new(client(place, settings, &date, once)?);
    let clients = Clients { pages: Some(normal.clone()), normal, once, date: Some(date) };
    ObjectStoreAdapter::new(Address::Gcs(place.clone()), place, clients)
}

fn client(
    place: &BucketPrefix,
    settings: &GcsSettings,
    date: &DateConnector,
    retry: RetryConfig,
) -> Result<GoogleCloudStorage> {
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(&place.bucket)
        .with_http_connector(date.clone())
        .with_retry(retry);
    if let Some(file) = &settings.credentials_file {
        builder = builder.with_application_credentials(file.display().to_string());
    }
    if let Some(json) = &settings.credentials_json {
        builder = builder.with_service_account_key(json.expose());
    }
    if let Some(endpoint) = &settings.endpoint {
        let plain = endpoint.starts_with("http://");
        builder = builder.with_base_url(endpoint).with_client_options(ClientOptions::new().with_allow_http(plain));
        if settings.credentials_file.is_none() && settings.credentials_json.is_none() {
            // Emulators take any token. Without one the machine's own would be asked for, and sent to them.
            builder = builder.with_bearer_token("none");
        }
    }
    builder.build().map_err(|error| {
        Error::new(ErrorKind::Usage, format!("prepare the client of gcs://{place}"))
            .with_fix("check GOOGLE_APPLICATION_CREDENTIALS")
            .with_source(error)
    })
}
