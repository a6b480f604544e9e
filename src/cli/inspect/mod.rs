//! `verger inspect`: what is in a repository, as Kopia's own commands show it.

mod data;
mod lists;
mod status;

use clap::Subcommand;
use verger_kopia::index_set::{IndexView, load_view};
use verger_kopia::storage::Access;
use verger_kopia::{Repository, Result};

use super::Context;
use crate::config::{Engine, EngineArgs, RepositoryArgs, Target};
use crate::exit::Exit;

const EXAMPLES: &str = "Examples:
  verger inspect status filesystem:///srv/backup            format, algorithms, epochs
  verger inspect snapshots --json s3://bucket/kopia/        with the reasons why each is kept
  verger inspect contents --deleted filesystem:///srv/x     marks too
  verger inspect object kffbb4c… filesystem:///srv/x        a directory's entries; a file's bytes
  verger inspect content mf2ab0… --json filesystem:///srv/x where a content lies

Reads only. The shapes of --json are those of Kopia's own commands: docs/json.md.";

/// What to look at.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Format, algorithms, unique ID
    #[command(after_help = "Examples:\n  verger inspect status filesystem:///srv/backup")]
    Status(Plain),
    /// Contents in the index, where they lie, how long they are
    #[command(after_help = "Examples:\n  verger inspect contents --deleted --json filesystem:///srv/backup")]
    Contents(Contents),
    /// All blobs in the store
    #[command(after_help = "Examples:\n  verger inspect blobs s3://bucket/kopia/")]
    Blobs(Plain),
    /// Active index blobs
    #[command(after_help = "Examples:\n  verger inspect indexes filesystem:///srv/backup")]
    Indexes(Plain),
    /// Epochs of the index
    #[command(after_help = "Examples:\n  verger inspect epochs filesystem:///srv/backup")]
    Epochs(Plain),
    /// Manifests: snapshots, policies, maintenance parameters
    #[command(after_help = "Examples:\n  verger inspect manifests filesystem:///srv/backup")]
    Manifests(Plain),
    /// Snapshots, incomplete ones too, and why each is kept
    #[command(after_help = "Examples:\n  verger inspect snapshots filesystem:///srv/backup")]
    Snapshots(Plain),
    /// Bytes of one content; with --json where it lies
    #[command(after_help = "Examples:\n  verger inspect content mf2ab0… filesystem:///srv/backup | zcat")]
    Content(Item),
    /// Bytes of a file, or entries of a directory
    #[command(after_help = "Examples:\n  verger inspect object kffbb4c… filesystem:///srv/backup")]
    Object(Item),
}

#[derive(Debug, clap::Args)]
struct Plain {
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    repository: RepositoryArgs,
}

#[derive(Debug, clap::Args)]
struct Contents {
    /// Also contents that are marked as deleted and not yet dropped
    #[arg(long)]
    deleted: bool,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Debug, clap::Args)]
struct Item {
    /// Its ID
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    plain: Plain,
}

/// An open repository and how many requests may run at once.
struct Open {
    repository: Repository,
    threads: usize,
}

impl Open {
    fn new(context: &Context, plain: Plain) -> Result<Self> {
        let engine = Engine::resolve(plain.engine, context.file.engine.clone())?;
        let target = Target::resolve(plain.repository, context.file.repository.clone())?;
        let repository = target.open_repository(&engine, Access::ReadOnly)?;
        let threads = engine.threads(repository.storage().capabilities().local_disk);
        Ok(Self { repository, threads })
    }

    fn view(&self) -> Result<IndexView> {
        load_view(&self.repository, self.threads)
    }
}

/// Looks and prints.
pub(crate) fn run(context: &Context, args: Args) -> Result<Exit> {
    let output = context.output;
    let open = |plain| Open::new(context, plain);
    match args.what {
        What::Status(plain) => status::run(output, &open(plain)?),
        What::Contents(args) => lists::contents(output, &open(args.plain)?, args.deleted),
        What::Blobs(plain) => lists::blobs(output, &open(plain)?),
        What::Indexes(plain) => lists::indexes(output, &open(plain)?),
        What::Epochs(plain) => lists::epochs(output, &open(plain)?),
        What::Manifests(plain) => lists::manifests(output, &open(plain)?),
        What::Snapshots(plain) => lists::snapshots(output, &open(plain)?),
        What::Content(args) => {
            let id = args.id.parse()?;
            data::content(output, &open(args.plain)?, &id)
        }
        What::Object(args) => {
            let id = args.id.parse()?;
            data::object(output, &open(args.plain)?, id)
        }
    }
    .map(|()| Exit::Done)
}
