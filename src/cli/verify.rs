//! `verger verify`.

use verger_kopia::storage::Access;
use verger_kopia::verify::{self, Options, Problem, Report};
use verger_kopia::{Error, ErrorKind, Repository, Result};

use super::Context;
use super::fleet::verification::Record;
use crate::config::{Engine, EngineArgs, RepositoryArgs, Target};
use crate::exit::Exit;
use crate::output::{self, Output};
use crate::progress::Progress;
use crate::signal;

const EXAMPLES: &str = "Examples:
  verger verify filesystem:///srv/backup                 every snapshot reachable, every pack there and long enough
  verger verify --percent 5 s3://bucket/kopia/           and read a twentieth of the files' contents
  verger verify --full --json filesystem:///srv/backup   read everything; one document with all damage
  verger verify --percent 5 --record photos REPO         and tell the coordinator at VERGER_ADDR, for verger_verify_age_seconds

Changes nothing. Its walk shares no code with the garbage collection. Exit code 17 if anything is damaged.";

/// What to check.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Read every live content and compare its hash with its ID
    #[arg(long)]
    full: bool,
    /// Read this share of the files' contents, in percent
    #[arg(
        long,
        value_name = "P",
        env = "VERGER_PERCENT",
        default_value_t = 0.0,
        hide_default_value = true,
        conflicts_with = "full"
    )]
    percent: f64,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    record: Record,
}

/// Checks, prints the report; damage is exit code 17.
pub(crate) fn run(context: &Context, args: Args) -> Result<Exit> {
    if !(0.0..=100.0).contains(&args.percent) {
        return Err(Error::new(ErrorKind::Usage, format!("--percent is {}", args.percent)).with_fix("Give 0 to 100"));
    }
    let engine = Engine::resolve(args.engine, context.file.engine.clone())?;
    let target = Target::resolve(args.repository, context.file.repository.clone())?;
    let repository = target.open_repository(&engine, Access::ReadOnly)?;
    let told = args.record.ask(&repository)?;
    let report = check(context.output, &repository, &engine, args.full, args.percent)?;
    if context.output.json {
        context.output.document(&report)?;
    } else {
        context.output.lines(text(&report, args.full))?;
    }
    let percent = if args.full { 100.0 } else { args.percent };
    let recorded = told.map_or(Ok(()), |told| told.tell(&report, percent));
    if report.is_clean() {
        let untold = |error: Error| {
            Error::new(error.kind(), "nothing wrong was found, and that was not recorded").with_source(error)
        };
        return recorded.map(|()| Exit::Done).map_err(untold);
    }
    let untold = recorded.err().map(|error| format!(", and that was not recorded: {}", error.chain()));
    let (count, untold) = (report.problems_found(), untold.unwrap_or_default());
    let error = Error::damaged(format!("{} is damaged: {count} problems are listed{untold}", target.address)).with_fix(
        "Restore what is missing from a copy; else `kopia snapshot fix invalid-files`, or `verger snapshot abandon ID`",
    );
    Err(error)
}

/// Runs the check with progress.
pub(crate) fn check(
    output: Output,
    repository: &Repository,
    engine: &Engine,
    full: bool,
    percent: f64,
) -> Result<Report> {
    let threads = engine.threads(repository.storage().capabilities().local_disk);
    let options = Options { full, percent, threads, ..Options::default() };
    let progress = Progress::new(output);
    let stop = signal::flag()?;
    let report = verify::verify(repository, &options, &stop, &|stage, done, total| {
        progress.update(stage, done, total, stage);
    });
    progress.finish();
    report
}

pub(super) fn text(report: &Report, full: bool) -> Vec<String> {
    let mut lines = vec![
        format!("Snapshots: {}, directories: {}, files: {}.", report.snapshots, report.directories, report.files),
        format!("Contents in place: {} in {} packs.", report.contents, report.packs),
    ];
    if report.contents_read > 0 || full {
        lines.push(format!(
            "Contents read and hashed: {} ({}).",
            report.contents_read,
            output::bytes(report.bytes_read)
        ));
    }
    if report.repaired_items > 0 {
        lines.push(format!(
            "Repaired while reading: {} contents and blobs; the store holds damaged bytes that error correction makes good.",
            report.repaired_items
        ));
    }
    lines.extend(report.problems.iter().flat_map(problem));
    if report.further_problems > 0 {
        lines.push(format!("… and {} more.", report.further_problems));
    }
    lines.push(match (report.is_clean(), full) {
        (true, true) => "No damage: every snapshot can be restored.".to_owned(),
        (true, false) => "No damage found; --full reads every byte.".to_owned(),
        (false, _) => "Damaged.".to_owned(),
    });
    lines
}

fn problem(problem: &Problem) -> Vec<String> {
    let mut lines = vec![format!("DAMAGED {}: {}", problem.subject, problem.text)];
    if !problem.snapshots.is_empty() {
        lines.push(format!("  snapshots: {}", problem.snapshots.join(" ")));
    }
    lines.extend(problem.paths.iter().map(|path| format!("  {path}")));
    lines
}
