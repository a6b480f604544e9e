//! Flags that processes share which answer commands and look after repositories.

use std::net::SocketAddr;
use std::path::PathBuf;

use verger_coordinator::api::TlsFiles;
use verger_coordinator::schedule::Limits;
use verger_kopia::Result;

use super::oidc::OidcArgs;
use crate::up::oidc::Believed;

/// Where the API is.
#[derive(Debug, clap::Args)]
pub(super) struct ApiArgs {
    /// Address of the API; loopback only without TLS
    #[arg(long, value_name = "HOST:PORT", env = "VERGER_LISTEN", default_value = "127.0.0.1:7420")]
    pub(super) listen: SocketAddr,
    /// Certificate of the API, with those between it and its authority (PEM); read again when it changes
    #[arg(long, value_name = "FILE", env = "VERGER_TLS_CERT", requires = "tls_key", help_heading = "TLS")]
    tls_cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", env = "VERGER_TLS_KEY", requires = "tls_cert", help_heading = "TLS")]
    tls_key: Option<PathBuf>,
    /// Authorities that certificates of clients must come from (PEM) [default: clients need none]
    #[arg(long, value_name = "FILE", env = "VERGER_TLS_CLIENT_CA", requires = "tls_cert", help_heading = "TLS")]
    tls_client_ca: Option<PathBuf>,
    #[command(flatten)]
    oidc: OidcArgs,
}

impl ApiArgs {
    /// The identity providers that are believed.
    ///
    /// # Errors
    /// `Usage` for one that cannot be.
    pub(super) fn believed(&self) -> Result<Vec<Believed>> {
        self.oidc.resolve()
    }

    /// Its certificate, if it has one.
    pub(super) fn tls(self) -> Option<TlsFiles> {
        let client_authority = self.tls_client_ca;
        self.tls_cert.zip(self.tls_key).map(|(certificate, key)| TlsFiles { certificate, key, client_authority })
    }
}

/// How many cycles may run at once.
#[derive(Debug, clap::Args)]
pub(super) struct PlacesArgs {
    /// Cycles at once in a bucket: `N` for each that is not named, or `BUCKET=N` such as `s3://attic=2` [default: 4]
    #[arg(long, value_name = "[BUCKET=]N", env = "VERGER_BUCKET_CYCLES", value_delimiter = ',', value_parser = places)]
    bucket_cycles: Vec<(Option<String>, u32)>,
    /// Cycles at once of a pool: `N` for each that is not named, or `POOL=N` [default: as many as workers]
    #[arg(long, value_name = "[POOL=]N", env = "VERGER_POOL_CYCLES", value_delimiter = ',', value_parser = places)]
    pool_cycles: Vec<(Option<String>, u32)>,
}

impl PlacesArgs {
    /// With so many in all.
    pub(super) fn limits(self, workers: usize) -> Limits {
        let total = u32::try_from(workers).unwrap_or(u32::MAX);
        let mut limits = Limits { total, pool_default: total, ..Limits::default() };
        for (name, number) in self.bucket_cycles {
            match name {
                Some(name) => drop(limits.buckets.insert(name, number)),
                None => limits.bucket_default = number,
            }
        }
        for (name, number) in self.pool_cycles {
            match name {
                Some(name) => drop(limits.pools.insert(name, number)),
                None => limits.pool_default = number,
            }
        }
        limits
    }
}

/// `4`, or `s3://attic=2`.
fn places(text: &str) -> std::result::Result<(Option<String>, u32), String> {
    let (name, number) = match text.rsplit_once('=') {
        Some((name, number)) => (Some(name.trim().trim_end_matches('/').to_owned()), number),
        None => (None, text),
    };
    match number.trim().parse() {
        Ok(number) if number > 0 && name.as_ref().is_none_or(|name| !name.is_empty()) => Ok((name, number)),
        _ => Err(format!("{text:?} is not a number from 1 on, nor a name with one such as s3://attic=2")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_for_all_or_for_one_by_name() {
        let read = |text: &str| places(text).ok();
        assert_eq!(read("3"), Some((None, 3)));
        assert_eq!(read("s3://attic/=2"), Some((Some("s3://attic".to_owned()), 2)));
        for bad in ["", "0", "attic=", "=3", "attic=x"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        let limits = PlacesArgs {
            bucket_cycles: vec![(None, 3), (Some("s3://attic".to_owned()), 1)],
            pool_cycles: vec![(Some("night".to_owned()), 2)],
        }
        .limits(8);
        assert_eq!((limits.total, limits.bucket_default, limits.pool_default), (8, 3, 8));
        assert_eq!((limits.buckets["s3://attic"], limits.pools["night"]), (1, 2));
    }
}
