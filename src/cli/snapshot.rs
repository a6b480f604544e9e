//! `verger snapshot abandon`: a person's word that what cannot be read is given up (R11).

use std::io::IsTerminal;

use clap::Subcommand;
use verger_kopia::content::{ContentId, Entry};
use verger_kopia::index_set::{IndexView, load_view, write::write_index_set};
use verger_kopia::manifest::{Manifest, ManifestEntry, ManifestSet, entry::encode};
use verger_kopia::pack::write::PackWriter;
use verger_kopia::session;
use verger_kopia::snapshot::Snapshot;
use verger_kopia::storage::{Access, PutOptions};
use verger_kopia::verify::{self, Problem};
use verger_kopia::{Error, ErrorKind, Repository, Result};
use verger_worker::task::rewrite::retention;

use super::Context;
use crate::config::{Engine, EngineArgs, RepositoryArgs, Target};
use crate::exit::Exit;
use crate::output::{self, Output};
use crate::progress::Progress;
use crate::signal;

const EXAMPLES: &str = "Examples:
  verger snapshot abandon ef80fb5e326e9ee26dd17c67fae7e275 filesystem:///srv/backup
  verger snapshot abandon --manifest-content mfece46ce3778ba23d2f726a110b0947c s3://bucket/kopia/";

const ABANDON_EXAMPLES: &str = "Examples:
  verger snapshot abandon ef80fb5e326e9ee26dd17c67fae7e275 filesystem:///srv/backup
  verger snapshot abandon --yes --manifest-content mfece46ce3778ba23d2f726a110b0947c s3://bucket/kopia/

While a snapshot cannot be read, whatever it may need is kept, for ever if nobody gives it up. This deletes its manifest as
`kopia snapshot delete` does, after listing what is lost. Damage that all snapshots share is better cut out of them:
`kopia snapshot fix invalid-files`.";

/// What to do with snapshots.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Delete the manifest of a snapshot that cannot be read
    Abandon(Abandon),
}

#[derive(Debug, clap::Args)]
#[command(after_help = ABANDON_EXAMPLES)]
struct Abandon {
    /// Manifest ID of the snapshot, and the repository; with --manifest-content the repository alone
    #[arg(value_name = "ID", required_unless_present = "manifest_content")]
    id: Option<String>,
    /// An unreadable content with manifests, whose snapshots have no ID any more
    #[arg(long, value_name = "CONTENT")]
    manifest_content: Option<ContentId>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// List what would be lost, change nothing
    #[arg(long, short = 'n', conflicts_with = "yes")]
    dry_run: bool,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    repository: RepositoryArgs,
}

/// Lists what is lost, asks, deletes.
pub(crate) fn run(context: &Context, args: Args) -> Result<Exit> {
    let Verb::Abandon(mut args) = args.verb;
    if args.manifest_content.is_some() && args.repository.repository.is_none() {
        // With no ID the one positional argument is the repository.
        args.repository.repository = args.id.take();
    }
    let engine = Engine::resolve(args.engine.clone(), context.file.engine.clone())?;
    let target = Target::resolve(args.repository.clone(), context.file.repository.clone())?;
    let access = if args.dry_run { Access::ReadOnly } else { Access::ReadWrite };
    let repository = target.open_repository(&engine, access)?;
    let threads = engine.threads(repository.storage().capabilities().local_disk);
    let view = load_view(&repository, threads)?;
    let manifests = ManifestSet::load(&repository, &view)?;
    let deed = match (&args.id, &args.manifest_content) {
        (Some(id), None) => Deed::of_snapshot(context.output, &repository, &manifests, id)?,
        (None, Some(content)) => Deed::of_content(&view, &manifests, content)?,
        _ => {
            return Err(Error::new(ErrorKind::Usage, "both a snapshot's ID and --manifest-content are given")
                .with_fix("Give one of them"));
        }
    };
    deed.lost.iter().for_each(|line| context.output.note(line));
    if !args.dry_run {
        confirm(args.yes)?;
    }
    let index_blobs = if args.dry_run { Vec::new() } else { deed.carry_out(&repository, target.identity())? };
    if args.dry_run && !context.output.json {
        context.output.line(format!("Would give up {}. Nothing was changed.", deed.subject))?;
    } else if context.output.json {
        let lost = &deed.lost;
        context.output.document(&serde_json::json!({
            "abandoned": deed.subject, "dryRun": args.dry_run, "lost": lost, "indexBlobs": index_blobs,
        }))?;
    } else {
        context.output.line(format!("Gave up {}. The next full cycle can go on without it.", deed.subject))?;
    }
    Ok(Exit::Done)
}

fn confirm(yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() || !output::is_terminal() {
        return Err(
            Error::new(ErrorKind::Usage, "this needs a person's word").with_fix("Add --yes if that may be lost")
        );
    }
    output::ask("Give it up? Type yes: ");
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    read.map_err(|e| Error::new(ErrorKind::Usage, "read the answer").with_source(e))?;
    if answer.trim() == "yes" {
        Ok(())
    } else {
        Err(Error::new(ErrorKind::Interrupted, "not confirmed; nothing was changed"))
    }
}

/// What is given up and what that takes.
struct Deed {
    subject: String,
    lost: Vec<String>,
    change: Change,
}

enum Change {
    /// A deletion of this manifest, in a new content.
    Manifest(String),
    /// A mark on this content.
    Content(Entry),
}

