//! `verger cluster`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};
use verger_coordinator::raft::network::clocks;
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::level::LEVEL;

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
    let level = status["level"].as_u64().unwrap_or(0);
    refuse_newer(level)?;
    let (member, is_new) = match folder::read(&own.data_dir)? {
        // Asked before, and the answer was lost.
        Some(known) if known.node == own.node_id && known.cluster() == cluster && !known.first => (known, false),
        Some(other) => return Err(folder::taken(&own.data_dir, &other)),
        None => (Member::of(cluster, own.node_id)?, true),
    };
    member.keep(&own.data_dir)?;
    let asked = ask(level, |says_level| {
        let mut body = json!({
            "node": member.node,
            "key": member.key,
            "peerAddress": newcomer.peer_address,
            "apiAddress": newcomer.api_address,
            "replaces": replaces,
        });
        if says_level {
            body["level"] = json!(LEVEL);
        }
        client.send_document(&Method::POST, "/v1/cluster/members", &body, Some(&member.key))
    });
    if let Err(error) = &asked
        && is_new
        && matches!(
            error.kind(),
            ErrorKind::PlanRefused | ErrorKind::Usage | ErrorKind::Permission | ErrorKind::Unsupported
        )
    {
        // It did not become a member, and never will under this key.
        member.forget(&own.data_dir)?;
    }
    asked?;
    output.note(format!("Start it: verger coordinator --data-dir {} ...; it votes soon after", own.data_dir.display()));
    shown(output, &member)
}

/// Without a level, whoever leads may be from before there were any, and not take one. A cluster that has just begun goes up from none
/// within a second, maybe between the look at it and this.
fn ask<T>(cluster: u64, post: impl Fn(bool) -> Result<T>) -> Result<T> {
    match post(cluster > 0) {
        Err(error) if cluster == 0 && error.kind() == ErrorKind::Unsupported => post(true),
        other => other,
    }
}

/// A coordinator whose program knows less than its cluster would not start: better not to let it in.
fn refuse_newer(cluster: u64) -> Result<()> {
    if cluster <= u64::from(LEVEL) {
        return Ok(());
    }
    let step = format!("this program knows level {LEVEL}, and the cluster is at level {cluster}");
    Err(Error::new(ErrorKind::Unsupported, step)
        .with_fix("Join with the program that the coordinators of this cluster run, or a newer one"))
}

fn show(output: Output, status: &Value) -> Result<()> {
    if output.json {
        return output.document(status);
    }
    let level = status["level"].as_u64();
    let told = level.map(|level| format!(" level {level}")).unwrap_or_default();
    output.line(format!("cluster {} term {}{told}", text_of(status, "cluster"), text_of(status, "term")))?;
    let nodes = status["nodes"].as_array().into_iter().flatten();
    output.lines(nodes.map(|node| {
        let role = match (node["leader"].as_bool(), node["votes"].as_bool()) {
            (Some(true), _) => "leads",
            (_, Some(true)) => "votes",
            _ => "learns",
        };
        let behind = behind(node["behind"].as_u64());
        let (id, peer, api) = (text_of(node, "node"), text_of(node, "peerAddress"), text_of(node, "apiAddress"));
        let clock = ahead(node).map(|clock| format!(", its clock is {clock}")).unwrap_or_default();
        let knows = knows(node, level);
        format!("{id:<4} {role:<7} {peer:<24} {api:<30} {behind}{clock}{knows}")
    }))
}

fn behind(entries: Option<u64>) -> String {
    match entries {
        None => "not known here".to_owned(),
        Some(0) => "up to date".to_owned(),
        Some(1) => "1 entry behind".to_owned(),
        Some(entries) => format!("{entries} entries behind"),
    }
}

/// What a coordinator's program knows, if that is not what the cluster goes by: who lags holds the others back.
fn knows(node: &Value, cluster: Option<u64>) -> String {
    match (node["level"].as_u64(), cluster) {
        (Some(level), Some(cluster)) if level != cluster => format!(", its program knows level {level}"),
        _ => String::new(),
    }
}

