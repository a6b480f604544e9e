//! Identity providers are asked over HTTPS.

use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use verger_coordinator::auth::oidc::Provider;
use verger_coordinator::providers::{Fetch, Pace, Providers, Source};
use verger_kopia::clock::Clock;
use verger_kopia::{Error, ErrorKind, Result};

use crate::client;

/// One document takes at most this.
const TIMEOUT: Duration = Duration::from_secs(10);
/// More than any provider's document has.
const BYTES_MAX: u64 = 1 << 20;

/// A provider that is believed.
#[derive(Debug)]
pub(crate) struct Believed {
    /// What it is worth.
    pub(crate) provider: Provider,
    /// Where its keys are, unless it says so itself.
    pub(crate) keys_url: Option<String>,
    /// Whom its certificate must come from; else anybody whom this machine believes.
    pub(crate) ca_file: Option<PathBuf>,
}

/// Begins to ask them for their keys; none if none are believed.
///
/// # Errors
/// `Usage` for a file of authorities that is none.
pub(super) fn start(all: Vec<Believed>, clock: &Arc<dyn Clock>) -> Result<Option<Providers>> {
    if all.is_empty() {
        return Ok(None);
    }
    let source = |believed: Believed| {
        let fetch = Box::new(Web(web(believed.ca_file.as_deref())?));
        Ok(Source { provider: believed.provider, keys_url: believed.keys_url, fetch })
    };
    let sources = all.into_iter().map(source).collect::<Result<Vec<_>>>()?;
    let providers = Providers::start(sources, clock.clone(), Pace::default());
    let failed = |error| Error::new(ErrorKind::Internal, "ask identity providers for keys").with_source(error);
    providers.map(Some).map_err(failed)
}

fn web(ca_file: Option<&std::path::Path>) -> Result<reqwest::blocking::Client> {
    // An answer that leads elsewhere could lead anywhere.
    let builder = reqwest::blocking::Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none());
    let builder = match ca_file {
        Some(path) => {
            let step = format!("read the authorities of an identity provider in {}", path.display());
            let bad = |step: String| Error::new(ErrorKind::Usage, step).with_fix("Give a PEM file: --oidc-ca-file");
            let text = std::fs::read(path).map_err(|error| bad(step.clone()).with_source(error))?;
            let all = reqwest::Certificate::from_pem_bundle(&text).unwrap_or_default();
            if all.is_empty() {
                return Err(bad(format!("{step}: it holds no certificate")));
            }
            builder.tls_certs_only(all)
        }
        None => builder,
    };
    builder.build().map_err(|error| Error::new(ErrorKind::Internal, "make an HTTP client").with_source(error))
}

struct Web(reqwest::blocking::Client);

impl Fetch for Web {
    fn get(&self, url: &str) -> std::result::Result<Vec<u8>, String> {
        let response = self.0.get(url).header("Accept", "application/json").send().map_err(told)?;
        if !response.status().is_success() {
            return Err(format!("it answers {}", response.status()));
        }
        let mut bytes = Vec::new();
        response.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        if bytes.len() as u64 > BYTES_MAX {
            return Err(format!("it is longer than {BYTES_MAX} bytes"));
        }
        Ok(bytes)
    }
}

/// With its causes, which say what happened, and what helps against one that is not believed.
fn told(error: reqwest::Error) -> String {
    let error = error.without_url();
    let fix = match client::tls_error(&error) {
        Some(rustls::Error::InvalidCertificate(_)) => {
            "; give its authority with --oidc-ca-file, and the name that its certificate is for"
        }
        _ => "",
    };
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(next) = cause {
        text.push_str(&format!(": {next}"));
        cause = next.source();
    }
    text + fix
}
