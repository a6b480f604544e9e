//! `verger maintain` and `verger plan`.

mod kopia_log;
pub(super) mod text;
mod way_out;

use std::path::PathBuf;
use std::sync::Arc;

use verger_kopia::maintenance::rules::plan::Mode;
use verger_kopia::{Error, ErrorKind, Result};
use verger_worker::progress::Stop;

use verger::embedded::{self, CycleReport, CycleRequest, Ownership, Safety};

use super::{Context, cycle};
use crate::config::{CycleArgs, Engine, EngineArgs, RepositoryArgs, SafetyLevel, Target};
use crate::exit::Exit;
use crate::progress::Progress;
use crate::signal;

const MAINTAIN_EXAMPLES: &str = "Examples:
  verger maintain filesystem:///srv/backup                 what is due: by Kopia's schedule, or because a margin has ended
  verger maintain --full s3://bucket/kopia/                a full cycle now, with all margins
  verger maintain --full --act-as default@default s3://bucket/velero/kopia/ns/   beside Velero, in its name
  verger maintain --index s3://bucket/kopia/               index work alone: fewer index blobs for clients to read
  verger maintain --full --dry-run --json filesystem:///srv/backup               the plan, changing nothing
  verger maintain --config-file ~/.config/kopia/repository.config

A first full cycle frees nothing: margins must end first. The report has `next`: when, by which rule, how many bytes.
--i-am-alone and --allow-removing are a person's word for one cycle: they have no environment variable and no key.";

const PLAN_EXAMPLES: &str = "Examples:
  verger plan filesystem:///srv/backup                     what a full cycle would change, and what waits for which margin
  verger plan --json s3://bucket/kopia/                    one document
  verger plan --out plan.jsonl filesystem:///srv/backup    every mark, move and deletion, one JSON object a line

Reads only; takes no lease and needs no ownership.";

/// One cycle.
#[derive(Debug, clap::Args)]
#[command(after_help = MAINTAIN_EXAMPLES)]
pub(crate) struct MaintainArgs {
    #[command(flatten)]
    cycle: CycleArgs,
    /// No other client is at work, now or asleep: needed for --safety none; never a setting
    #[arg(long, help_heading = "Cycle")]
    i_am_alone: bool,
    /// Let this plan remove up to this share of the packed bytes [default: 50]; never a setting
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100), help_heading = "Cycle")]
    allow_removing: Option<u8>,
    /// Plan, print the plan, change nothing
    #[arg(long, short = 'n', env = "VERGER_DRY_RUN", help_heading = "Cycle",
        value_parser = clap::builder::BoolishValueParser::new(),
        num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        hide_default_value = true, hide_possible_values = true)]
    dry_run: bool,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    repository: RepositoryArgs,
}

/// A plan alone.
#[derive(Debug, clap::Args)]
#[command(after_help = PLAN_EXAMPLES)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    cycle: CycleArgs,
    /// File for all that is planned, one JSON object a line
    #[arg(long, value_name = "FILE", env = "VERGER_OUT")]
    out: Option<PathBuf>,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    repository: RepositoryArgs,
}

/// Runs a cycle and prints its report.
pub(crate) fn maintain(context: &Context, args: MaintainArgs) -> Result<Exit> {
    let cycle = args.cycle.or(context.file.maintain.clone())?;
    let request = CycleRequest {
        alone: args.i_am_alone,
        allow_removing: args.allow_removing,
        dry_run: args.dry_run,
        ..request(cycle)
    };
    let unsaid = request.safety == Safety::None && !request.alone && !request.dry_run;
    run(context, args.engine, args.repository, &request).map_err(|error| match error.kind() {
        // The refusal tells what was seen of others (R23); where nothing could be opened it is one all the same.
        kind if unsaid && kind != ErrorKind::Usage => {
            Error::new(ErrorKind::Usage, "--safety none needs the word that no other client is at work")
                .with_fix("Say it with --i-am-alone if it is so; without it all margins hold")
        }
        _ => error,
    })
}

/// Makes a plan and prints it.
pub(crate) fn plan(context: &Context, args: PlanArgs) -> Result<Exit> {
    let cycle = args.cycle.or(context.file.maintain.clone())?;
    let request = CycleRequest { dry_run: true, plan_out: args.out, ..request(cycle) };
    run(context, args.engine, args.repository, &request)
}

fn request(cycle: CycleArgs) -> CycleRequest {
    CycleRequest {
        mode: match (cycle.full, cycle.quick, cycle.index) {
            (true, _, _) => Some(Mode::Full),
            (_, true, _) => Some(Mode::Quick),
            (_, _, true) => Some(Mode::Index),
            _ => None,
        },
        by_itself: false,
        safety: if cycle.safety == Some(SafetyLevel::None) { Safety::None } else { Safety::Full },
        alone: false,
        exclusive: cycle.exclusive,
        allow_removing: None,
        dry_run: false,
        wait: cycle.wait,
        mark_to_drop: cycle.mark_to_drop(),
        owner: match (cycle.take_ownership, cycle.act_as) {
            (_, Some(name)) => Ownership::ActAs(name),
            (true, None) => Ownership::Take,
            (false, None) => Ownership::Own,
        },
        plan_out: None,
    }
}

fn run(context: &Context, engine: EngineArgs, repository: RepositoryArgs, request: &CycleRequest) -> Result<Exit> {
    let output = context.output;
    let engine = Engine::resolve(engine, context.file.engine.clone())?;
    let target = Target::resolve(repository, context.file.repository.clone())?;
    let stop = Stop::default();
    signal::listen(stop.clone())?;
    let progress = Arc::new(Progress::new(output));
    // A plan changes nothing, so it needs nobody's word.
    let request = CycleRequest { alone: request.alone || request.dry_run, ..request.clone() };
    let means = cycle::means(&target, &engine, &request, progress.clone(), stop)?;
    let report = embedded::cycle(means, &request);
    progress.finish();
    let report = report?;
    kopia_log::lines(&report).iter().for_each(|line| output.note(line));
    if output.json {
        output.document(&report)?;
    } else {
        output.lines(text::lines(&report))?;
    }
    Ok(end(&report))
}

fn end(report: &CycleReport) -> Exit {
    if !report.is_degraded() {
        return Exit::Done;
    }
    if let Some(first) = report.damage.first()
        && report.damage.len() as u64 == report.refused_deletes
    {
        let step = format!(
            "the store refused to delete {} blobs, all else is done; the first, {}: {}",
            report.refused_deletes, first.subject, first.text
        );
        let fix = "Give this identity the right to delete, or wait until the object locks end; the damage list names the blobs";
        crate::output::failure(&Error::new(ErrorKind::Permission, step).with_fix(fix));
        return Exit::Failed(ErrorKind::Permission);
    }
    let step = match report.damage.len() {
        1 => "degraded: one thing cannot be read; what was still safe is done".to_owned(),
        count => format!("degraded: {count} things cannot be read; what was still safe is done"),
    };
    let way_out = way_out::of_the_worst(&report.damage).map(|text| format!("; then {text}")).unwrap_or_default();
    let fix = format!("See the damage list; `verger verify` shows what it touches{way_out}");
    crate::output::failure(&Error::damaged(step).with_fix(fix));
    Exit::Degraded
}
