//! `verger demo`: a full cycle on a sample repository that ships with Verger.

mod sample;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use verger::embedded::{self, CycleReport, CycleRequest, Ownership, Safety};
use verger_kopia::maintenance::rules::plan::Mode;
use verger_kopia::storage::Access;
use verger_kopia::verify::Report;
use verger_kopia::{Error, ErrorKind, Result};
use verger_worker::progress::Stop;

use super::maintain::text;
use super::{Context, cycle, verify};
use crate::config::{Engine, EngineArgs, Target};
use crate::exit::Exit;
use crate::output::{self, Output};
use crate::progress::Progress;
use crate::signal;
use sample::State;

const EXAMPLES: &str = "Examples:
  verger demo              unpack, look, clean, check, in a temporary folder
  verger demo --keep       leave the folder, to look around in it";

/// What to do with the folder.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Leave the sample repository in its folder
    #[arg(long, env = "VERGER_KEEP",
        value_parser = clap::builder::BoolishValueParser::new(),
        num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        hide_default_value = true, hide_possible_values = true)]
    keep: bool,
}

/// All that the demo found out.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Story {
    before: State,
    safe_default: CycleReport,
    report: CycleReport,
    /// Blobs and bytes by rule.
    deleted: BTreeMap<String, (u64, u64)>,
    after: State,
    check: Report,
}

/// Unpacks, shows, cleans, shows, checks.
pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let output = context.output;
    let failed = |e| Error::new(ErrorKind::Permission, "make a temporary folder").with_source(e).with_fix("Set TMPDIR");
    let folder = tempfile::Builder::new().prefix("verger-demo-").tempdir().map_err(failed)?;
    let repository = sample::unpack(folder.path())?;
    let stop = Stop::default();
    signal::listen(stop.clone())?;
    let demo = Demo {
        target: Target::local(&repository, sample::PASSWORD),
        engine: Engine::resolve(
            EngineArgs { state_dir: Some(folder.path().join("state")), ..EngineArgs::default() },
            context.file.engine.clone(),
        )?,
        progress: Arc::new(Progress::new(output)),
        stop,
        output,
    };
    let story = demo.tell(&repository, &folder.path().join("plan.jsonl"))?;
    if output.json {
        output.document(&story)?;
    }
    if args.keep {
        let path = folder.keep();
        output.note(format!("Kept: {}/epochs/repo (password {:?}).", path.display(), sample::PASSWORD));
    }
    if story.check.is_clean() { Ok(Exit::Done) } else { Err(Error::damaged("the check found damage after the cycle")) }
}

struct Demo {
    target: Target,
    engine: Engine,
    progress: Arc<Progress>,
    stop: Stop,
    output: Output,
}

impl Demo {
    fn tell(&self, repository: &Path, plan: &Path) -> Result<Story> {
        let say = |lines: Vec<String>| if self.output.json { Ok(()) } else { self.output.lines(lines) };
        let before = self.state()?;
        say(opening(repository, &before))?;
        let safe_default = self.cycle(&request(Safety::Full, true, None))?;
        say(safe(&safe_default))?;
        let report = self.cycle(&request(Safety::None, false, Some(plan)))?;
        let mut deleted = sample::deletions(plan)?;
        deleted.extend(sample::superseded(&report));
        let after = self.state()?;
        say(cleaned(&report, &deleted, &before, &after))?;
        let repository = self.target.open_repository(&self.engine, Access::ReadOnly)?;
        let check = verify::check(self.output, &repository, &self.engine, true, 0.0)?;
        say(closing(&check))?;
        Ok(Story { before, safe_default, report, deleted, after, check })
    }

    fn state(&self) -> Result<State> {
        State::of(&self.target.open_repository(&self.engine, Access::ReadOnly)?)
    }

    fn cycle(&self, request: &CycleRequest) -> Result<CycleReport> {
        let means = cycle::means(&self.target, &self.engine, request, self.progress.clone(), self.stop.clone())?;
        let report = embedded::cycle(means, request);
        self.progress.finish();
        report
    }
}

fn request(safety: Safety, dry_run: bool, plan: Option<&Path>) -> CycleRequest {
    CycleRequest {
        mode: Some(Mode::Full),
        by_itself: false,
        safety,
        alone: safety == Safety::None,
        exclusive: false,
        allow_removing: Some(100),
        dry_run,
        wait: false,
        mark_to_drop: None,
        owner: Ownership::ActAs(sample::OWNER.to_owned()),
        plan_out: plan.map(Path::to_owned),
    }
}

