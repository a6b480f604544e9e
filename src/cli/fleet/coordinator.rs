//! `verger coordinator`.

use std::net::SocketAddr;
use std::path::PathBuf;

use verger_coordinator::raft::network::http::PeerFiles;
use verger_kopia::{Error, ErrorKind, Result};
use verger_worker::progress::Stop;

use super::service::{ApiArgs, PlacesArgs};
use crate::cli::Context;
use crate::config::archive::ArchiveArgs;
use crate::config::{Engine, EngineArgs};
use crate::exit::Exit;
use crate::{signal, up};

const EXAMPLES: &str = "Examples:
  verger cluster init attic --data-dir /var/lib/verger --node-id 1
  verger coordinator --data-dir /var/lib/verger --peer-listen 10.0.0.1:7421 --peer-address a.example:7421 \\
      --peer-cert a.pem --peer-key a.key --peer-ca ca.pem --workers 2
  verger cluster status

Ctrl-C parks what is under way at its next boundary and hands the lead over. docs/operating/cluster.md tells all.";

/// One of three or five.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// This coordinator's number, to be checked against what the data folder says
    #[arg(long, value_name = "N", env = "VERGER_NODE_ID", value_parser = clap::value_parser!(u64).range(1..))]
    node_id: Option<u64>,
    /// Folder of the ledger and of everything else that is kept
    #[arg(long, value_name = "DIR", env = "VERGER_DATA_DIR")]
    data_dir: PathBuf,
    #[command(flatten)]
    api: ApiArgs,
    /// What command lines call for the API [default: http:// and --listen]
    #[arg(long, value_name = "URL", env = "VERGER_API_ADDRESS")]
    api_address: Option<String>,
    /// Address for other coordinators
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "VERGER_PEER_LISTEN",
        default_value = "127.0.0.1:7421",
        help_heading = "Peers"
    )]
    peer_listen: SocketAddr,
    /// What other coordinators call [default: --peer-listen]
    #[arg(long, value_name = "HOST:PORT", env = "VERGER_PEER_ADDRESS", help_heading = "Peers")]
    peer_address: Option<String>,
    /// This coordinator's certificate, PEM: for the host in --peer-address, or for node-N
    #[arg(long, value_name = "FILE", env = "VERGER_PEER_CERT", requires_all = ["peer_key", "peer_ca"], help_heading = "Peers")]
    peer_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", env = "VERGER_PEER_KEY", requires = "peer_cert", help_heading = "Peers")]
    peer_key: Option<PathBuf>,
    /// Certificate of the authority that signs for coordinators, and for nobody else, PEM
    #[arg(long, value_name = "FILE", env = "VERGER_PEER_CA", requires = "peer_cert", help_heading = "Peers")]
    peer_ca: Option<PathBuf>,
    /// No TLS between coordinators: on loopback only, for trying out
    #[arg(long, env = "VERGER_INSECURE_PEERS", conflicts_with = "peer_cert", help_heading = "Peers",
        value_parser = clap::builder::BoolishValueParser::new(),
        num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        hide_default_value = true, hide_possible_values = true)]
    insecure_peers: bool,
    /// Cycles at once in this process
    #[arg(long, value_name = "N", env = "VERGER_WORKERS", default_value = "0",
        value_parser = clap::value_parser!(u16).range(0..=1024))]
    workers: u16,
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
    let peers = match (args.peer_cert, args.peer_key, args.peer_ca) {
        (Some(certificate), Some(key), Some(authority)) => Some(PeerFiles { certificate, key, authority }),
        _ if args.insecure_peers => None,
        _ => {
            let step = "coordinators know each other by certificates, and none is given";
            return Err(Error::new(ErrorKind::Usage, step)
                .with_fix("Give --peer-cert, --peer-key and --peer-ca; or, to try out, --insecure-peers on loopback"));
        }
    };
    let believed = args.api.believed()?;
    let engine = EngineArgs { state_dir: Some(args.data_dir.join("work")), ..args.engine };
    let engine = Engine::resolve(engine, context.file.engine.clone())?;
    let options = up::cluster::Options {
        node: args.node_id,
        data_dir: args.data_dir,
        listen: args.api.listen,
        tls: args.api.tls(),
        believed,
        api_address: args.api_address,
        peer_listen: args.peer_listen,
        peer_address: args.peer_address,
        peers,
        places: args.places.limits(usize::from(args.workers)),
        secrets: args.secrets,
        archive: args.archive,
        engine,
        spans: context.telemetry.as_ref().and_then(|telemetry| telemetry.spans().cloned()),
    };
    let stop = Stop::default();
    signal::listen(stop.clone())?;
    let output = context.output;
    up::cluster::run(options, &stop, |text| output.note(text))?;
    Ok(Exit::Done)
}
