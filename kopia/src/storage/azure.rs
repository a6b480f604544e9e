//! Azure Blob Storage.

use std::sync::Arc;

use object_store::azure::{AzureConfigKey, MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::{ClientOptions, RetryConfig};

use super::Address;
use super::address::BucketPrefix;
use super::object::{Clients, ObjectStoreAdapter};
use super::object_date::DateConnector;
use super::settings::AzureSettings;
use crate::error::{Error, ErrorKind, Result};

/// Prepares the client. Without credentials in `settings`: the machine's managed identity.
///
/// # Errors
/// `Usage` without an account, or for credentials that cannot be.
pub fn connect(place: &BucketPrefix, settings: &AzureSettings) -> Result<ObjectStoreAdapter> {
    let date = DateConnector::default();
    let normal = Arc::new(client(place, settings, &date, RetryConfig::default())?);
    let once = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let once = Arc::new(client(place, settings, &date, once)?);
    let clients = Clients { pages: Some(normal.clone()), normal, once, date: Some(date) };
    ObjectStoreAdapter::new(Address::Azure(place.clone()), place, clients)
}

fn client(
    place: &BucketPrefix,
    settings: &AzureSettings,
    date: &DateConnector,
    retry: RetryConfig,
) -> Result<MicrosoftAzure> {
    let usage = |step: String| Error::new(ErrorKind::Usage, step);
    let account = settings.account.as_deref().filter(|account| !account.is_empty()).ok_or_else(|| {
        usage(format!("azure://{place} needs a storage account")).with_fix("set AZURE_STORAGE_ACCOUNT")
    })?;
    let mut builder = MicrosoftAzureBuilder::new()
        .with_account(account)
        .with_container_name(&place.bucket)
        .with_http_connector(date.clone())
        .with_retry(retry);
    if let Some(key) = &settings.key {
        builder = builder.with_access_key(key.expose());
    }
    if let Some(token) = &settings.sas_token {
        builder = builder.with_config(AzureConfigKey::SasKey, token.expose().trim_start_matches('?'));
    }
    if let (Some(tenant), Some(client), Some(secret)) =
        (&settings.tenant_id, &settings.client_id, &settings.client_secret)
    {
        builder = builder.with_client_secret_authorization(client, secret.expose(), tenant);
    }
    if let Some(domain) = &settings.domain {
        builder = builder.with_endpoint(format!("https://{account}.{domain}"));
    }
    if let Some(endpoint) = &settings.endpoint {
        let plain = endpoint.starts_with("http://");
        builder = builder.with_endpoint(endpoint.clone()).with_allow_http(plain);
        builder = builder.with_client_options(ClientOptions::new().with_allow_http(plain));
    }
    builder.build().map_err(|error| {
        usage(format!("prepare the client of azure://{place}"))
            .with_fix("check AZURE_STORAGE_ACCOUNT and its key, token or service principal")
            .with_source(error)
    })
}
