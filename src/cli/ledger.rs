//! `verger ledger`: the ledger of a coordinator that does not run.

use std::path::{Path, PathBuf};

use serde_json::json;
use verger_coordinator::raft::stopped::{Checked, StoppedLedger};
use verger_kopia::{Error, ErrorKind, Result};

use crate::cli::Context;
use crate::config::archive::{ArchiveArgs, work};
use crate::exit::Exit;

const EXAMPLES: &str = "Examples:
  verger ledger verify --data-dir /var/lib/verger      follow the chain of all that is on this disk
  verger ledger verify --data-dir /var/lib/verger --ledger-archive s3://attic/ledger/
  verger ledger restore --data-dir /var/lib/verger --ledger-archive s3://attic/ledger/

The coordinator must not run meanwhile. See docs/operating/ledger.md.";

/// The ledger of a coordinator that does not run
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Follow its chain from end to end; with an archive, read all that is in there, too
    #[command(after_help = EXAMPLES)]
    Verify(Place),
    /// Put segments that are missing or do not hold back from the archive
    #[command(after_help = EXAMPLES)]
    Restore(Place),
}

#[derive(Debug, clap::Args)]
struct Place {
    /// Data folder of the coordinator
    #[arg(long, value_name = "DIR", env = "VERGER_DATA_DIR")]
    data_dir: PathBuf,
    #[command(flatten)]
    archive: ArchiveArgs,
}

pub(crate) fn run(context: &Context, args: Args) -> Result<Exit> {
    match args.command {
        Command::Verify(place) => verify(context, &place),
        Command::Restore(place) => restore(context, &place),
    }
}

/// `up` has its node in a folder below its own.
fn node(data_dir: &Path) -> PathBuf {
    let node = data_dir.join("node");
    if node.is_dir() { node } else { data_dir.to_owned() }
}

fn verify(context: &Context, place: &Place) -> Result<Exit> {
    let ledger = StoppedLedger::open(&node(&place.data_dir))?;
    let archive = place.archive.resolve(ledger.cluster(), &place.data_dir)?;
    let checked = ledger.check(archive.as_deref())?;
    let evidence = ledger.check_evidence(&work(&place.data_dir), archive.as_ref())?;
    let Checked { records, here, archived, objects_read, .. } = &checked;
    let problems: Vec<&Error> = checked.problems.iter().chain(&evidence.problems).collect();
    if context.output.json {
        let problem = |error: &Error| json!({ "text": error.chain(), "fix": error.fix() });
        let problems: Vec<_> = problems.iter().map(|error| problem(error)).collect();
        context.output.document(&json!({
            "records": records, "segmentsHere": here, "segmentsArchived": archived, "objectsRead": objects_read, "problems": problems,
            "evidenceFiles": evidence.files, "evidenceArchived": evidence.parts, "evidenceObjectsRead": evidence.objects_read,
            "evidenceElsewhere": evidence.elsewhere,
        }))?;
    } else {
        context.output.line(format!(
            "Records that the last snapshot speaks for: {records}; later ones come again from the raft log."
        ))?;
        context.output.line(format!("Segments of them here: {here}, in the archive alone: {archived}."))?;
        if archive.is_some() {
            context.output.line(format!("Objects read and compared: {objects_read}."))?;
        }
        context
            .output
            .line(format!("Evidence: {} files here, {} parts in the archive.", evidence.files, evidence.parts))?;
        if let Some(missing) = evidence.elsewhere.filter(|missing| *missing > 0) {
            context.output.line(format!(
                "Records of evidence that the ledger names and that are neither here nor known to be archived: {missing}; who drove those \
                 cycles has them."
            ))?;
        }
        let line = |error: &&Error| format!("DAMAGED {}\n  {}", error.chain(), error.fix().unwrap_or_default());
        context.output.lines(problems.iter().map(line))?;
    }
    if problems.is_empty() {
        return Ok(Exit::Done);
    }
    let step =
        format!("the ledger in {} does not hold: {} problems are listed", place.data_dir.display(), problems.len());
    Err(Error::damaged(step).with_fix("Each says what helps; `verger ledger restore` puts back what the archive has"))
}

fn restore(context: &Context, place: &Place) -> Result<Exit> {
    let ledger = StoppedLedger::open(&node(&place.data_dir))?;
    let archive = place.archive.resolve(ledger.cluster(), &place.data_dir)?.ok_or_else(|| {
        Error::new(ErrorKind::Usage, "no archive is given").with_fix("Say where it is: --ledger-archive URL")
    })?;
    let mut restored = ledger.restore(&archive)?;
    restored.extend(ledger.restore_evidence(&work(&place.data_dir), &archive)?);
    if context.output.json {
        context.output.document(&json!({ "restored": restored }))?;
    } else if restored.is_empty() {
        context.output.line("Nothing was missing: the ledger holds.")?;
    } else {
        context.output.lines(restored.iter().map(|path| format!("Restored {}.", path.display())))?;
    }
    Ok(Exit::Done)
}
