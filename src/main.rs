//! temporary
#![allow(dead_code, missing_docs, clippy::all)]
mod config; mod exit; mod output; mod progress; mod embedded;
use std::sync::Arc;
fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let has = |f: &str| args.iter().any(|a| a == f);
    let repo = args.last().unwrap().clone();
    let out = output::Output { json: true, quiet: false };
    let run = || -> verger_kopia::Result<()> {
        let target = config::Target::resolve(config::RepositoryArgs { repository: Some(repo), ..Default::default() }, Default::default())?;
        let engine = config::Engine::resolve(Default::default(), Default::default())?;
        let none = has("--none");
        let request = embedded::CycleRequest { mode: if has("--full") { Some(verger_kopia::maintenance::rules::plan::Mode::Full) } else if has("--quick") { Some(verger_kopia::maintenance::rules::plan::Mode::Quick) } else { None },
            safety: if none { embedded::Safety::None } else { embedded::Safety::Full }, alone: none, exclusive: none, allow_removing: Some(100), dry_run: has("--dry-run"), wait: false, mark_to_drop: None,
            owner: embedded::Ownership::ActAs("owner@golden".into()), plan_out: None };
        let report = embedded::cycle(&target, &engine, &request, Arc::new(progress::Progress::new(out)), Default::default())?;
        out.document(&report)
    };
    match run() { Ok(()) => 0.into(), Err(e) => { output::failure(&e); exit::Exit::Failed(e.kind()).code().into() } }
}