fn opening(repository: &Path, state: &State) -> Vec<String> {
    let day =
        |at: Option<verger_kopia::clock::Timestamp>| at.map_or_else(String::new, |at| at.strftime("%F").to_string());
    vec![
        "A full maintenance cycle on a sample repository, made by the real Kopia of invented data.".to_owned(),
        format!("It lies in {}", repository.display()),
        "BEFORE".to_owned(),
        format!(
            "  {} snapshots of {}, {} to {}; many older ones were deleted",
            state.snapshots,
            state.source,
            day(state.oldest),
            day(state.newest)
        ),
        format!("  {} contents in the index, {} of them marked as deleted", state.contents, state.marked),
        format!("  {} packs with {}; {} blobs in all", state.packs, output::bytes(state.pack_bytes), state.blobs),
        String::new(),
    ]
}

fn safe(plan: &CycleReport) -> Vec<String> {
    let mut lines = vec![
        "WHAT THE SAFE DEFAULT WOULD DO NOW (while others may be using it; planned only)".to_owned(),
        format!(
            "  Frees {} now: whatever some client may still count on has to wait.",
            output::bytes(plan.freed_bytes)
        ),
    ];
    lines.extend(plan.next.iter().map(|next| format!("  {}", text::next(next))));
    lines.push(String::new());
    lines.push("WHAT RUNS NOW, since nobody else has this copy: all margins are off".to_owned());
    lines.push(format!(
        "  $ verger maintain --full --safety none --i-am-alone --allow-removing 100 --act-as {}",
        sample::OWNER
    ));
    lines
}

fn cleaned(report: &CycleReport, deleted: &BTreeMap<String, (u64, u64)>, before: &State, after: &State) -> Vec<String> {
    let mut lines: Vec<String> = text::did(report).into_iter().map(|line| format!("  {line}")).collect();
    lines.push(String::new());
    lines.push("WHAT WENT, AND WHY".to_owned());
    for (rule, (blobs, bytes)) in deleted {
        lines.push(format!("  {blobs:>4} blobs {:>10}  {rule}: {}", output::bytes(*bytes), why(rule)));
    }
    lines.push(format!("{:<12} {:>10} {:>10}", "", "BEFORE", "AFTER"));
    let bytes = output::bytes;
    for (name, old, new) in [
        ("snapshots", before.snapshots.to_string(), after.snapshots.to_string()),
        ("contents", before.contents.to_string(), after.contents.to_string()),
        ("packs", before.packs.to_string(), after.packs.to_string()),
        ("pack bytes", bytes(before.pack_bytes), bytes(after.pack_bytes)),
        ("all bytes", bytes(before.bytes), bytes(after.bytes)),
    ] {
        lines.push(format!("  {name:<10} {old:>10} {new:>10}"));
    }
    lines.push(String::new());
    lines
}

fn why(rule: &str) -> &'static str {
    match rule {
        "unreferenced-pack" => "no visible content lies in them any more",
        "rewritten-pack" => "what was alive in them was moved into full packs",
        "expired-session" => "markers of sessions that are over",
        "superseded-index" => "compacted index blobs replace them",
        "old-marker" => "newer markers replace them",
        "log" => "logs beyond the limits",
        _ => "see docs/decisions/0005",
    }
}

fn closing(check: &Report) -> Vec<String> {
    let mut lines =
        vec!["THE INDEPENDENT CHECK (verger verify --full; it shares no walk with the collection)".to_owned()];
    lines.extend(verify::text(check, true).into_iter().map(|line| format!("  {line}")));
    lines.extend([
        String::new(),
        "YOUR OWN REPOSITORY (REPO: filesystem:///path, s3://bucket/prefix/, gcs://…, azure://…)".to_owned(),
        "  verger plan REPO              what would change, and when; reads only".to_owned(),
        "  verger maintain --full REPO   a full cycle with all margins; more in docs/start.md".to_owned(),
    ]);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_unpacks_with_the_times_of_its_storage() {
        let folder = tempfile::tempdir().unwrap();
        let path = sample::unpack(folder.path()).unwrap();
        let modified = std::fs::metadata(path.join("kopia.repository.f")).unwrap().modified().unwrap();
        assert!(modified.elapsed().unwrap() > std::time::Duration::ZERO);
        let target = Target::local(&path, sample::PASSWORD);
        let engine = EngineArgs { state_dir: Some("unused".into()), ..EngineArgs::default() };
        let engine = Engine::resolve(engine, EngineArgs::default()).unwrap();
        let state = State::of(&target.open_repository(&engine, Access::ReadOnly).unwrap()).unwrap();
        assert_eq!((state.snapshots, state.contents), (12, 470));
    }
}
