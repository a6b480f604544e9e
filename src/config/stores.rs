//! Settings of stores, from the environment, from a Kopia connection file, and from flags.

use std::path::Path;

use base64::Engine as _;
use verger_kopia::storage::Address;
use verger_kopia::storage::secret::Secret;
use verger_kopia::storage::settings::{S3Credentials, StoreSettings};
use verger_kopia::{Error, ErrorKind, Result};

use super::connection::Connection;
use super::raw::RepositoryArgs;

/// Amazon's own endpoint, as Kopia's connection files name it.
const AMAZON: &str = "s3.amazonaws.com";

fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

/// The usual environment variables of the providers.
pub(crate) const VARIABLES: [&str; 14] = [
    "AWS_S3_ENDPOINT",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "AZURE_STORAGE_ACCOUNT",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_TENANT_ID",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_DOMAIN",
];

/// What the usual environment variables of the providers say.
#[must_use]
pub(crate) fn from_environment() -> StoreSettings {
    from(&set)
}

/// The same of variables that lie elsewhere.
#[must_use]
pub(crate) fn from(set: &dyn Fn(&str) -> Option<String>) -> StoreSettings {
    let secret = |name: &str| set(name).map(Secret::new);
    let mut settings = StoreSettings::default();
    settings.s3.endpoint = set("AWS_S3_ENDPOINT");
    settings.s3.region = set("AWS_REGION").or_else(|| set("AWS_DEFAULT_REGION"));
    if let (Some(access_key), Some(secret_key)) = (set("AWS_ACCESS_KEY_ID"), secret("AWS_SECRET_ACCESS_KEY")) {
        let session_token = secret("AWS_SESSION_TOKEN");
        settings.s3.credentials = S3Credentials::Static { access_key, secret_key, session_token };
    }
    settings.gcs.credentials_file = set("GOOGLE_APPLICATION_CREDENTIALS").map(Into::into);
    let azure = &mut settings.azure;
    azure.account = set("AZURE_STORAGE_ACCOUNT");
    azure.key = secret("AZURE_STORAGE_KEY");
    azure.sas_token = secret("AZURE_STORAGE_SAS_TOKEN");
    azure.tenant_id = set("AZURE_TENANT_ID");
    azure.client_id = set("AZURE_CLIENT_ID");
    azure.client_secret = secret("AZURE_CLIENT_SECRET");
    azure.domain = set("AZURE_STORAGE_DOMAIN");
    settings
}

/// What a connection file says of its store.
///
/// # Errors
/// `Usage` if a value cannot be meant.
pub(crate) fn from_connection(connection: &Connection) -> Result<StoreSettings> {
    let bad = |key: &str| {
        let step = format!("read Kopia connection file {}: {key} is malformed", connection.path.display());
        Error::new(ErrorKind::Usage, step)
    };
    let text = |key: &str| connection.text(key);
    let secret = |key: &str| connection.text(key).map(Secret::new);
    let mut settings = StoreSettings::default();
    let mode = |key: &str| connection.config.get(key).and_then(serde_json::Value::as_u64);
    settings.filesystem.file_mode = mode("fileMode").and_then(|mode| u32::try_from(mode).ok());
    settings.filesystem.directory_mode = mode("dirMode").and_then(|mode| u32::try_from(mode).ok());
    match connection.backend.as_str() {
        "s3" => {
            let s3 = &mut settings.s3;
            s3.endpoint = text("endpoint").filter(|endpoint| endpoint != AMAZON);
            s3.region = text("region");
            if let (Some(access_key), Some(secret_key)) = (text("accessKeyID"), secret("secretAccessKey")) {
                let session_token = secret("sessionToken");
                s3.credentials = S3Credentials::Static { access_key, secret_key, session_token };
            }
            s3.disable_tls = connection.flag("doNotUseTLS");
            s3.skip_tls_verification = connection.flag("doNotVerifyTLS");
            let decode = |text: String| base64::engine::general_purpose::STANDARD.decode(text);
            s3.root_ca = text("rootCA").map(decode).transpose().map_err(|_| bad("rootCA"))?;
            s3.point_in_time = text("pointInTime").map(|t| t.parse()).transpose().map_err(|_| bad("pointInTime"))?;
        }
        "gcs" => {
            settings.gcs.credentials_file = text("credentialsFile").map(Into::into);
            let json = connection.config.get("credentials").filter(|value| !value.is_null());
            settings.gcs.credentials_json = json.map(|json| Secret::new(json.to_string()));
        }
        "azureBlob" => {
            let azure = &mut settings.azure;
            azure.account = text("storageAccount");
            azure.key = secret("storageKey");
            azure.sas_token = secret("sasToken");
            azure.tenant_id = text("tenantID");
            azure.client_id = text("clientID");
            azure.client_secret = secret("clientSecret");
            azure.domain = text("storageDomain");
        }
        _ => {}
    }
    Ok(settings)
}

