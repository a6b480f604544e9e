//! `verger cycle`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use clap::Subcommand;
use rand::Rng as _;
use reqwest::Method;
use serde_json::{Value, json};
use verger_kopia::{Error, ErrorKind, Result};

use super::{Coordinator, escaped, text_of};
use crate::cli::Context;
use crate::client::{Client, kind_of};
use crate::config::SafetyLevel;
use crate::exit::Exit;
use crate::output::{self, Output};
use crate::progress::Progress;

/// How often a cycle that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const LOOK_FIRST: Duration = Duration::from_millis(20);
/// How long the report of a cycle that ended is waited for.
const REPORT_PATIENCE: Duration = Duration::from_secs(5);
/// How long nobody may be able to begin a cycle before it is not waited for any more: a coordinator whose own places are taken may be.
const SHUT_OUT_PATIENCE: Duration = Duration::from_secs(5);

const EXAMPLES: &str = "Examples:
  verger cycle start photos --full --wait                            a full cycle now; exit codes as `verger maintain`
  verger cycle start photos --full --safety none --i-am-alone --allow-removing 100 --wait
  verger cycle list photos --json
  verger cycle show 12
  verger cycle pause 12; verger cycle resume 12; verger cycle abort 12";

/// Cycles of maintenance.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Ask for a cycle now: joins an open one with equal options, and queues behind one with others
    Start(StartArgs),
    /// Cycles, the newest first
    List {
        /// Name of a repository
        name: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
        #[command(flatten)]
        coordinator: Coordinator,
    },
    /// One cycle: stage, plan, outcome
    Show(NumberArgs),
    /// Follow one until it ends
    Watch(NumberArgs),
    /// Stop at the next batch boundary and stay so
    Pause(NumberArgs),
    /// Go on with a paused one
    Resume(NumberArgs),
    /// Give one up; what it did stays, its repository stays due
    Abort(NumberArgs),
}

#[derive(Debug, clap::Args)]
struct NumberArgs {
    /// Number of the cycle
    cycle: u64,
    #[command(flatten)]
    coordinator: Coordinator,
}

#[derive(Debug, clap::Args)]
struct StartArgs {
    /// Name of the repository
    name: String,
    /// A full cycle: snapshot GC, drop, rewrite, delete, index, logs
    #[arg(long, group = "mode")]
    full: bool,
    /// A quick cycle: index work; with the legacy index also metadata packs and logs
    #[arg(long, group = "mode")]
    quick: bool,
    /// An index cycle: what a quick one does to the index, and nothing else
    #[arg(long, group = "mode")]
    index: bool,
    /// Margins [default: full]
    #[arg(long, value_enum, value_name = "LEVEL")]
    safety: Option<SafetyLevel>,
    /// No other client is at work, now or asleep: needed for --safety none
    #[arg(long)]
    i_am_alone: bool,
    /// Let this plan remove up to this share of the packed bytes [default: 50]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    allow_removing: Option<u8>,
    /// Plan only
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Wait for its end
    #[arg(long)]
    wait: bool,
    /// The same key again is the same wish [default: a new one]
    #[arg(long, value_name = "TEXT")]
    key: Option<String>,
    #[command(flatten)]
    coordinator: Coordinator,
}

pub(crate) fn run(context: &Context, args: Args) -> Result<Exit> {
    let output = context.output;
    match args.what {
        What::Start(args) => return start(output, &args),
        What::List { name, limit, coordinator } => list(output, &coordinator, name.as_deref(), limit),
        What::Show(args) => show(output, &args.coordinator.client()?.get(&format!("/v1/cycles/{}", args.cycle))?),
        What::Watch(args) => {
            let client = args.coordinator.client()?;
            let ended = wait_for_cycle(&client, args.cycle, output)?;
            return conclude(output, &ended);
        }
        What::Pause(args) => tell(output, &args, "pause"),
        What::Resume(args) => tell(output, &args, "resume"),
        What::Abort(args) => tell(output, &args, "abort"),
    }
    .map(|()| Exit::Done)
}

