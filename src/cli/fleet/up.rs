//! `verger up`.

use std::net::SocketAddr;
use std::path::PathBuf;

use verger_coordinator::api::TlsFiles;
use verger_coordinator::schedule::Limits;
use verger_kopia::{Error, ErrorKind, Result};
use verger_worker::progress::Stop;

use crate::cli::Context;
use crate::config::{Engine, EngineArgs};
use crate::exit::Exit;
use crate::{signal, up};

const EXAMPLES: &str = "Examples:
  verger up --data-dir /var/lib/verger                 look after repositories; the API is on 127.0.0.1:7420
  verger repo add photos filesystem:///srv/photos --password-env PHOTOS_PASSWORD --take-ownership
  verger cycle list photos
  verger up --data-dir /var/lib/verger --listen 0.0.0.0:7420 --tls-cert tls.crt --tls-key tls.key

Ctrl-C parks what is under way at its next boundary; the next start goes on there. The command line of the same user finds its
token by itself.";

/// One process that does everything.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Folder of the ledger and of everything else that is kept
    #[arg(long, value_name = "DIR", env = "VERGER_DATA_DIR")]
    data_dir: PathBuf,
    /// Address of the API; loopback only without TLS
    #[arg(long, value_name = "HOST:PORT", env = "VERGER_LISTEN", default_value = "127.0.0.1:7420")]
    listen: SocketAddr,
    /// Certificate of the API, with those between it and its authority (PEM); read again when it changes
    #[arg(long, value_name = "FILE", env = "VERGER_TLS_CERT", requires = "tls_key", help_heading = "TLS")]
    tls_cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", env = "VERGER_TLS_KEY", requires = "tls_cert", help_heading = "TLS")]
    tls_key: Option<PathBuf>,
    /// Authorities that certificates of clients must come from (PEM) [default: clients need none]
    #[arg(long, value_name = "FILE", env = "VERGER_TLS_CLIENT_CA", requires = "tls_cert", help_heading = "TLS")]
    tls_client_ca: Option<PathBuf>,
    /// Cycles at once [default: one a core]
    #[arg(long, value_name = "N", env = "VERGER_WORKERS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Cycles at once in a bucket: `N` for each that is not named, or `BUCKET=N` such as `s3://attic=2` [default: 4]
    #[arg(long, value_name = "[BUCKET=]N", env = "VERGER_BUCKET_CYCLES", value_delimiter = ',', value_parser = places)]
    bucket_cycles: Vec<(Option<String>, u32)>,
    /// Cycles at once of a pool: `N` for each that is not named, or `POOL=N` [default: as many as workers]
    #[arg(long, value_name = "[POOL=]N", env = "VERGER_POOL_CYCLES", value_delimiter = ',', value_parser = places)]
    pool_cycles: Vec<(Option<String>, u32)>,
    /// Folder with secrets, a file each
    #[arg(long, value_name = "DIR", env = "VERGER_SECRETS")]
    secrets: Option<PathBuf>,
    /// What is logged: a level, or a filter by module
    #[arg(long, value_name = "FILTER", env = "VERGER_LOG", default_value = up::log::DEFAULT, help_heading = "Log")]
    log: String,
    /// Log as JSON, one object a line
    #[arg(long, env = "VERGER_LOG_JSON", help_heading = "Log",
        value_parser = clap::builder::BoolishValueParser::new(),
        num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        hide_default_value = true, hide_possible_values = true)]
    log_json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

pub(crate) fn run(context: &Context, args: Args) -> verger_kopia::Result<Exit> {
    if args.engine.state_dir.is_some() {
        let step = "--state-dir is of cycles without a coordinator";
        return Err(
            Error::new(ErrorKind::Usage, step).with_fix("Everything is kept under --data-dir here; leave it out")
        );
    }
    let engine = EngineArgs { state_dir: Some(args.data_dir.join("work")), ..args.engine };
    let engine = Engine::resolve(engine, context.file.engine.clone())?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let options = up::Options {
        data_dir: args.data_dir,
        listen: args.listen,
        places: limits(args.workers.map_or(cores, usize::from), args.bucket_cycles, args.pool_cycles),
        tls: args.tls_cert.zip(args.tls_key).map(|(certificate, key)| TlsFiles {
            certificate,
            key,
            client_authority: args.tls_client_ca,
        }),
        secrets: args.secrets,
        engine,
    };
    up::log::start(&args.log, args.log_json)?;
    let stop = Stop::default();
    signal::listen(stop.clone())?;
    let output = context.output;
    up::run(options, &stop, |text| output.note(text))?;
    Ok(Exit::Done)
}

/// `4`, or `s3://attic=2`.
fn places(text: &str) -> Result<(Option<String>, u32), String> {
    let (name, number) = match text.rsplit_once('=') {
        Some((name, number)) => (Some(name.trim().trim_end_matches('/').to_owned()), number),
        None => (None, text),
    };
    match number.trim().parse() {
        Ok(number) if number > 0 && name.as_ref().is_none_or(|name| !name.is_empty()) => Ok((name, number)),
        _ => Err(format!("{text:?} is not a number from 1 on, nor a name with one such as s3://attic=2")),
    }
}

fn limits(workers: usize, buckets: Vec<(Option<String>, u32)>, pools: Vec<(Option<String>, u32)>) -> Limits {
    let total = u32::try_from(workers).unwrap_or(u32::MAX);
    let mut limits = Limits { total, pool_default: total, ..Limits::default() };
    for (name, number) in buckets {
        match name {
            Some(name) => drop(limits.buckets.insert(name, number)),
            None => limits.bucket_default = number,
        }
    }
    for (name, number) in pools {
        match name {
            Some(name) => drop(limits.pools.insert(name, number)),
            None => limits.pool_default = number,
        }
    }
    limits
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
        let limits =
            limits(8, vec![(None, 3), (Some("s3://attic".to_owned()), 1)], vec![(Some("night".to_owned()), 2)]);
        assert_eq!((limits.total, limits.bucket_default, limits.pool_default), (8, 3, 8));
        assert_eq!((limits.buckets["s3://attic"], limits.pools["night"]), (1, 2));
    }
}