/// Fills what `first` leaves open. Keys of one identity are never mixed with those of another.
#[must_use]
pub(crate) fn or(mut first: StoreSettings, second: StoreSettings) -> StoreSettings {
    first.filesystem.file_mode = first.filesystem.file_mode.or(second.filesystem.file_mode);
    first.filesystem.directory_mode = first.filesystem.directory_mode.or(second.filesystem.directory_mode);
    let (s3, other) = (&mut first.s3, second.s3);
    if s3.endpoint.is_none() {
        s3.endpoint = other.endpoint;
        s3.disable_tls |= other.disable_tls;
        s3.skip_tls_verification |= other.skip_tls_verification;
        s3.root_ca = s3.root_ca.take().or(other.root_ca);
    }
    s3.region = s3.region.take().or(other.region);
    if matches!(s3.credentials, S3Credentials::Chain) {
        s3.credentials = other.credentials;
    }
    s3.point_in_time = s3.point_in_time.or(other.point_in_time);
    if first.gcs.credentials_file.is_none() && first.gcs.credentials_json.is_none() {
        first.gcs = second.gcs;
    }
    let (azure, other) = (&mut first.azure, second.azure);
    let has_key = azure.key.is_some() || azure.sas_token.is_some() || azure.client_secret.is_some();
    if !has_key && (azure.account.is_none() || azure.account == other.account) {
        *azure = other;
    }
    first
}

/// Lets flags (and their own variables) have the last word.
///
/// # Errors
/// `Usage` if the certificate file cannot be read.
pub(crate) fn with_flags(mut settings: StoreSettings, args: &RepositoryArgs) -> Result<StoreSettings> {
    let s3 = &mut settings.s3;
    if let Some(endpoint) = &args.s3_endpoint {
        s3.endpoint = Some(endpoint.clone());
        s3.disable_tls = false;
    }
    if let Some(region) = &args.s3_region {
        s3.region = Some(region.clone());
    }
    if let Some(path) = &args.root_ca_pem_path {
        s3.root_ca = Some(certificates(path)?);
    }
    s3.skip_tls_verification |= args.disable_tls_verification;
    Ok(settings)
}

fn certificates(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| {
        Error::new(ErrorKind::Usage, format!("read certificates {} (--root-ca-pem-path)", path.display()))
            .with_source(e)
    })
}

