//! The command line: parse, dispatch, end with a code.

mod benchmark;
mod completion;
mod cycle;
mod demo;
mod fleet;
mod inspect;
mod ledger;
mod maintain;
mod preset;
mod settings;
mod snapshot;
mod verify;

use clap::{FromArgMatches, Parser, Subcommand};

use crate::config::file::File;
use crate::config::telemetry::{self as log, LogArgs};
use crate::exit::Exit;
use crate::output::{self, Output};
use verger::telemetry::{self, Telemetry};
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
    #[command(flatten)]
    log: LogArgs,
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
    /// Be one of several coordinators that look after the same repositories
    Coordinator(Box<fleet::coordinator::Args>),
    /// Do the work of coordinators elsewhere; list and drain those who do
    Worker(Box<fleet::worker::Args>),
    /// Several coordinators that are one
    Cluster(fleet::cluster::Args),
    /// Repositories that are looked after
    Repo(fleet::repo::Args),
    /// Cycles of maintenance
    Cycle(fleet::cycle::Args),
    /// What happened
    Events(fleet::events::Args),
    /// Rights to change repositories
    Lease(fleet::lease::Args),
    /// Check the configuration file
    Config(settings::Args),
    /// Rights to speak to the coordinator
    Token(fleet::token::Args),
    /// Keep a token for the address of a coordinator
    Login(fleet::login::Args),
    /// The ledger of a coordinator that does not run
    Ledger(ledger::Args),
    /// Print a completion script for a shell
    Completion(completion::Args),
}

pub(crate) use fleet::Trust;

/// What every command gets besides its own arguments.
pub(crate) struct Context {
    /// Where results go.
    pub(crate) output: Output,
    /// The configuration file, or its defaults.
    pub(crate) file: File,
    /// What is told of the work.
    pub(crate) telemetry: Option<Telemetry>,
}

/// Runs the command line of this process.
pub(crate) fn run() -> Exit {
    match parse().and_then(|parsed| parsed.map_or_else(|error| Ok(explain(&error)), |(cli, file)| dispatch(cli, file)))
    {
        Ok(exit) => exit,
        Err(error) => {
            output::failure(&error);
            Exit::Failed(error.kind())
        }
    }
}

/// The command line, with the file that it names; the inner error is clap's.
fn parse() -> Result<Result<(Cli, File), clap::Error>> {
    let path = preset::named();
    let file = path.as_deref().map(crate::config::file::read).transpose()?.unwrap_or_default();
    let command = preset::command(path.as_deref(), &file)?;
    Ok(command.try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)).map(|cli| (cli, file)))
}

/// Help and version are answers, everything else is a usage error; clap prints both where they belong.
fn explain(error: &clap::Error) -> Exit {
    let asked = !error.use_stderr();
    let _ = error.print();
    if asked { Exit::Done } else { Exit::Failed(verger_kopia::ErrorKind::Usage) }
}

fn dispatch(cli: Cli, file: File) -> Result<Exit> {
    let filter = match &cli.command {
        Command::Up(_) => Some(log::SERVICE),
        Command::Worker(args) if args.works() => Some(log::SERVICE),
        Command::Coordinator(_) => Some(log::TOGETHER),
        Command::Maintain(_) | Command::Plan(_) => Some(log::COMMAND),
        _ => None,
    };
    let settings = cli.log.settings(filter.unwrap_or(log::COMMAND))?;
    let telemetry = filter.map(|_| telemetry::start(&settings)).transpose()?;
    let context = Context { output: Output { json: cli.json, quiet: cli.quiet }, file, telemetry };
    let ended = run_command(&context, cli.command);
    if let Some(telemetry) = &context.telemetry {
        telemetry.finish();
    }
    ended
}

fn run_command(context: &Context, command: Command) -> Result<Exit> {
    match command {
        Command::Demo(args) => demo::run(context, &args),
        Command::Inspect(args) => inspect::run(context, args),
        Command::Maintain(args) => maintain::maintain(context, args),
        Command::Plan(args) => maintain::plan(context, args),
        Command::Verify(args) => verify::run(context, args),
        Command::Snapshot(args) => snapshot::run(context, args),
        Command::Benchmark(args) => benchmark::run(context, &args),
        Command::Up(args) => fleet::up::run(context, args),
        Command::Coordinator(args) => fleet::coordinator::run(context, *args),
        Command::Worker(args) => fleet::worker::run(context, *args),
        Command::Cluster(args) => fleet::cluster::run(context, args),
        Command::Repo(args) => fleet::repo::run(context, args),
        Command::Cycle(args) => fleet::cycle::run(context, args),
        Command::Events(args) => fleet::events::run(context, &args),
        Command::Lease(args) => fleet::lease::run(context, args),
        Command::Config(args) => settings::run(context, &args),
        Command::Token(args) => fleet::token::run(context, args),
        Command::Login(args) => fleet::login::run(context, &args),
        Command::Ledger(args) => ledger::run(context, args),
        Command::Completion(args) => completion::run(&args),
    }
}
