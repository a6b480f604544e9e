//! `verger cluster`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};
use verger_kopia::{Error, ErrorKind, Result};

use super::{Coordinator, recover, text_of};
use crate::cli::Context;
use crate::exit::Exit;
use crate::output::Output;
use crate::up::cluster::folder::{self, Member};

const EXAMPLES: &str = "Examples:
  verger cluster init attic --data-dir /var/lib/verger --node-id 1
  verger cluster join --data-dir /var/lib/verger --node-id 2 --peer-address b.example:7421 --api-address http://b.example:7420
  verger cluster replace 2 --data-dir /var/lib/verger --node-id 4 --peer-address d.example:7421
  verger cluster status
  verger cluster remove 3
  verger cluster recover --data-dir /var/lib/verger               two of three are gone for good: what would be lost?

A coordinator's number is never used again: one that lost its disk comes back under a new one.";

/// Several coordinators that are one.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a data folder the first of a new cluster
    Init {
        /// The cluster's name
        name: String,
        #[command(flatten)]
        own: Own,
    },
    /// Who there is, who leads, who is behind
    Status {
        #[command(flatten)]
        coordinator: Coordinator,
    },
    /// Make a data folder one more of a cluster; it votes once it runs and has caught up
    Join {
        #[command(flatten)]
        newcomer: Newcomer,
    },
    /// Let a coordinator go
    Remove {
        /// Its number
        node: u64,
        #[command(flatten)]
        coordinator: Coordinator,
    },
    /// Make a cluster of one of what is left when a majority is gone for good; the coordinator must not run
    Recover {
        #[command(flatten)]
        survivor: recover::Args,
    },
    /// As join; another coordinator leaves in the moment in which this one votes
    Replace {
        /// Number of the one that leaves
        old: u64,
        #[command(flatten)]
        newcomer: Newcomer,
    },
}

#[derive(Debug, clap::Args)]
struct Own {
    /// Folder of the new coordinator, empty
    #[arg(long, value_name = "DIR", env = "VERGER_DATA_DIR")]
    data_dir: PathBuf,
    /// Its number: one that no coordinator of this cluster ever had
    #[arg(long, value_name = "N", env = "VERGER_NODE_ID", value_parser = clap::value_parser!(u64).range(1..))]
    node_id: u64,
}

#[derive(Debug, clap::Args)]
struct Newcomer {
    #[command(flatten)]
    own: Own,
    /// What other coordinators will call
    #[arg(long, value_name = "HOST:PORT", env = "VERGER_PEER_ADDRESS")]
    peer_address: String,
    /// What command lines will call
    #[arg(long, value_name = "URL", env = "VERGER_API_ADDRESS", default_value = "http://127.0.0.1:7420")]
    api_address: String,
    #[command(flatten)]
    coordinator: Coordinator,
}

pub(crate) fn run(context: &Context, args: Args) -> Result<Exit> {
    let output = context.output;
    match args.what {
        What::Init { name, own } => init(output, &name, &own)?,
        What::Status { coordinator } => {
            let status = coordinator.client()?.get("/v1/cluster")?;
            show(output, &status)?;
            trouble(&status)?;
        }
        What::Recover { survivor } => recover::run(output, &survivor)?,
        What::Join { newcomer } => join(output, &newcomer, None)?,
        What::Replace { old, newcomer } => join(output, &newcomer, Some(old))?,
        What::Remove { node, coordinator } => {
            let path = format!("/v1/cluster/members/{node}");
            show(output, &coordinator.client()?.send_document(&Method::DELETE, &path, &json!({}), None)?)?;
        }
    }
    Ok(Exit::Done)
}

fn init(output: Output, name: &str, own: &Own) -> Result<()> {
    refuse_taken(&own.data_dir)?;
    let member = Member::first(name, own.node_id)?;
    member.keep(&own.data_dir)?;
    output.note(format!("Start it: verger coordinator --data-dir {} ...", own.data_dir.display()));
    shown(output, &member)
}

fn refuse_taken(data: &Path) -> Result<()> {
    folder::read(data)?.map_or(Ok(()), |other| Err(folder::taken(data, &other)))
}

fn shown(output: Output, member: &Member) -> Result<()> {
    if output.json {
        let (cluster, fleet) = (member.cluster(), format!("verger@fleet-{}", member.fleet));
        return output.document(&json!({ "cluster": cluster, "fleet": fleet, "node": member.node }));
    }
    output.line(format!("coordinator {} of {} (verger@fleet-{})", member.node, member.name, member.fleet))
}

fn join(output: Output, newcomer: &Newcomer, replaces: Option<u64>) -> Result<()> {
    let (own, client) = (&newcomer.own, newcomer.coordinator.client()?);
    let status = client.get("/v1/cluster")?;
    let cluster = status["cluster"].as_str().unwrap_or_default();
    let (member, is_new) = match folder::read(&own.data_dir)? {
        // Asked before, and the answer was lost.
        Some(known) if known.node == own.node_id && known.cluster() == cluster && !known.first => (known, false),
        Some(other) => return Err(folder::taken(&own.data_dir, &other)),
        None => (Member::of(cluster, own.node_id)?, true),
    };
    member.keep(&own.data_dir)?;
    let body = json!({
        "node": member.node,
        "key": member.key,
        "peerAddress": newcomer.peer_address,
        "apiAddress": newcomer.api_address,
        "replaces": replaces,
    });
    let asked = client.send_document(&Method::POST, "/v1/cluster/members", &body, Some(&member.key));
    if let Err(error) = &asked
        && is_new
        && matches!(error.kind(), ErrorKind::PlanRefused | ErrorKind::Usage | ErrorKind::Permission)
    {
        // It did not become a member, and never will under this key.
        member.forget(&own.data_dir)?;
    }
    asked?;
    output.note(format!("Start it: verger coordinator --data-dir {} ...; it votes soon after", own.data_dir.display()));
    shown(output, &member)
}

fn show(output: Output, status: &Value) -> Result<()> {
    if output.json {
        return output.document(status);
    }
    output.line(format!("cluster {} term {}", text_of(status, "cluster"), text_of(status, "term")))?;
    let nodes = status["nodes"].as_array().into_iter().flatten();
    output.lines(nodes.map(|node| {
        let role = match (node["leader"].as_bool(), node["votes"].as_bool()) {
            (Some(true), _) => "leads",
            (_, Some(true)) => "votes",
            _ => "learns",
        };
        let behind = match node["behind"].as_u64() {
            None => "not known here".to_owned(),
            Some(0) => "up to date".to_owned(),
            Some(behind) => format!("{behind} entries behind"),
        };
        let (id, peer, api) = (text_of(node, "node"), text_of(node, "peerAddress"), text_of(node, "apiAddress"));
        format!("{id:<4} {role:<7} {peer:<24} {api:<30} {behind}")
    }))
}

fn trouble(status: &Value) -> Result<()> {
    match status["trouble"].as_str() {
        Some(trouble) => Err(Error::new(ErrorKind::StoreUnavailable, trouble).with_fix(
            "Start the coordinators that do not run; docs/operating/cluster.md has what to do without a majority",
        )),
        None => Ok(()),
    }
}
