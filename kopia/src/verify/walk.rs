//! Walks every snapshot's tree in Kopia's manner: object by object, each once.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::Read;
use std::rc::Rc;

use super::{Check, Problem, Report, json};
use crate::compression::Decompressor;
use crate::content::ContentId;
use crate::content::read::read_content;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::ManifestSet;
use crate::object::ObjectId;

/// Paths told for a problem.
const PATHS_MAX: usize = 10;
/// Seek tables in seek tables.
const DEPTH_MAX: u32 = 32;
/// Most bytes a legacy `Z` object may become; Kopia's largest splitter makes 16 MiB.
const CHUNK_BYTES_MAX: usize = 256 << 20;
/// How often one object may be a part of one directory or seek table. Kopia writes none twice; tables that name one another over and
/// over are without end.
const REPEATS_MAX: u32 = 64;

#[derive(serde::Deserialize)]
struct Root {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    obj: String,
}

#[derive(serde::Deserialize)]
struct Body {
    #[serde(rename = "rootEntry")]
    root: Option<Root>,
}

struct Walker<'a, 'b> {
    check: &'a Check<'b>,
    seen: HashSet<(ObjectId, bool)>,
    used: BTreeSet<ContentId>,
    /// Indirect objects that were gone into.
    known: HashMap<ObjectId, Known>,
    /// Problems by what is wrong: (subject, text).
    found: Vec<(String, String)>,
    directories: u64,
    files: u64,
}

/// What is to be done next in a tree.
enum Step {
    /// Look at an object, as a directory or not.
    Visit(String, bool),
    /// All below this directory was looked at.
    Leave(ObjectId),
}

/// What is known of an indirect object.
#[derive(Clone)]
enum Known {
    /// It is being gone into: whoever meets it now is a part of it.
    Open,
    /// All of it is there, in so many levels of tables.
    Sound(u32),
    /// What is wrong with it.
    Bad(String),
}

/// Checks all snapshots; the contents they need.
pub(super) fn check(check: &Check<'_>, manifests: &ManifestSet, report: &mut Report) -> Result<BTreeSet<ContentId>> {
    let mut walker = Walker {
        check,
        seen: HashSet::new(),
        used: BTreeSet::new(),
        known: HashMap::new(),
        found: Vec::new(),
        directories: 0,
        files: 0,
    };
    let snapshots: Vec<_> = manifests.of_type("snapshot").collect();
    let mut bad = Vec::new();
    for (index, manifest) in snapshots.iter().enumerate() {
        (check.progress)("walk", index as u64, snapshots.len() as u64);
        report.snapshots += 1;
        match serde_json::from_str::<Body>(manifest.data.get()).map(|body| body.root) {
            Ok(Some(root)) if !root.obj.is_empty() => {
                let before = walker.found.len();
                walker.tree(&root, &manifest.id)?;
                bad.extend(walker.found.drain(before..).map(|(subject, text)| (manifest.id.clone(), subject, text)));
            }
            Ok(_) => bad.push((manifest.id.clone(), manifest.id.clone(), "the snapshot has no root".to_owned())),
            Err(e) => bad.push((manifest.id.clone(), manifest.id.clone(), format!("it cannot be parsed: {e}"))),
        }
    }
    report.directories = walker.directories;
    report.files = walker.files;
    // A problem in a shared subtree is met once; which other snapshots it touches is found by walking those to its subject.
    let subjects: BTreeSet<String> = bad.iter().map(|(_, subject, _)| subject.clone()).collect();
    let touched = if subjects.is_empty() { Vec::new() } else { touched(check, &snapshots, &subjects)? };
    for (snapshot, subject, text) in bad {
        let mut problem = Problem { subject: subject.clone(), text, snapshots: vec![snapshot], paths: Vec::new() };
        for (id, path, object) in &touched {
            if *object == subject {
                if !problem.snapshots.contains(id) {
                    problem.snapshots.push(id.clone());
                }
                if problem.paths.len() < PATHS_MAX && !problem.paths.contains(path) {
                    problem.paths.push(path.clone());
                }
            }
        }
        report.add(check.options, problem);
    }
    Ok(walker.used)
}