/// Where the credentials of a store come from, in words, as [`or`] puts them together.
#[must_use]
pub(crate) fn keys(address: &Address, environment: &StoreSettings, connection: Option<&Connection>) -> String {
    let StoreSettings { s3, gcs, azure, .. } = environment;
    let (variables, tools) = match address {
        Address::Filesystem(_) => return "the rights of this process's user".to_owned(),
        Address::S3(_) => {
            let is_set = !matches!(s3.credentials, S3Credentials::Chain);
            (is_set.then_some("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"), "Amazon's")
        }
        Address::Gcs(_) => {
            let is_set = gcs.credentials_file.is_some() || gcs.credentials_json.is_some();
            (is_set.then_some("GOOGLE_APPLICATION_CREDENTIALS"), "Google's")
        }
        Address::Azure(_) => {
            let key = azure.key.as_ref().map(|_| "AZURE_STORAGE_KEY");
            let token = azure.sas_token.as_ref().map(|_| "AZURE_STORAGE_SAS_TOKEN");
            (key.or(token).or(azure.client_secret.as_ref().map(|_| "AZURE_CLIENT_SECRET")), "Azure's")
        }
    };
    match (variables, connection) {
        (Some(variables), _) => format!("the keys in {variables}"),
        (None, Some(connection)) => format!("the keys in Kopia's connection file {}", connection.path.display()),
        (None, None) => format!("the credentials that {tools} own tools find"),
    }
}

/// Host and port of an endpoint, to compare two of them.
#[must_use]
pub(crate) fn endpoint_host(endpoint: Option<&str>) -> String {
    let text = endpoint.unwrap_or(AMAZON);
    let host = text.split_once("://").map_or(text, |(_, host)| host);
    host.trim_end_matches('/').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(backend: &str, config: &str) -> Connection {
        Connection {
            path: "c".into(),
            backend: backend.to_owned(),
            config: serde_json::from_str(config).unwrap(),
            identity: "u@h".to_owned(),
            read_only: false,
        }
    }

    #[test]
    fn kopias_fields_are_taken_over() {
        let s3 = connection(
            "s3",
            r#"{"endpoint":"h:9000","doNotUseTLS":true,"accessKeyID":"A","secretAccessKey":"hush","region":"r","rootCA":"eA=="}"#,
        );
        let settings = from_connection(&s3).unwrap();
        assert_eq!((settings.s3.endpoint.as_deref(), settings.s3.disable_tls), (Some("h:9000"), true));
        assert_eq!((settings.s3.region.as_deref(), settings.s3.root_ca.as_deref()), (Some("r"), Some(&b"x"[..])));
        assert!(matches!(&settings.s3.credentials, S3Credentials::Static { access_key, .. } if access_key == "A"));
        assert!(!format!("{settings:?}").contains("hush"));
        let amazon = from_connection(&connection("s3", r#"{"endpoint":"s3.amazonaws.com"}"#)).unwrap();
        assert_eq!(amazon.s3.endpoint, None);
        assert!(from_connection(&connection("s3", r#"{"rootCA":"?"}"#)).is_err());
        let azure = from_connection(&connection("azureBlob", r#"{"storageAccount":"a","storageKey":"k"}"#)).unwrap();
        assert_eq!(azure.azure.account.as_deref(), Some("a"));
    }

    #[test]
    fn the_first_has_the_say_and_keys_are_not_mixed() {
        let mut first = StoreSettings::default();
        first.s3.endpoint = Some("https://a".to_owned());
        first.azure.account = Some("mine".to_owned());
        let mut second = StoreSettings::default();
        second.s3.endpoint = Some("b".to_owned());
        second.s3.disable_tls = true;
        second.s3.region = Some("r".to_owned());
        second.azure.account = Some("other".to_owned());
        second.azure.key = Some(Secret::new("k"));
        let both = or(first, second);
        assert_eq!((both.s3.endpoint.as_deref(), both.s3.disable_tls), (Some("https://a"), false));
        assert_eq!(both.s3.region.as_deref(), Some("r"));
        assert!(both.azure.key.is_none(), "the key of another account");
        let args = RepositoryArgs { s3_endpoint: Some("http://c".into()), ..RepositoryArgs::default() };
        assert_eq!(with_flags(both, &args).unwrap().s3.endpoint.as_deref(), Some("http://c"));
    }

    #[test]
    fn endpoints_compare_by_host_and_port() {
        assert_eq!(endpoint_host(Some("http://H:9000/")), endpoint_host(Some("h:9000")));
        assert_eq!(endpoint_host(None), "s3.amazonaws.com");
    }
}
