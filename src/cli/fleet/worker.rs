//! `verger worker`: be one, list them, drain them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::{Pool, WorkerId};
use verger_worker::limit::LIMIT_MIN;

use super::{Coordinator, escaped, service, text_of, token};
use crate::cli::Context;
use crate::config::exchange::ExchangeArgs;
use crate::config::nats::NatsArgs;
use crate::config::{Engine, EngineArgs};
use crate::exit::Exit;
use crate::output::Output;
use crate::worker;

const EXAMPLES: &str = "Examples:
  verger token create cellar --scope work --all-tenants > token   once, for the workers
  verger worker --addr https://verger.example:7420 --token-file token --secrets /run/secrets/verger \\
      --exchange s3://verger-exchange/attic/ --pool attic
  verger worker list
  verger worker drain cellar-1                           it finishes what it has and takes nothing new
  verger worker drain cellar-1 --undo

A worker keeps nothing: any number of them may come and go. Ctrl-C parks what is under way at its next boundary, or gives it back.
docs/operating/workers.md tells all.";

/// Do the work of coordinators elsewhere, or see who does.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    work: WorkArgs,
}

impl Args {
    /// Whether this process is to be a worker.
    pub(crate) fn works(&self) -> bool {
        self.what.is_none()
    }
}

#[derive(Debug, Subcommand)]
enum What {
    /// Workers that are there, or were lately
    List {
        #[command(flatten)]
        coordinator: Coordinator,
    },
    /// Give one nothing new; it finishes what it has
    Drain {
        /// Name of the worker
        name: String,
        /// Give it work again
        #[arg(long)]
        undo: bool,
        #[command(flatten)]
        coordinator: Coordinator,
    },
}

