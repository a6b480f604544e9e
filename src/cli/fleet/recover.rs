//! `verger cluster recover`.

use std::path::PathBuf;

use rand::Rng as _;
use serde_json::json;
use verger_coordinator::raft::recover::{Found, Survivor};
use verger_kopia::clock::{Clock as _, SystemClock};
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::{CommandId, LogTime};

use crate::config::identity;
use crate::output::Output;
use crate::up::NODE;
use crate::up::cluster::folder::{self, Member};

/// Which coordinator is left, and a person's word.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder of the coordinator that is left; of several, the one with the latest term, then the latest entry
    #[arg(long, value_name = "DIR", env = "VERGER_DATA_DIR")]
    data_dir: PathBuf,
    /// The others are gone for good, and what they alone knew of may be lost [default: only look]
    #[arg(long)]
    accept_loss: bool,
}

/// Looks, and with a person's word makes a cluster of one.
///
/// # Errors
/// `Usage` without that word, or for a folder that none can be made of; `Locked` if its coordinator runs.
pub(super) fn run(output: Output, args: &Args) -> Result<()> {
    let member = folder::read(&args.data_dir)?.ok_or_else(|| {
        let step = format!("{} is no coordinator's of several", args.data_dir.display());
        Error::new(ErrorKind::Usage, step).with_fix("`verger up` is alone by design, and has no majority to lose")
    })?;
    let survivor = Survivor::open(&args.data_dir.join(NODE))?;
    let found = survivor.found();
    if found.node != member.node || !member.is_of(&found.cluster) {
        let step =
            format!("{} is of node {} of {}, and says otherwise", args.data_dir.display(), found.node, found.cluster);
        return Err(Error::damaged(step).with_fix("put the folder back as it was: its parts are of two coordinators"));
    }
    survivor.check()?;
    if !args.accept_loss {
        show(output, &member, &found, false)?;
        let step =
            format!("nothing was changed: what others acknowledged after entry {} would be lost", found.last_index);
        return Err(Error::new(ErrorKind::Usage, step).with_fix(
            "Try to start the others first. If they are gone for good, look at the folders of all that are left, take the one \
             with the latest term and then the latest entry, and say --accept-loss",
        ));
    }
    let anew = member.anew();
    anew.write(&args.data_dir)?;
    let at = LogTime::of(SystemClock.now());
    survivor.recover(&anew.cluster(), &identity::default_identity(), CommandId(rand::rng().random()), at)?;
    show(output, &anew, &found, true)?;
    output.note(format!(
        "Start it: verger coordinator --data-dir {} ...; then others join in empty folders: verger cluster join",
        args.data_dir.display()
    ));
    Ok(())
}

fn show(output: Output, member: &Member, found: &Found, recovered: bool) -> Result<()> {
    let Found { voters, last_index, last_term, committed, .. } = found;
    if output.json {
        return output.document(&json!({
            "cluster": member.cluster(), "node": member.node, "voters": voters, "lastIndex": last_index,
            "lastTerm": last_term, "committed": committed, "recovered": recovered,
        }));
    }
    let voters: Vec<String> = voters.iter().map(u64::to_string).collect();
    output.line(format!("coordinator {} of {}, which voted with {}", member.node, member.name, voters.join(", ")))?;
    output.line(format!("last entry: {last_index} of term {last_term}; known to be a majority's: {committed}"))?;
    output.line("what it has is kept; what others acknowledged later is lost, and no repository is touched")?;
    if recovered {
        output.line(format!("it is a cluster of one now, {}", member.cluster()))?;
    }
    Ok(())
}
