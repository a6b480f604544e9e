//! Flags that processes share which answer commands and look after repositories.

use std::net::SocketAddr;
use std::path::PathBuf;

use verger_coordinator::api::TlsFiles;
use verger_coordinator::prices::{Price, Prices};
use verger_coordinator::schedule::Limits;
use verger_kopia::{Error, ErrorKind};
use verger_worker::progress::Stop;

use super::oidc::OidcArgs;
use crate::cli::Context;
use crate::config::archive::ArchiveArgs;
use crate::config::nats::NatsArgs;
use crate::config::{Engine, EngineArgs};
use crate::exit::Exit;
use crate::output::Output;
use crate::up::oidc::Believed;
use crate::{signal, up};

/// What `verger up` and `verger coordinator` have in common.
#[derive(Debug, clap::Args)]
pub(super) struct ServiceArgs {
    /// Folder of the ledger and of everything else that is kept
    #[arg(long, value_name = "DIR", env = "VERGER_DATA_DIR")]
    data_dir: PathBuf,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    places: PlacesArgs,
    /// Folder with secrets, a file each
    #[arg(long, value_name = "DIR", env = "VERGER_SECRETS")]
    secrets: Option<PathBuf>,
    #[command(flatten)]
    prices: PriceArgs,
    #[command(flatten)]
    archive: ArchiveArgs,
    #[command(flatten)]
    nats: NatsArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

impl ServiceArgs {
    /// What is to be run, with so many cycles at once.
    pub(super) fn options(self, context: &Context, workers: usize) -> verger_kopia::Result<up::Options> {
        if self.engine.state_dir.is_some() {
            let step = "--state-dir is of cycles without a coordinator";
            return Err(
                Error::new(ErrorKind::Usage, step).with_fix("Everything is kept under --data-dir here; leave it out")
            );
        }
        let believed = self.api.believed()?;
        let engine = EngineArgs { state_dir: Some(self.data_dir.join("work")), ..self.engine };
        Ok(up::Options {
            engine: Engine::resolve(engine, context.file.engine.clone())?,
            data_dir: self.data_dir,
            listen: self.api.listen,
            tls: self.api.tls(),
            believed,
            places: self.places.limits(workers),
            secrets: self.secrets,
            archive: self.archive,
            nats: self.nats.resolve()?,
            figures: up::Figures {
                spans: context.telemetry.as_ref().and_then(|telemetry| telemetry.spans().cloned()),
                prices: self.prices.prices(),
            },
        })
    }
}

/// Runs a service until a signal asks it to stop.
pub(super) fn run(
    output: Output,
    service: impl FnOnce(&Stop, &dyn Fn(&str)) -> verger_kopia::Result<()>,
) -> verger_kopia::Result<Exit> {
    let stop = Stop::default();
    signal::listen(stop.clone())?;
    service(&stop, &|text| output.note(text))?;
    Ok(Exit::Done)
}

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
    pub(super) fn believed(&self) -> verger_kopia::Result<Vec<Believed>> {
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
        // Not more than there are workers, here; those in processes of their own count for themselves.
        let mut limits = Limits { total, pool_default: u32::MAX, ..Limits::default() };
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

/// What calls to stores cost.
#[derive(Debug, clap::Args)]
pub(super) struct PriceArgs {
    /// Dollars for a thousand requests of each kind, and for a gigabyte that is read: `get=0.0004 put=0.005 list=0.005 delete=0
    /// egress=0.09`, for one bucket with its name before it (`s3://attic get=…`) [default: none, and no figure of costs]
    #[arg(long, value_name = "[BUCKET ]PRICES", env = "VERGER_PRICE", value_delimiter = ',', value_parser = price)]
    price: Vec<(Option<String>, Price)>,
}

impl PriceArgs {
    fn prices(self) -> Prices {
        let mut prices = Prices::default();
        self.price.into_iter().for_each(|(bucket, price)| prices.set(bucket, price));
        prices
    }
}

/// `get=0.0004 …`, or `s3://attic get=0.0004 …`.
fn price(text: &str) -> std::result::Result<(Option<String>, Price), String> {
    match text.trim().split_once(char::is_whitespace) {
        Some((bucket, rest)) if bucket.contains("://") => {
            Ok((Some(bucket.trim_end_matches('/').to_owned()), rest.parse()?))
        }
        _ => Ok((None, text.parse()?)),
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
    fn prices_are_for_all_or_for_one_by_name() {
        const ALL: &str = "get=0.0004 put=0.005 list=0.005 delete=0 egress=0.09";
        let one = price(&format!("s3://attic/ {ALL}")).unwrap();
        assert_eq!(one, (Some("s3://attic".to_owned()), ALL.parse().unwrap()));
        let args = PriceArgs { price: vec![one, price(&ALL.replace("0.09", "0")).unwrap()] };
        let prices = args.prices();
        assert_eq!(prices.of("s3://attic/kopia/"), Some(ALL.parse().unwrap()));
        assert_ne!(prices.of("s3://cellar/"), prices.of("s3://attic/"));
        for bad in ["", "s3://attic", "attic get=1 put=1 list=1 delete=1 egress=1", "get=1"] {
            assert!(price(bad).is_err(), "{bad}");
        }
    }

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
        assert_eq!((limits.total, limits.bucket_default, limits.pool_default), (8, 3, u32::MAX));
        assert_eq!((limits.buckets["s3://attic"], limits.pools["night"]), (1, 2));
    }
}
