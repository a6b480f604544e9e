//! The independent check: what a restore would need is there and can be read.
//!
//! It shares the codecs with the engine, but neither the walk nor the directory parser: a mistake in scan or solve must not
//! hide itself here. Snapshots are walked one after another, directories are parsed by `serde_json`.

mod contents;
mod json;
mod packs;
mod walk;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use crate::content::ContentId;
use crate::error::{Error, ErrorKind, Result};
use crate::index_set::{IndexView, load_view};
use crate::manifest::ManifestSet;
use crate::repository::Repository;
use crate::storage::BlobId;

/// What to check beyond reachability and pack lengths.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Read every live content and compare its hash with its ID.
    pub full: bool,
    /// Share of the file contents in use to read all the same, in percent (0 to 100).
    pub percent: f64,
    /// Threads that read.
    pub threads: usize,
    /// Most problems that are told apart; later ones are only counted.
    pub problems_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { full: false, percent: 0.0, threads: 4, problems_max: 1000 }
    }
}

/// Something a restore would stumble over.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The content, pack, object or manifest.
    pub subject: String,
    /// What is wrong.
    pub text: String,
    /// Snapshots that need it (manifest IDs).
    pub snapshots: Vec<String>,
    /// Paths in them, the first few.
    pub paths: Vec<String>,
}

/// What was checked and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Snapshots walked, incomplete ones included.
    pub snapshots: u64,
    /// Distinct directories read.
    pub directories: u64,
    /// Distinct file and symlink objects seen.
    pub files: u64,
    /// Live contents whose place in a pack was checked.
    pub contents: u64,
    /// Contents read and hashed.
    pub contents_read: u64,
    /// Stored bytes of the contents read.
    pub bytes_read: u64,
    /// Contents and blobs with damaged bytes that error correction made good, of all that was read.
    pub repaired_items: u64,
    /// Packs that live contents lie in.
    pub packs: u64,
    /// Problems told apart.
    pub problems: Vec<Problem>,
    /// Problems beyond those.
    pub further_problems: u64,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty() && self.further_problems == 0
    }

    /// How many.
    #[must_use]
    pub fn problems_found(&self) -> u64 {
        self.problems.len() as u64 + self.further_problems
    }

    fn add(&mut self, options: &Options, problem: Problem) {
        if self.problems.len() < options.problems_max {
            self.problems.push(problem);
        } else {
            self.further_problems += 1;
        }
    }
}

/// Hears how far the check is: stage (`packs`, `walk`, `contents`), done, total (0: not known).
pub type Progress<'a> = dyn Fn(&str, u64, u64) + Sync + 'a;

/// The check at work.
struct Check<'a> {
    repository: &'a Repository,
    view: &'a IndexView,
    options: &'a Options,
    stop: &'a AtomicBool,
    progress: &'a Progress<'a>,
    /// Lengths of all packs in the store.
    packs: BTreeMap<BlobId, u64>,
}

impl Check<'_> {
    fn go_on(&self) -> Result<()> {
        if self.stop.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Interrupted, "stopped on request; nothing was changed"));
        }
        Ok(())
    }

    /// What is wrong with the place of a content, if anything.
    fn place(&self, id: &ContentId) -> Option<String> {
        let Some(row) = self.view.table.find(id) else {
            return Some("no index entry names it".to_owned());
        };
        let entry = self.view.table.entry(row);
        packs::place(&self.packs, &entry)
    }
}

/// Checks the repository: every live content lies in a pack that is there and long enough; every snapshot's tree can be read and
/// every content it needs is visible; with `full`, every live content can be read and has the hash that its ID says.
///
/// # Errors
/// What keeps the check itself from going on: an unreadable index blob or listing, `Interrupted`. Damage is in the report.
pub fn verify(repository: &Repository, options: &Options, stop: &AtomicBool, progress: &Progress) -> Result<Report> {
    let repository = &repository.counting_repairs();
    let packs = packs::list(repository)?;
    let view = load_view(repository, options.threads)?;
    let manifests = ManifestSet::load(repository, &view)?;
    let check = Check { repository, view: &view, options, stop, progress, packs };
    let mut report = Report::default();
    for (id, error) in &manifests.unreadable {
        let text = format!("manifests in it cannot be read: {}", error.chain());
        report.add(options, Problem { subject: id.to_string(), text, snapshots: Vec::new(), paths: Vec::new() });
    }
    packs::check(&check, &mut report)?;
    let used = walk::check(&check, &manifests, &mut report)?;
    contents::check(&check, &used, &mut report)?;
    report.repaired_items = repository.cipher().repaired_items();
    Ok(report)
}
