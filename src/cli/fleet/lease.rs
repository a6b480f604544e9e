//! `verger lease`.

use clap::Subcommand;
use reqwest::Method;
use serde_json::json;
use verger_kopia::Result;

use super::{Coordinator, escaped, text_of};
use crate::cli::Context;
use crate::exit::Exit;

const EXAMPLES: &str = "Examples:
  verger lease list
  verger lease list --json
  verger lease release photos        only while no cycle is open";

/// Rights to change repositories.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Which leases are held, under which terms
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
                output.lines(rows.map(|one| {
                    let until = text_of(one, "actsUntil");
                    format!("{:<24} term {:<6} acts until {until}", text_of(one, "name"), text_of(one, "term"))
                }))?;
            }
        }
        What::Release { name, coordinator } => {
            let path = format!("/v1/leases/{}/release", escaped(&name));
            let answer = coordinator.client()?.send_document(&Method::POST, &path, &json!({}), None)?;
            if output.json {
                output.document(&answer)?;
            }
        }
    }
    Ok(Exit::Done)
}
