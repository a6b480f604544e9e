//! `verger lease`.

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};
use verger_kopia::{Error, ErrorKind, Result};

use super::{Coordinator, escaped, text_of};
use crate::cli::Context;
use crate::exit::Exit;
use crate::output::Output;

const EXAMPLES: &str = "Examples:
  verger lease list
  verger lease list --json
  verger lease release photos        only while no cycle is open
  verger lease transfer photos --to verger@fleet-0a1b2c3d";

/// Rights to change repositories.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Which leases are held, under which terms, and by whom if it is another fleet
    List {
        #[command(flatten)]
        coordinator: Coordinator,
    },
    /// Give one back before it expires
    Release {
        /// Name of the repository
        name: String,
        #[command(flatten)]
        coordinator: Coordinator,
    },
    /// Leave the repository to another fleet: this one only observes from then on
    Transfer {
        /// Name of the repository
        name: String,
        /// Who may take it in the next ten minutes, and nobody else
        #[arg(long, value_name = "USER@HOST")]
        to: String,
        #[command(flatten)]
        coordinator: Coordinator,
    },
}

pub(crate) fn run(context: &Context, args: Args) -> Result<Exit> {
    let output = context.output;
    match args.what {
        What::List { coordinator } => {
            let all = coordinator.client()?.get("/v1/leases")?;
            if output.json {
                output.document(&all)?;
            } else {
                let rows = all.as_array().into_iter().flatten();
                output.lines(rows.map(row))?;
            }
        }
        What::Release { name, coordinator } => {
            let path = format!("/v1/leases/{}/release", escaped(&name));
            let answer = coordinator.client()?.send_document(&Method::POST, &path, &json!({}), None)?;
            told(output, &answer, || format!("the lease on {name} is free"))?;
        }
        What::Transfer { name, to, coordinator } => {
            let path = format!("/v1/leases/{}/transfer", escaped(&name));
            let wanted = json!({ "to": to });
            let answer = coordinator.client()?.send_document(&Method::POST, &path, &wanted, None)?;
            output.note(format!("{name} is only observed from now on"));
            told(output, &answer, || {
                format!("for ten minutes {to} alone may take the lease on {name}: start a cycle there now")
            })?;
        }
    }
    Ok(Exit::Done)
}

/// One lease; that of another holder says so, and since when it was not looked at.
fn row(one: &Value) -> String {
    let text = |name: &str| text_of(one, name);
    let held = format!("{:<24} term {:<6} acts until {}", text("name"), text("term"), text("actsUntil"));
    if one["ours"].as_bool() != Some(false) {
        return held;
    }
    let (holder, expires, seen) = (text("holder"), text("expires"), text("seen"));
    format!("{held}, held by {holder}, another's: expires {expires} unless renewed (seen {seen})")
}

/// The answer, or what it means; that the object in the store says otherwise is an error after the answer.
fn told(output: Output, answer: &Value, text: impl FnOnce() -> String) -> Result<()> {
    if output.json {
        output.document(answer)?;
    }
    if answer["free"].as_bool() == Some(true) {
        return if output.json { Ok(()) } else { output.lines([text()]) };
    }
    let step = "the coordinator let go of the lease, and the object in the store does not say so";
    Err(Error::new(ErrorKind::Locked, step)
        .with_source(text_of(answer, "message"))
        .with_fix("Nothing need be done: it has expired ten minutes after it was written last"))
}