impl Walker<'_, '_> {
    fn tree(&mut self, root: &Root, snapshot: &str) -> Result<()> {
        let mut stack = vec![Step::Visit(root.obj.clone(), root.kind == "d")];
        // Directories between the root and here.
        let mut above: HashSet<ObjectId> = HashSet::new();
        while let Some(step) = stack.pop() {
            self.check.go_on()?;
            let (text, is_directory) = match step {
                Step::Visit(text, is_directory) => (text, is_directory),
                Step::Leave(object) => {
                    above.remove(&object);
                    continue;
                }
            };
            let Ok(object) = text.parse::<ObjectId>() else {
                self.found.push((snapshot.to_owned(), format!("{text:?} is not an object ID")));
                continue;
            };
            if is_directory && above.contains(&object) {
                self.found.push((text, "the directory is inside of itself: a restore would never end".to_owned()));
                continue;
            }
            if !self.seen.insert((object, is_directory)) {
                continue;
            }
            if !is_directory {
                self.files += 1;
                self.settle(&text, |walker| walker.contents(&object, 0).map(drop))?;
                continue;
            }
            self.directories += 1;
            let mut children = Vec::new();
            self.settle(&text, |walker| {
                walker.contents(&object, 0)?;
                let mut bytes = Bytes::new(walker.check, &object)?;
                json::directory(&mut bytes, &mut |entry| children.push(Step::Visit(entry.obj, entry.kind == "d")))
            })?;
            above.insert(object);
            stack.push(Step::Leave(object));
            stack.append(&mut children);
        }
        Ok(())
    }