fn start(output: Output, args: &StartArgs) -> Result<Exit> {
    let none = args.safety == Some(SafetyLevel::None);
    let mut wanted = json!({
        "mode": if args.quick { "quick" } else if args.index { "index" } else { "full" },
        "safety": if none { "none" } else { "full" },
        "iAmAlone": args.i_am_alone,
        "dryRun": args.dry_run,
    });
    if let Some(percent) = args.allow_removing {
        wanted["allowRemoving"] = json!(percent);
    }
    let key = args.key.clone().unwrap_or_else(|| format!("{:032x}", rand::rng().random::<u128>()));
    let client = args.coordinator.client()?;
    let name = escaped(&args.name);
    let path = format!("/v1/repositories/{name}/cycles");
    let asked = client.send_document(&Method::POST, &path, &wanted, Some(&key))?;
    if let Some(behind) = asked["behind"].as_u64() {
        output.note(format!("cycle {behind} is open with other options; this one comes after it"));
    }
    if !args.wait {
        return if output.json { output.document(&asked) } else { output.line(format!("asked for: {key}")) }
            .map(|()| Exit::Done);
    }
    let cycle = wait_for_answer(&client, &name, &key, output)?;
    let ended = wait_for_cycle(&client, cycle, output)?;
    conclude(output, &ended)
}

/// Waits between looks: hardly at first, so that what is quickly done is quickly told, and longer each time.
#[derive(Default)]
struct Looks(Duration);

impl Looks {
    fn wait(&mut self) {
        self.0 = (self.0 * 5 / 4).clamp(LOOK_FIRST, LOOK_EVERY);
        std::thread::sleep(self.0);
    }
}

/// The cycle that a wish became. Who cannot begin it is told meanwhile; when that is everybody who is there, it is not waited for: they
/// try again when somebody has put it right, which may be never.
fn wait_for_answer(client: &Client, name: &str, key: &str, output: Output) -> Result<u64> {
    let path = format!("/v1/repositories/{name}/requests/{}", escaped(key));
    let (mut looks, mut told, mut shut_out) = (Looks::default(), BTreeSet::new(), None);
    loop {
        let found = client.get(&path)?;
        for one in found["unable"].as_array().into_iter().flatten() {
            let (worker, reason) = (text_of(one, "worker"), text_of(one, "reason"));
            if told.insert((worker.clone(), reason.clone())) {
                output.note(format!("{worker} leaves it to others: {reason}"));
            }
        }
        let since = (!found["shutOut"].is_null()).then(|| *shut_out.get_or_insert_with(Instant::now));
        shut_out = since;
        if since.is_some_and(|since| since.elapsed() > SHUT_OUT_PATIENCE) {
            let fix = format!(
                "Put it right there and start that worker again, or start one that can: the cycle is still wished for \
                 (--key {key} waits for it again) and begins by itself; see `verger repo show`"
            );
            return Err(failure_of(&found["shutOut"]).with_fix(fix));
        }
        match found["state"].as_str() {
            Some("cycle") => {
                let missing = || Error::new(ErrorKind::Internal, "an answer without its cycle");
                return found["cycle"].as_u64().ok_or_else(missing);
            }
            Some("dropped") => return Err(failure_of(&found["failure"])),
            _ => looks.wait(),
        }
    }
}

fn wait_for_cycle(client: &Client, cycle: u64, output: Output) -> Result<Value> {
    let (mut stage, mut ended, mut looks) = (String::new(), None, Looks::default());
    let (bars, mut was_paused) = (Progress::new(output), false);
    loop {
        let mut found = client.get(&format!("/v1/cycles/{cycle}"))?;
        if !found["end"].is_null() {
            // The report comes right after the end; never, if its worker was killed in between.
            let since = *ended.get_or_insert_with(Instant::now);
            let is_late = since.elapsed() > REPORT_PATIENCE;
            if found["report"].is_null() && !has_no_report(&found["end"]) && is_late {
                found["report"] = without_worker(&found);
            }
            if !found["report"].is_null() || has_no_report(&found["end"]) {
                bars.finish();
                return Ok(found);
            }
        }
        let is_paused = found["paused"].as_bool() == Some(true);
        if is_paused && !was_paused {
            bars.note(&format!("cycle {cycle} is paused; verger cycle resume {cycle} lets it go on"));
        }
        was_paused = is_paused;
        let now = text_of(&found, "stage");
        if now != stage {
            bars.note(&format!("cycle {cycle}: {now}"));
            stage = now;
        }
        let progress = &found["progress"];
        if let (Some(done), Some(total)) = (progress["done"].as_u64(), progress["total"].as_u64()) {
            bars.update(&stage, done, total, progress["unit"].as_str().unwrap_or_default());
        }
        looks.wait();
    }
}

