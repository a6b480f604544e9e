//! `verger up`.

use std::path::PathBuf;

use verger_kopia::{Error, ErrorKind, Result};
use verger_worker::progress::Stop;

use super::service::{ApiArgs, PlacesArgs};
use crate::cli::Context;
use crate::config::archive::ArchiveArgs;
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
    #[command(flatten)]
    api: ApiArgs,
    /// Cycles at once [default: one a core]
    #[arg(long, value_name = "N", env = "VERGER_WORKERS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    #[command(flatten)]
    places: PlacesArgs,
    /// Folder with secrets, a file each
    #[arg(long, value_name = "DIR", env = "VERGER_SECRETS")]
    secrets: Option<PathBuf>,
    #[command(flatten)]
    archive: ArchiveArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

pub(crate) fn run(context: &Context, args: Args) -> Result<Exit> {
    if args.engine.state_dir.is_some() {
        let step = "--state-dir is of cycles without a coordinator";
        return Err(
            Error::new(ErrorKind::Usage, step).with_fix("Everything is kept under --data-dir here; leave it out")
        );
    }
    let believed = args.api.believed()?;
    let engine = EngineArgs { state_dir: Some(args.data_dir.join("work")), ..args.engine };
    let engine = Engine::resolve(engine, context.file.engine.clone())?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let options = up::Options {
        data_dir: args.data_dir,
        listen: args.api.listen,
        places: args.places.limits(args.workers.map_or(cores, usize::from)),
        tls: args.api.tls(),
        believed,
        secrets: args.secrets,
        archive: args.archive,
        engine,
        spans: context.telemetry.as_ref().and_then(|telemetry| telemetry.spans().cloned()),
    };
    let stop = Stop::default();
    signal::listen(stop.clone())?;
    let output = context.output;
    up::run(options, &stop, |text| output.note(text))?;
    Ok(Exit::Done)
}