    /// Turns damage into a finding; passes on what says nothing about the data.
    fn settle(&mut self, subject: &str, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        match work(self) {
            Err(e) if e.is_retryable() || e.kind() == ErrorKind::Interrupted => Err(e),
            Err(e) => {
                self.found.push((subject.to_owned(), e.chain()));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Notes every content behind an object and checks that it is there. How many levels of tables it has.
    fn contents(&mut self, object: &ObjectId, depth: u32) -> Result<u32> {
        if object.indirection == 0 {
            if self.used.insert(object.content)
                && let Some(text) = self.check.place(&object.content)
            {
                self.used.remove(&object.content);
                return Err(Error::damaged(format!("content {}: {text}", object.content)));
            }
            return Ok(0);
        }
        let levels = match self.known.insert(*object, Known::Open) {
            None => self.indirect(object, depth),
            Some(Known::Open) => Err(Error::damaged(format!("object {object} is a part of itself"))),
            Some(Known::Sound(levels)) if depth.saturating_add(levels) > DEPTH_MAX => Err(too_deep(object)),
            Some(Known::Sound(levels)) => Ok(levels),
            Some(Known::Bad(text)) => Err(Error::damaged(text)),
        };
        let known = match &levels {
            Ok(levels) => Known::Sound(*levels),
            // One that does not answer now may answer later.
            Err(error) if error.is_retryable() || error.kind() == ErrorKind::Interrupted => Known::Open,
            Err(error) => Known::Bad(error.chain()),
        };
        self.known.insert(*object, known);
        levels
    }

    fn indirect(&mut self, object: &ObjectId, depth: u32) -> Result<u32> {
        self.check.go_on()?;
        let table = inner(object, depth)?;
        let mut levels = self.contents(&table, depth + 1)?;
        let mut failure = None;
        for part in parts(self.check, &table)? {
            match self.contents(&part.object.parse()?, depth + 1) {
                Ok(below) => levels = levels.max(below),
                // The parts after it are needed all the same.
                Err(error) if !error.is_retryable() && error.kind() != ErrorKind::Interrupted => {
                    failure.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        failure.map_or(Ok(levels + 1), Err)
    }
}

fn inner(object: &ObjectId, depth: u32) -> Result<ObjectId> {
    if depth >= DEPTH_MAX {
        return Err(too_deep(object));
    }
    Ok(ObjectId { indirection: object.indirection - 1, ..*object })
}

fn too_deep(object: &ObjectId) -> Error {
    Error::damaged(format!("object {object} is nested too deeply"))
}

fn parts(check: &Check<'_>, table: &ObjectId) -> Result<Vec<json::Part>> {
    let mut parts = Vec::new();
    json::seek_table(&mut Bytes::new(check, table)?, &mut |part| parts.push(part))?;
    let mut end = 0;
    for part in &parts {
        if part.start != end {
            return Err(Error::damaged(format!("seek table {table} has a gap at {end}")));
        }
        end = part
            .start
            .checked_add(part.length)
            .ok_or_else(|| Error::damaged(format!("seek table {table} overflows")))?;
    }
    Ok(parts)
}

/// The bytes of a directory or a seek table, chunk after chunk.
struct Bytes<'a, 'b> {
    check: &'a Check<'b>,
    depth: u32,
    left: std::vec::IntoIter<(ObjectId, Option<u64>)>,
    nested: Option<Box<Bytes<'a, 'b>>>,
    /// How often each part came, at any depth.
    times: Rc<RefCell<HashMap<ObjectId, u32>>>,
    chunk: std::io::Cursor<Vec<u8>>,
}

impl<'a, 'b> Bytes<'a, 'b> {
    fn new(check: &'a Check<'b>, object: &ObjectId) -> Result<Self> {
        Self::at(check, object, None, 0, Rc::default())
    }

    fn at(
        check: &'a Check<'b>,
        object: &ObjectId,
        length: Option<u64>,
        depth: u32,
        times: Rc<RefCell<HashMap<ObjectId, u32>>>,
    ) -> Result<Self> {
        let mut chunks = Vec::new();
        if object.indirection == 0 {
            chunks.push((*object, None));
        } else {
            for part in parts(check, &inner(object, depth)?)? {
                chunks.push((part.object.parse()?, Some(part.length)));
            }
            let sum = chunks.iter().filter_map(|(_, length)| *length).sum();
            if length.is_some_and(|length| length != sum) {
                return Err(other_length(object, sum));
            }
        }
        let chunk = std::io::Cursor::default();
        Ok(Self { check, depth, left: chunks.into_iter(), nested: None, times, chunk })
    }

    /// Moves on to the next chunk; false at the end.
    fn next(&mut self) -> Result<bool> {
        let Some((object, length)) = self.left.next() else { return Ok(false) };
        let times = *self.times.borrow_mut().entry(object).and_modify(|times| *times += 1).or_insert(1);
        if times > REPEATS_MAX {
            return Err(Error::damaged(format!("chunk {object} comes again and again")));
        }
        self.check.go_on()?;
        if object.indirection > 0 {
            let nested = Self::at(self.check, &object, length, self.depth + 1, Rc::clone(&self.times))?;
            self.nested = Some(Box::new(nested));
            return Ok(true);
        }
        let table = &self.check.view.table;
        let row = table.find(&object.content);
        let row = row.ok_or_else(|| Error::damaged(format!("content {}: no index entry names it", object.content)))?;
        let mut plain = read_content(self.check.repository, &table.entry(row))?;
        if object.compressed {
            let stored = std::mem::take(&mut plain);
            Decompressor::new().decompress_headed(&stored, CHUNK_BYTES_MAX, &mut plain)?;
        }
        if length.is_some_and(|length| length != plain.len() as u64) {
            return Err(other_length(&object, plain.len() as u64));
        }
        self.chunk = std::io::Cursor::new(plain);
        Ok(true)
    }
}

fn other_length(chunk: &ObjectId, found: u64) -> Error {
    Error::damaged(format!("chunk {chunk} has {found} bytes, its seek table says otherwise"))
}

impl Read for Bytes<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            if let Some(nested) = &mut self.nested {
                let count = nested.read(buffer)?;
                if count > 0 {
                    return Ok(count);
                }
                self.nested = None;
            }
            let count = self.chunk.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            match self.next() {
                Ok(true) => {}
                Ok(false) => return Ok(0),
                Err(e) => return Err(std::io::Error::other(e)),
            }
        }
    }
}

/// Where in which snapshots the subjects are used: (snapshot, path, subject). Walks trees again, past nothing that was seen in the
/// same snapshot; what cannot be read ends its branch.
fn touched(
    check: &Check<'_>,
    snapshots: &[&crate::manifest::Manifest],
    subjects: &BTreeSet<String>,
) -> Result<Vec<(String, String, String)>> {
    let mut touched = Vec::new();
    for manifest in snapshots {
        let Ok(Body { root: Some(root) }) = serde_json::from_str(manifest.data.get()) else { continue };
        let mut seen = HashSet::new();
        let mut stack = vec![(root.obj, root.kind == "d", "/".to_owned())];
        while let Some((text, is_directory, path)) = stack.pop() {
            check.go_on()?;
            if subjects.contains(&text) {
                touched.push((manifest.id.clone(), path.clone(), text.clone()));
            }
            if !is_directory || !seen.insert(text.clone()) {
                continue;
            }
            let Ok(object) = text.parse::<ObjectId>() else { continue };
            let folder = path.trim_end_matches('/').to_owned();
            let mut each = |entry: json::Entry| {
                stack.push((entry.obj, entry.kind == "d", format!("{folder}/{}", entry.name)));
            };
            let read = Bytes::new(check, &object).and_then(|mut bytes| json::directory(&mut bytes, &mut each));
            if let Err(e) = read
                && e.is_retryable()
            {
                return Err(e);
            }
        }
    }
    Ok(touched)
}
