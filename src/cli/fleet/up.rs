//! `verger up`.

use std::net::SocketAddr;
use std::path::PathBuf;

use verger_kopia::{Error, ErrorKind, Result};
use verger_worker::progress::Stop;

use crate::cli::Context;
use crate::config::archive::ArchiveArgs;
use crate::config::{Engine, EngineArgs};
use crate::exit::Exit;
use crate::{signal, up};

const EXAMPLES: &str = "Examples:
  verger up --data-dir /var/lib/verger                 look after repositories; the API is on 127.0.0.1:7420
  verger repo add photos filesystem:///srv/photos --password-env PHOTOS_PASSWORD --take-ownership
  verger cycle list photos

Ctrl-C parks what is under way at its next boundary; the next start goes on there. The command line of the same user finds its
token by itself.";

/// One process that does everything.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Folder of the ledger and of everything else that is kept
    #[arg(long, value_name = "DIR", env = "VERGER_DATA_DIR")]
    data_dir: PathBuf,
    /// Address of the API; loopback only
    #[arg(long, value_name = "HOST:PORT", env = "VERGER_LISTEN", default_value = "127.0.0.1:7420")]
    listen: SocketAddr,
    /// Cycles at once [default: one a core]
    #[arg(long, value_name = "N", env = "VERGER_WORKERS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
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
    let engine = EngineArgs { state_dir: Some(args.data_dir.join("work")), ..args.engine };
    let engine = Engine::resolve(engine, context.file.engine.clone())?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let options = up::Options {
        data_dir: args.data_dir,
        listen: args.listen,
        workers: args.workers.map_or(cores, usize::from),
        secrets: args.secrets,
        archive: args.archive,
        engine,
    };
    up::log::start(&args.log, args.log_json)?;
    let stop = Stop::default();
    signal::listen(stop.clone())?;
    let output = context.output;
    up::run(options, &stop, |text| output.note(text))?;
    Ok(Exit::Done)
}