/// What a worker is.
#[derive(Debug, clap::Args)]
struct WorkArgs {
    #[command(flatten)]
    coordinator: Coordinator,
    /// Its name, another one for each worker [default: the host's, with a number made at random]
    #[arg(long, value_name = "NAME", env = "VERGER_WORKER_NAME")]
    name: Option<String>,
    /// Work on repositories of this pool (`verger repo add --pool`); several times for several [default: default]
    #[arg(long, value_name = "NAME", env = "VERGER_POOL", value_delimiter = ',')]
    pool: Vec<String>,
    /// What `verger worker list` shows of it, such as zone=cellar; chooses nothing, as pools do; several times for several
    #[arg(long, value_name = "KEY=VALUE", env = "VERGER_LABEL", value_delimiter = ',')]
    label: Vec<String>,
    /// Cycles and shards at once, which share --memory-limit [default: one a core, as far as memory goes]
    #[arg(long, value_name = "N", env = "VERGER_CONCURRENCY", value_parser = clap::value_parser!(u32).range(1..=1024))]
    concurrency: Option<u32>,
    /// Folder with secrets, a file each
    #[arg(long, value_name = "DIR", env = "VERGER_SECRETS")]
    secrets: Option<PathBuf>,
    /// Folder for what does not fit memory; emptied at the start [default: a private temporary one]
    #[arg(long, value_name = "DIR", env = "VERGER_CACHE_DIR")]
    cache_dir: Option<PathBuf>,
    /// Address for /healthz, /readyz and /metrics [default: none]
    #[arg(long, value_name = "HOST:PORT", env = "VERGER_WORKER_LISTEN")]
    listen: Option<SocketAddr>,
    /// How long what is under way may take to come to a boundary once the worker is to stop
    #[arg(long, value_name = "TIME", env = "VERGER_DRAIN_TIMEOUT", default_value = "150s", value_parser = token::seconds)]
    drain_timeout: u64,
    #[command(flatten)]
    exchange: ExchangeArgs,
    #[command(flatten)]
    nats: NatsArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

pub(crate) fn run(context: &Context, args: Args) -> Result<Exit> {
    match args.what {
        None => work(context, args.work),
        Some(What::List { coordinator }) => list(context.output, &coordinator),
        Some(What::Drain { name, undo, coordinator }) => {
            let path = format!("/v1/workers/{}/drain", escaped(&name));
            let answer = coordinator.client()?.send_document(&Method::POST, &path, &json!({ "drain": !undo }), None)?;
            if context.output.json {
                context.output.document(&answer)?;
            } else {
                let text = if undo { "gets work again" } else { "gets nothing new" };
                context.output.lines([format!("{name} {text}; it is {} now", text_of(&answer, "state"))])?;
            }
            Ok(Exit::Done)
        }
    }
}

fn list(output: Output, coordinator: &Coordinator) -> Result<Exit> {
    let all = coordinator.client()?.get("/v1/workers")?;
    if output.json {
        output.document(&all)?;
        return Ok(Exit::Done);
    }
    let rows = all.as_array().into_iter().flatten();
    output.lines(rows.flat_map(|one| {
        let unable = one["unable"].as_array().into_iter().flatten();
        let why =
            unable.map(|one| format!("    cannot open {}: {}", text_of(one, "repository"), text_of(one, "reason")));
        std::iter::once(row(one)).chain(why).collect::<Vec<_>>()
    }))?;
    Ok(Exit::Done)
}

/// One worker, with its labels if it has any.
fn row(one: &Value) -> String {
    let pools: Vec<&str> = one["pools"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let jobs = one["jobs"].as_array().map_or(0, Vec::len);
    let names = one["labels"].as_object().into_iter().flatten().map(|(name, _)| name);
    let labels: Vec<String> = names.map(|name| format!("{name}={}", text_of(&one["labels"], name))).collect();
    let labels = if labels.is_empty() { String::new() } else { format!(", labels {}", labels.join(",")) };
    format!(
        "{:<32} {:<9} pools {:<16} {jobs} of {} places, seen {}{labels}",
        text_of(one, "name"),
        text_of(one, "state"),
        pools.join(","),
        text_of(one, "places"),
        text_of(one, "seenAt")
    )
}

fn work(context: &Context, args: WorkArgs) -> Result<Exit> {
    if args.engine.state_dir.is_some() {
        let step = "--state-dir is of cycles without a coordinator, and a worker keeps nothing";
        return Err(Error::new(ErrorKind::Usage, step).with_fix("Say where it may put things aside: --cache-dir DIR"));
    }
    let temporary;
    let folder = match &args.cache_dir {
        Some(folder) => folder.clone(),
        None => {
            temporary = tempfile::Builder::new()
                .prefix("verger-worker-")
                .tempdir()
                .map_err(|error| Error::new(ErrorKind::Permission, "make a temporary folder").with_source(error))?;
            temporary.path().to_owned()
        }
    };
    let engine = EngineArgs { state_dir: Some(folder), ..args.engine };
    let engine = Engine::resolve(engine, context.file.engine.clone())?;
    let (places, memory_limit) = places(args.concurrency, engine.memory_limit)?;
    let options = worker::Options {
        client: args.coordinator.client()?,
        name: name(args.name)?,
        pools: pools(&args.pool)?,
        labels: labels(&args.label)?,
        places,
        secrets: args.secrets,
        shards: args.exchange.resolve()?,
        nats: args.nats.resolve()?,
        engine: Engine { memory_limit, ..engine },
        listen: args.listen,
        drain_timeout: Duration::from_secs(args.drain_timeout),
    };
    service::run(context.output, |stop, said| worker::run(options, stop, said))
}

/// How much at once, and how much memory each has of it.
fn places(wanted: Option<u32>, memory_limit: u64) -> Result<(u32, u64)> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
    let most = u32::try_from(memory_limit / LIMIT_MIN).unwrap_or(u32::MAX).max(1);
    let places = wanted.unwrap_or(cores.min(most));
    if places > most {
        let step = format!(
            "{places} cycles or shards at once would have {} MiB of --memory-limit each",
            (memory_limit / u64::from(places)) >> 20
        );
        let fix = format!("Give {}MiB for each, or do at most {most} at once: --concurrency", LIMIT_MIN >> 20);
        return Err(Error::new(ErrorKind::Usage, step).with_fix(fix));
    }
    Ok((places, memory_limit / u64::from(places)))
}

fn name(given: Option<String>) -> Result<WorkerId> {
    let made = || {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let host: String =
            host.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')).take(40).collect();
        format!("{host}-{:06x}", rand::Rng::random_range(&mut rand::rng(), 0..1u32 << 24))
    };
    let name = given.unwrap_or_else(made);
    let fits = name.len() <= 64 && !name.contains('/');
    WorkerId::new(name.clone()).ok().filter(|_| fits).ok_or_else(|| {
        Error::new(ErrorKind::Usage, format!("{name:?} is no name of a worker"))
            .with_fix("Give 1 to 64 printable characters without blanks and slashes: --name")
    })
}

fn pools(given: &[String]) -> Result<Vec<Pool>> {
    if given.is_empty() {
        return Ok(vec![Pool::default()]);
    }
    let read = |text: &String| {
        Pool::new(text).map_err(|error| Error::new(ErrorKind::Usage, format!("--pool {text:?}: {error}")))
    };
    given.iter().map(read).collect()
}

fn labels(given: &[String]) -> Result<BTreeMap<String, String>> {
    let read = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Error::new(ErrorKind::Usage, format!("--label {text:?} is not KEY=VALUE"))),
    };
    given.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_share_the_memory() {
        let mib = |n: u64| n << 20;
        assert_eq!(places(Some(2), mib(512)).unwrap(), (2, mib(256)));
        assert_eq!(places(Some(5), mib(480)).unwrap(), (5, mib(96)));
        assert_eq!(places(Some(6), mib(512)).unwrap_err().kind(), ErrorKind::Usage);
        assert_eq!(places(None, mib(100)).unwrap(), (1, mib(100)), "never more than memory bears");
    }

    #[test]
    fn labels_are_listed() {
        let mut one = json!({
            "name": "cellar-1", "state": "ready", "pools": ["attic", "cellar"], "labels": {}, "places": 2,
            "seenAt": "2026-11-21 14:10 UTC", "jobs": [{ "cycle": 1, "job": 2, "stage": "scan" }],
        });
        let plain = row(&one);
        assert!(plain.ends_with("pools attic,cellar     1 of 2 places, seen 2026-11-21 14:10 UTC"), "{plain}");
        one["labels"] = json!({ "rack": "7", "zone": "cellar" });
        assert_eq!(row(&one), format!("{plain}, labels rack=7,zone=cellar"));
    }

    #[test]
    fn names_pools_and_labels_that_cannot_be_are_refused() {
        assert!(name(None).is_ok());
        assert!(name(Some("cellar-1".to_owned())).is_ok());
        for bad in ["", "two words", "a/b", &"x".repeat(65)] {
            assert_eq!(name(Some(bad.to_owned())).unwrap_err().kind(), ErrorKind::Usage, "{bad}");
        }
        assert_eq!(pools(&[]).unwrap(), [Pool::default()]);
        assert!(pools(&["UPPER".to_owned()]).is_err());
        assert_eq!(labels(&["zone=cellar".to_owned()]).unwrap()["zone"], "cellar");
        assert!(labels(&["zone".to_owned()]).is_err());
    }
}