/// What the ledger says of a cycle whose worker was gone before it told what it did.
fn without_worker(cycle: &Value) -> Value {
    json!({
        "outcome": cycle["end"]["outcome"], "mode": cycle["mode"], "cycle": cycle["id"], "started": cycle["openedAt"],
        "ended": cycle["endedAt"], "tasks": {}, "damage": [], "freedBytes": cycle["freedBytes"],
        "note": "its worker was gone before it told more; `verger events --cycle` has all",
    })
}

/// A cycle that failed or was given up has no report.
fn has_no_report(end: &Value) -> bool {
    !matches!(end["outcome"].as_str(), Some("done" | "degraded" | "planned"))
}

fn failure_of(failure: &Value) -> Error {
    let kind = failure["error"].as_str().and_then(kind_of).unwrap_or(ErrorKind::Internal);
    Error::new(kind, failure["message"].as_str().unwrap_or("the cycle could not begin"))
}

/// Prints the report, as `verger maintain` does, and ends with its code.
fn conclude(output: Output, ended: &Value) -> Result<Exit> {
    let end = &ended["end"];
    if !ended["report"].is_null() {
        if output.json {
            output.document(&ended["report"])?;
        } else {
            show_report(output, ended)?;
        }
        let degraded = ended["report"]["outcome"] == "degraded";
        if degraded {
            let step = "degraded: something cannot be read; what was still safe is done";
            output::failure(
                &Error::damaged(step).with_fix("See the damage list; `verger verify` shows what it touches"),
            );
        }
        return Ok(if degraded { Exit::Degraded } else { Exit::Done });
    }
    if !end["failure"].is_null() {
        return Err(failure_of(&end["failure"]));
    }
    Err(Error::new(ErrorKind::Interrupted, format!("the cycle was given up: {}", text_of(end, "message"))))
}

fn show_report(output: Output, cycle: &Value) -> Result<()> {
    let report = &cycle["report"];
    let mut lines = vec![format!("cycle {}: {}", text_of(cycle, "id"), text_of(report, "outcome"))];
    let tasks = report["tasks"].as_object().into_iter().flatten();
    lines.extend(tasks.map(|(task, data)| format!("  {task:<32} {data}")));
    lines.push(format!("  freed {} bytes", text_of(report, "freedBytes")));
    output.lines(lines)
}

fn list(output: Output, coordinator: &Coordinator, name: Option<&str>, limit: u32) -> Result<()> {
    let repository = name.map(|name| format!("&repository={}", escaped(name))).unwrap_or_default();
    let all = coordinator.client()?.get(&format!("/v1/cycles?limit={limit}{repository}"))?;
    if output.json {
        return output.document(&all);
    }
    let rows = all.as_array().into_iter().flatten();
    output.lines(rows.map(|one| {
        let state = if one["end"].is_null() {
            format!("at {}", text_of(one, "stage"))
        } else {
            text_of(&one["end"], "outcome")
        };
        let (id, mode, opened) = (text_of(one, "id"), text_of(one, "mode"), text_of(one, "openedAt"));
        format!("{id:>6}  {:<24} {mode:<6} {opened:<24} {state}", text_of(one, "repository"))
    }))
}

fn show(output: Output, cycle: &Value) -> Result<()> {
    if output.json || cycle["report"].is_null() {
        return output.document(cycle);
    }
    show_report(output, cycle)
}

fn tell(output: Output, args: &NumberArgs, what: &str) -> Result<()> {
    let path = format!("/v1/cycles/{}/{what}", args.cycle);
    let answer = args.coordinator.client()?.send_document(&Method::POST, &path, &json!({}), None)?;
    if output.json { output.document(&answer) } else { Ok(()) }
}
