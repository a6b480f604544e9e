//! `verger up`.

use verger_kopia::Result;

use super::service::{self, ServiceArgs};
use crate::cli::Context;
use crate::exit::Exit;
use crate::up;

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
    #[command(flatten)]
    service: ServiceArgs,
    /// Cycles at once [default: one a core]
    #[arg(long, value_name = "N", env = "VERGER_WORKERS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
}

pub(crate) fn run(context: &Context, args: Args) -> Result<Exit> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let options = args.service.options(context, args.workers.map_or(cores, usize::from))?;
    service::run(context.output, |stop, said| up::run(options, stop, said))
}
