//! The SDK's client from settings.

use std::time::Duration;

use aws_config::meta::region::RegionProviderChain;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    BehaviorVersion, Builder, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedHttpClient, retry::RetryConfig, timeout::TimeoutConfig,
};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::{Builder as HttpBuilder, Connector, tls};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::intercept::Patience;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::settings::{S3Credentials, S3Settings};

const REGION: &str = "us-east-1";

pub(super) async fn build(settings: &S3Settings) -> Result<Client> {
    if settings.point_in_time.is_some() {
        let step = "the connection is to a point in time: that is a view to restore from, not to maintain";
        return Err(Error::unsupported(step).with_fix("connect without --point-in-time"));
    }
    let endpoint = endpoint(settings)?;
    let mut config = base(settings, endpoint.is_some()).await?;
    config = config
        .behavior_version(BehaviorVersion::v2026_01_12())
        // Many likes of S3 do not know the checksums that the SDK would add by itself.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .force_path_style(settings.path_style.unwrap_or(endpoint.is_some()))
        .retry_config(RetryConfig::standard().with_max_attempts(5))
        .interceptor(Patience)
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(15))
                .read_timeout(Duration::from_secs(90))
                .build(),
        );
    config.set_endpoint_url(endpoint);
    if let Some(client) = http_client(settings)? {
        config = config.http_client(client);
    }
    Ok(Client::from_conf(config.build()))
}

/// Credentials and region. Only the default chain looks around in the environment, and only if it was asked for.
async fn base(settings: &S3Settings, custom_endpoint: bool) -> Result<Builder> {
    let region = settings.region.clone().filter(|region| !region.is_empty()).map(Region::new);
    let fixed = |region: Option<Region>| Builder::default().region(region.unwrap_or(Region::from_static(REGION)));
    match &settings.credentials {
        S3Credentials::Chain => {
            let mut chain = RegionProviderChain::first_try(region);
            if !custom_endpoint {
                chain = chain.or_default_provider();
            }
            let chain = chain.or_else(Region::from_static(REGION));
            let shared = aws_config::defaults(BehaviorVersion::v2026_01_12()).region(chain).load().await;
            Ok(Builder::from(&shared))
        }
        S3Credentials::Static { access_key, secret_key, session_token } => {
            if access_key.is_empty() || secret_key.expose().is_empty() {
                return Err(Error::new(ErrorKind::Usage, "an S3 access key needs both its ID and its secret"));
            }
            let token = session_token.as_ref().map(|token| token.expose().to_owned()).filter(|token| !token.is_empty());
            let keys = Credentials::new(access_key, secret_key.expose(), token, None, "verger");
            Ok(fixed(region).credentials_provider(keys))
        }
        S3Credentials::Anonymous => Ok(fixed(region).allow_no_auth()),
    }
}

/// The endpoint with its scheme. A bare host name means TLS, as in Kopia.
fn endpoint(settings: &S3Settings) -> Result<Option<String>> {
    let Some(text) = settings.endpoint.as_deref().map(str::trim).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let (scheme, host) = text.split_once("://").unwrap_or(("https", text));
    let scheme = if settings.disable_tls { "http" } else { scheme };
    let host = host.trim_end_matches('/');
    let usage = |why: &str| Error::new(ErrorKind::Usage, format!("S3 endpoint {text}: {why}"));
    if !matches!(scheme, "http" | "https") {
        return Err(usage("its scheme is neither http nor https"));
    }
    if host.is_empty() || host.contains('@') || url::Url::parse(&format!("{scheme}://{host}")).is_err() {
        return Err(usage("it is no host name").with_fix("give host, host:port, http://host:port or https://host:port"));
    }
    // Kopia writes Amazon's own endpoint into every connection; the SDK knows the regional ones better.
    if host == "s3.amazonaws.com" {
        return Ok(None);
    }
    Ok(Some(format!("{scheme}://{host}")))
}

/// A client with other ideas of trust than the system's; `None` for the SDK's own.
fn http_client(settings: &S3Settings) -> Result<Option<SharedHttpClient>> {
    if settings.skip_tls_verification {
        return super::unverified::client().map(Some);
    }
    let Some(pem) = &settings.root_ca else { return Ok(None) };
    check_certificates(pem)?;
    let trust = tls::TrustStore::empty().with_pem_certificate(pem.clone());
    let failed = |error| Error::new(ErrorKind::Usage, "set up TLS with the given certificates").with_source(error);
    let context = tls::TlsContext::builder().with_trust_store(trust).build().map_err(failed)?;
    let client = HttpBuilder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder();
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        connector
            .proxy_config(ProxyConfig::from_env())
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc))
            .tls_context(context.clone())
            .build()
    });
    Ok(Some(client))
}

/// The SDK panics on what is no certificate.
fn check_certificates(pem: &[u8]) -> Result<()> {
    let usage = |why: &str| Error::new(ErrorKind::Usage, format!("the certificates to trust: {why}"));
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| usage("they are no valid PEM").with_source(error))?;
        store.add(certificate).map_err(|error| usage("one of them cannot be used").with_source(error))?;
    }
    if store.is_empty() { Err(usage("there is none in the PEM text")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_endpoint(endpoint: &str) -> S3Settings {
        S3Settings { endpoint: Some(endpoint.to_owned()), ..S3Settings::default() }
    }

    #[test]
    fn the_scheme_decides_on_tls() {
        let resolve = |text: &str| endpoint(&with_endpoint(text)).unwrap();
        assert_eq!(resolve("http://localhost:9000/").as_deref(), Some("http://localhost:9000"));
        assert_eq!(resolve("minio.example:9000").as_deref(), Some("https://minio.example:9000"));
        assert_eq!(resolve("https://s3.example").as_deref(), Some("https://s3.example"));
        assert_eq!(resolve(""), None);
        assert_eq!(resolve("s3.amazonaws.com"), None);
        let off = S3Settings { disable_tls: true, ..with_endpoint("s3.example") };
        assert_eq!(endpoint(&off).unwrap().as_deref(), Some("http://s3.example"));
        for bad in ["ftp://x", "https://", "https://user:hush@host", "https://a b"] {
            assert_eq!(endpoint(&with_endpoint(bad)).unwrap_err().kind(), ErrorKind::Usage, "{bad}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        for pem in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert_eq!(check_certificates(pem.as_bytes()).unwrap_err().kind(), ErrorKind::Usage);
        }
    }
}