/// How far a clock is off, if it is by so much that people must know.
fn ahead(node: &Value) -> Option<String> {
    let ahead = node["clockAheadMs"].as_i64().filter(|ahead| clocks::is_off(*ahead))? / 1000;
    Some(format!("{} s {}", ahead.unsigned_abs(), if ahead > 0 { "ahead" } else { "behind" }))
}

fn trouble(status: &Value) -> Result<()> {
    if let Some(trouble) = status["trouble"].as_str() {
        return Err(Error::new(ErrorKind::StoreUnavailable, trouble).with_fix(
            "Start the coordinators that do not run; docs/operating/cluster.md has what to do without a majority",
        ));
    }
    let nodes = status["nodes"].as_array().into_iter().flatten();
    let off = nodes.filter_map(|node| Some(format!("that of coordinator {} is {}", node["node"], ahead(node)?)));
    let off: Vec<String> = off.collect();
    if off.is_empty() {
        return Ok(());
    }
    let step = format!("clocks differ: seen from coordinator {}, {}", status["node"], off.join(", "));
    Err(Error::new(ErrorKind::Clock, step)
        .with_fix("Set the one that is wrong (NTP): the leader's says when things are due"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_entry_behind_is_no_entries() {
        let said = [Some(0), Some(1), Some(2), None].map(behind);
        assert_eq!(said, ["up to date", "1 entry behind", "2 entries behind", "not known here"]);
    }

    #[test]
    fn clocks_that_differ_by_more_than_five_minutes_are_trouble_with_a_code_of_its_own() {
        let status = |ahead: [i64; 2]| {
            let node = |id: u64, ahead: i64| json!({ "node": id, "clockAheadMs": ahead });
            json!({ "node": 1, "nodes": [{ "node": 1 }, node(2, ahead[0]), node(3, ahead[1])] })
        };
        assert!(trouble(&status([300_000, -300_000])).is_ok());
        let error = trouble(&status([-420_500, 600_000])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Clock);
        let said = error.to_string();
        assert!(said.contains("coordinator 2 is 420 s behind") && said.contains("3 is 600 s ahead"), "{said}");
        let mut alone = status([600_000, 0]);
        alone["trouble"] = json!("nobody leads now");
        assert_eq!(trouble(&alone).unwrap_err().kind(), ErrorKind::StoreUnavailable, "the worse one is said");
    }

    #[test]
    fn a_level_is_said_where_it_is_understood_and_where_it_was_raised_meanwhile() {
        let old = |says_level: bool| match says_level {
            true => Err(Error::new(ErrorKind::Usage, "unknown field `level`")),
            false => Ok("admitted"),
        };
        let raised = |says_level: bool| match says_level {
            true => Ok("admitted"),
            false => Err(Error::new(ErrorKind::Unsupported, "the program that asks knows level 0")),
        };
        assert_eq!(ask(0, old).unwrap(), "admitted");
        assert_eq!(ask(1, raised).unwrap(), "admitted");
        assert_eq!(ask(0, raised).unwrap(), "admitted", "between the look and the question");
        let refused = |_| Err::<(), _>(Error::new(ErrorKind::Unsupported, "this program knows too little"));
        assert_eq!(ask(0, refused).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn a_cluster_that_knows_more_is_not_joined_and_who_lags_is_named() {
        assert!(refuse_newer(0).is_ok() && refuse_newer(LEVEL.into()).is_ok());
        let error = refuse_newer(u64::from(LEVEL) + 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains(&format!("level {LEVEL}")) && error.fix().is_some(), "{error}");
        assert_eq!(knows(&json!({ "level": 2 }), Some(1)), ", its program knows level 2");
        for same in [json!({ "level": 1 }), json!({})] {
            assert_eq!(knows(&same, Some(1)), "");
        }
        assert_eq!(knows(&json!({ "level": 1 }), None), "", "whoever answers is from before there were levels");
    }
}
