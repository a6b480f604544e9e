//! The command line: parse, dispatch, end with a code.

mod benchmark;
mod completion;
mod cycle;
mod demo;
mod fleet;
mod inspect;
mod ledger;
mod maintain;
mod snapshot;
mod verify;

use clap::{Parser, Subcommand};

use crate::exit::Exit;
use crate::output::{self, Output};
use verger_kopia::Result;

const EXAMPLES: &str = "Examples:
  verger demo                                          see a cycle on a sample repository
  verger inspect status filesystem:///srv/backup       what a repository is
  verger plan s3://bucket/kopia/                       what a cycle would change, and when
  verger maintain --full s3://bucket/kopia/            one full cycle
  verger verify --full filesystem:///srv/backup        check every snapshot and every content

The password comes from KOPIA_PASSWORD, --password-file, the one that Kopia saved, or a prompt.
Exit codes: docs/exit-codes.md; a failure's last line says what, why, and what to do.";

/// Maintenance for fleets of Kopia backup repositories
#[derive(Debug, Parser)]
#[command(name = "verger", version, after_help = EXAMPLES, max_term_width = 110)]
struct Cli {
    /// One JSON document on standard output
    #[arg(long, global = true, env = "VERGER_JSON",
        value_parser = clap::builder::BoolishValueParser::new(),
        num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        hide_default_value = true, hide_possible_values = true)]
    json: bool,
    /// Only results and errors: no progress, no notes
    #[arg(long, short, global = true, env = "VERGER_QUIET",
        value_parser = clap::builder::BoolishValueParser::new(),
        num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        hide_default_value = true, hide_possible_values = true)]
    quiet: bool,
    /// YAML file with settings; flags and environment come before it
    #[arg(long, global = true, value_name = "FILE", env = "VERGER_CONFIG")]
    config: Option<std::path::PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a full cycle on a sample repository that ships with Verger
    Demo(demo::Args),
    /// Show what is in a repository, as Kopia's own commands do
    Inspect(inspect::Args),
    /// Run one maintenance cycle
    Maintain(maintain::MaintainArgs),
    /// Show what a cycle would change, changing nothing
    Plan(maintain::PlanArgs),
    /// Check that every snapshot can be restored
    Verify(verify::Args),
    /// Give up snapshots that cannot be read any more
    Snapshot(snapshot::Args),
    /// Measure hashes, ciphers, compressions and splitters on this machine
    Benchmark(benchmark::Args),
    /// Look after many repositories: coordinator, workers and API in one process
    Up(fleet::up::Args),
    /// Repositories that are looked after
    Repo(fleet::repo::Args),
    /// Cycles of maintenance
    Cycle(fleet::cycle::Args),
    /// What happened
    Events(fleet::events::Args),
    /// Rights to change repositories
    Lease(fleet::lease::Args),
    /// The ledger of a coordinator that does not run
    Ledger(ledger::Args),
    /// Print a completion script for a shell
    Completion(completion::Args),
}

/// What every command gets besides its own arguments.
pub(crate) struct Context {
    /// Where results go.
    pub(crate) output: Output,
    /// The configuration file, or its defaults.
    pub(crate) file: crate::config::file::File,
}

/// Runs the command line of this process.
pub(crate) fn run() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, everything else is a usage error; clap prints both where they belong.
            let asked = !error.use_stderr();
            let _ = error.print();
            return if asked { Exit::Done } else { Exit::Failed(verger_kopia::ErrorKind::Usage) };
        }
    };
    match dispatch(cli) {
        Ok(exit) => exit,
        Err(error) => {
            output::failure(&error);
            Exit::Failed(error.kind())
        }
    }
}

fn dispatch(cli: Cli) -> Result<Exit> {
    let file = cli.config.as_deref().map(crate::config::file::read).transpose()?.unwrap_or_default();
    let context = Context { output: Output { json: cli.json, quiet: cli.quiet }, file };
    match cli.command {
        Command::Demo(args) => demo::run(&context, &args),
        Command::Inspect(args) => inspect::run(&context, args),
        Command::Maintain(args) => maintain::maintain(&context, args),
        Command::Plan(args) => maintain::plan(&context, args),
        Command::Verify(args) => verify::run(&context, args),
        Command::Snapshot(args) => snapshot::run(&context, args),
        Command::Benchmark(args) => benchmark::run(&context, &args),
        Command::Up(args) => fleet::up::run(&context, args),
        Command::Repo(args) => fleet::repo::run(&context, args),
        Command::Cycle(args) => fleet::cycle::run(&context, args),
        Command::Events(args) => fleet::events::run(&context, &args),
        Command::Lease(args) => fleet::lease::run(&context, args),
        Command::Ledger(args) => ledger::run(&context, args),
        Command::Completion(args) => completion::run(&args),
    }
}
