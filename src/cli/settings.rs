//! `verger config`.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;
use verger_kopia::{Error, ErrorKind, Result};

use super::{Context, preset};
use crate::config::file;
use crate::exit::Exit;

const EXAMPLES: &str = "Examples:
  verger config check /etc/verger/verger.yaml
  verger --config /etc/verger/verger.yaml up            what it says, unless a flag or the environment says otherwise";

/// The configuration file.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Whether every key is known and every value can be used
    Check {
        /// YAML file with settings
        file: PathBuf,
    },
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let What::Check { file: path } = &args.what;
    let file = file::read(path)?;
    let mut command = preset::command(Some(path), &file)?;
    file.check()?;
    for (name, flags) in file.services() {
        if flags.values().next().is_none() {
            continue;
        }
        // Clap checks defaults like what is given, once a command is parsed.
        command.try_get_matches_from_mut(["verger", name]).map_err(|error| {
            let text = error.to_string();
            // The usage follows after an empty line.
            let told: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
            let what = told.join(" ").trim_start_matches("error: ").to_owned();
            Error::new(ErrorKind::Usage, format!("use section {name} of {}", path.display()))
                .with_source(what)
                .with_fix(format!("Correct that value; `verger {name} --help` says what it may be"))
        })?;
    }
    if context.output.json {
        context.output.document(&json!({ "file": path, "valid": true }))?;
    } else {
        context.output.line(format!("{} can be used", path.display()))?;
    }
    Ok(Exit::Done)
}
