//! `verger events`.

use std::io::BufRead as _;

use serde_json::Value;
use verger_kopia::{Error, ErrorKind, Result};

use super::{Coordinator, escaped, text_of};
use crate::cli::Context;
use crate::exit::Exit;

const EXAMPLES: &str = "Examples:
  verger events --repo photos --json                 one object a line
  verger events --cycle 12
  verger events --since 2026-11-01T00:00:00Z --follow
  verger events --blob p0c1f…-s1a2b…                 which cycle, plan, term, worker and rule did what to this blob or content";

/// What happened.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Of this repository
    #[arg(long, value_name = "NAME")]
    repo: Option<String>,
    /// Of this cycle
    #[arg(long, value_name = "N")]
    cycle: Option<u64>,
    /// Not before this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Go on with what happens from now on
    #[arg(long, short)]
    follow: bool,
    /// What was done to this blob or content, as the evidence has it, here and in the archive
    #[arg(long, value_name = "ID", conflicts_with_all = ["cycle", "since", "follow"])]
    blob: Option<String>,
    #[command(flatten)]
    coordinator: Coordinator,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit> {
    if let Some(name) = &args.blob {
        return deeds(context, args, name);
    }
    let mut query: Vec<String> = Vec::new();
    let mut add =
        |name: &str, value: Option<String>| query.extend(value.map(|value| format!("{name}={}", escaped(&value))));
    add("repository", args.repo.clone());
    add("cycle", args.cycle.map(|cycle| cycle.to_string()));
    add("since", args.since.clone());
    let path = format!("/v1/events?{}", query.join("&"));
    let accept = if args.follow { "text/event-stream" } else { "application/x-ndjson" };
    let lines = args.coordinator.client()?.stream(&path, accept)?;
    for line in lines.lines() {
        let line = line.map_err(|error| {
            Error::new(ErrorKind::StoreUnavailable, "the coordinator stopped in the middle of its answer")
                .with_source(error)
        })?;
        // Server-sent events name their data; what else they say is for browsers.
        let text = if args.follow { line.strip_prefix("data:").map(str::trim_start) } else { Some(line.as_str()) };
        let Some(text) = text.filter(|text| !text.is_empty()) else { continue };
        let text = if context.output.json { text.to_owned() } else { plain(text) };
        if !context.output.next_line(text)? {
            break;
        }
    }
    Ok(Exit::Done)
}

/// Which cycle, plan, term, worker and rule: an object a line.
fn deeds(context: &Context, args: &Args, name: &str) -> Result<Exit> {
    let repository = args.repo.as_ref().map(|name| format!("&repository={}", escaped(name))).unwrap_or_default();
    let found = args.coordinator.client()?.get(&format!("/v1/deeds?name={}{repository}", escaped(name)))?;
    let deeds = found["deeds"].as_array().map(Vec::as_slice).unwrap_or_default();
    for deed in deeds {
        if context.output.json {
            context.output.line(deed.to_string())?;
        } else {
            context.output.line(deed_line(deed))?;
        }
    }
    if found["elsewhere"].as_bool() == Some(true) {
        context.output.note(
            "this coordinator knows the evidence of cycles that it drove itself: ask the others as well, or give all \
                             of them one --ledger-archive",
        );
    }
    if let Some(first) = found["unread"].as_array().and_then(|all| all.first()).and_then(Value::as_str) {
        return Err(Error::new(
            ErrorKind::StoreUnavailable,
            format!("some evidence could not be read, so there may be more: {first}"),
        )
        .with_fix("Try again when the archive can be reached; docs/operating/ledger.md says what else helps"));
    }
    if deeds.is_empty() {
        context.output.note(format!("nothing was done to {name}, as far back as the evidence goes"));
    }
    Ok(Exit::Done)
}

fn deed_line(deed: &Value) -> String {
    let at = if deed["endedAt"].is_string() { "endedAt" } else { "approvedAt" };
    let of = |name: &str| text_of(deed, name);
    format!(
        "{} {} {}: {} of cycle {} by the rule {}, plan {}, term {}, worker {}",
        of(at),
        of("repository"),
        of("outcome"),
        of("stage"),
        of("cycle"),
        of("rule"),
        of("plan"),
        of("term"),
        of("worker")
    )
}

/// Time, kind and whatever else is short.
fn plain(text: &str) -> String {
    let Ok(event) = serde_json::from_str::<serde_json::Value>(text) else { return text.to_owned() };
    let of =
        ["cycle", "stage", "term", "outcome"].iter().filter(|name| event[**name].is_string() || event[**name].is_u64());
    let of: Vec<String> = of.map(|name| format!("{name} {}", text_of(&event, name))).collect();
    format!("{} {:<20} {}", text_of(&event, "at"), text_of(&event, "kind"), of.join(", ")).trim_end().to_owned()
}