impl Deed {
    fn of_snapshot(output: Output, repository: &Repository, manifests: &ManifestSet, id: &str) -> Result<Self> {
        let known = |m: &&Manifest| m.labels.get("type").is_some_and(|t| t == "snapshot");
        let manifest = manifests.manifests.get(id).filter(known).ok_or_else(|| {
            Error::new(ErrorKind::Usage, format!("there is no snapshot {id}"))
                .with_fix("`verger inspect snapshots` lists them; for an unreadable content use --manifest-content")
        })?;
        let mut lost = vec![format!("Lost for ever: snapshot {id}")];
        lost.extend(describe(manifest));
        lost.extend(damage(output, repository, manifests, id)?);
        Ok(Self { subject: format!("snapshot {id}"), lost, change: Change::Manifest(id.to_owned()) })
    }

    fn of_content(view: &IndexView, manifests: &ManifestSet, content: &ContentId) -> Result<Self> {
        let unreadable = manifests.unreadable.iter().find(|(id, _)| id == content);
        let row = view.table.find(content).filter(|row| !view.table.is_deleted(*row));
        let (Some((_, error)), Some(row)) = (unreadable, row) else {
            return Err(Error::new(ErrorKind::Usage, format!("{content} is no unreadable content with manifests"))
                .with_fix("`verger inspect manifests` names those that are"));
        };
        let lost = vec![
            format!(
                "Lost for ever: all manifests in content {content}: snapshots, policies or parameters that nothing else names"
            ),
            format!("  It cannot be read: {}", error.chain()),
        ];
        Ok(Self { subject: format!("content {content}"), lost, change: Change::Content(view.table.entry(row)) })
    }

    /// As a client of Kopia's does it: session marker, pack, index, marker away. Names of the index blobs written.
    fn carry_out(&self, repository: &Repository, identity: &str) -> Result<Vec<String>> {
        let (user, host) = identity.split_once('@').unwrap_or((identity, ""));
        let (info, marker) = session::start_session(repository, user, host, &PutOptions::default())?;
        let now = repository.clock().now();
        let entries = match &self.change {
            Change::Content(entry) => {
                let timestamp = now.as_second().max(entry.timestamp.saturating_add(1));
                vec![Entry { deleted: true, timestamp, ..entry.clone() }]
            }
            Change::Manifest(id) => {
                let mut pack = PackWriter::new(repository, 'q')?;
                let plain = encode(&[ManifestEntry::deletion(id.clone(), now)]);
                pack.add_new(repository, b'm', &plain, true, now.as_second())?;
                let (name, data, entries) = pack.finish(repository, &info.id)?;
                let options = PutOptions { retention: retention(repository), ..PutOptions::default() };
                repository.storage().put(&name, data, &options)?;
                entries
            }
        };
        let written = write_index_set(repository, entries, info.id.as_str(), None)?;
        session::delete_markers(repository, &[marker])?;
        Ok(written.iter().map(ToString::to_string).collect())
    }
}

/// Source, time and size, as far as the manifest tells.
fn describe(manifest: &Manifest) -> Vec<String> {
    let label = |name: &str| manifest.labels.get(name).map_or("?", String::as_str);
    let source = format!("  source: {}@{}:{}", label("username"), label("hostname"), label("path"));
    let mut lines = vec![source];
    match Snapshot::from_manifest(manifest) {
        Err(error) => lines.push(format!("  Its manifest cannot be read: {}", error.chain())),
        Ok(snapshot) => {
            let root = &snapshot.root_entry;
            let size = root.summary.as_ref().map_or(root.size, |summary| summary.size).max(0).unsigned_abs();
            let files = root.summary.as_ref().map_or(0, |summary| summary.files);
            lines.push(format!("  begun {}, {} in {files} files", snapshot.start_time, output::bytes(size)));
            if !snapshot.description.is_empty() {
                lines.push(format!("  description: {}", snapshot.description));
            }
            if !snapshot.pins.is_empty() {
                lines.push(format!("  pinned: {}", snapshot.pins.join(", ")));
            }
        }
    }
    lines
}

/// What the independent check says of this snapshot, and whether the others share it.
fn damage(output: Output, repository: &Repository, manifests: &ManifestSet, id: &str) -> Result<Vec<String>> {
    let progress = Progress::new(output);
    let stop = signal::flag()?;
    let report = verify::verify(repository, &verify::Options::default(), &stop, &|stage, done, total| {
        progress.update(stage, done, total, stage);
    });
    progress.finish();
    let problems = report?.problems;
    let touches = |problem: &&Problem| problem.snapshots.iter().any(|snapshot| snapshot == id) || problem.subject == id;
    let own: Vec<&Problem> = problems.iter().filter(touches).collect();
    let mut lines: Vec<String> =
        own.iter().take(5).map(|problem| format!("  damage: {}: {}", problem.subject, problem.text)).collect();
    if own.is_empty() {
        lines.push("  No damage was found in it: every directory can be read and every pack is there.".to_owned());
    }
    let all = manifests.of_type("snapshot").count();
    if all > 1 && own.iter().any(|problem| problem.snapshots.len() >= all) {
        lines.push(
            "  All snapshots share this damage: `kopia snapshot fix invalid-files` cuts it out of them.".to_owned(),
        );
    }
    Ok(lines)
}
