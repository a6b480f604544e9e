//! Which snapshots and paths a fault touches. Names are kept only here, and only what leads to a fault is walked again.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::Deserialize;
use verger_kopia::bitmap::Bitmap;
use verger_kopia::directory::EntryType;
use verger_kopia::error::Result;
use verger_kopia::object::ObjectId;

use super::bulk;
use super::holds;
use super::reader::ObjectReader;
use super::solve::{Damage, Touch, Walk, by_object, object_name};
use super::summary::{Edge, Holds, Role, Target, resolve};
use super::survey::{Root, Survey};

/// Places that are named for each damage.
const TOUCHES_MAX: usize = 100;

/// Everything that is wrong, with the places it touches.
///
/// # Errors
/// `StoreUnavailable`, `Permission`, `Interrupted`.
pub(super) fn damages(walk: &Walk<'_>, survey: &Survey) -> Result<Vec<Damage>> {
    let taint = Taint::spread(walk);
    let mut touches: BTreeMap<String, BTreeSet<Touch>> = BTreeMap::new();
    for root in &survey.roots {
        walk.workspace.stop.check()?;
        trace_root(walk, &taint, root, &mut touches)?;
    }
    let damage = |(object, (wrong, error)): (String, (_, _))| {
        let touches = touches.remove(&object).unwrap_or_default().into_iter().collect();
        Damage { wrong, object, error, touches }
    };
    Ok(by_object(walk).into_iter().map(damage).collect())
}

/// Rows from which a fault can be reached.
struct Taint {
    directories: Bitmap,
    tables: Bitmap,
}

impl Taint {
    fn spread(walk: &Walk<'_>) -> Self {
        let mut taint =
            Self { directories: Bitmap::new(walk.table.len() as u32), tables: Bitmap::new(walk.table.len() as u32) };
        for (rows, holds) in [(walk.tabled(), Holds::Table), (walk.listed(), Holds::Directory)] {
            let order = leaves_first(walk, rows, holds);
            // What lies below comes first, so once is enough, but for those that hold themselves.
            while taint.round(walk, &order, holds) {}
        }
        taint
    }

    fn round(&mut self, walk: &Walk<'_>, order: &[u32], holds: Holds) -> bool {
        let mut changed = false;
        for &row in order {
            let known = if holds == Holds::Table { &self.tables } else { &self.directories };
            if known.contains(row) {
                continue;
            }
            let tainted = match walk.edges(row, holds) {
                Some(edges) => edges.iter().any(|edge| self.may_lead(walk, *edge)),
                // Fetched by itself: it may point anywhere.
                None => true,
            };
            if tainted {
                let known = if holds == Holds::Table { &mut self.tables } else { &mut self.directories };
                changed |= known.insert(row);
            }
        }
        changed
    }

    fn may_lead(&self, walk: &Walk<'_>, edge: Edge) -> bool {
        if is_faulty(walk, edge) {
            return true;
        }
        match (edge.target, edge.role) {
            (Target::Missing(_), _) | (Target::Packed(_), Role::Directory) => true,
            (Target::Indirect { row, depth }, role) => {
                depth > 1 || role == Role::Directory || self.tables.contains(row)
            }
            (Target::Row(row), Role::Directory) => self.directories.contains(row),
            (Target::Row(_) | Target::Packed(_), Role::File) => false,
        }
    }
}

/// All `rows`, each after those that it leads to (as far as no row leads back to itself).
fn leaves_first(walk: &Walk<'_>, rows: &Bitmap, holds: Holds) -> Vec<u32> {
    enum Step {
        Enter(u32),
        Leave(u32),
    }
    let mut order = Vec::new();
    let mut seen = Bitmap::new(walk.table.len() as u32);
    for root in rows.iter() {
        let mut steps = vec![Step::Enter(root)];
        while let Some(step) = steps.pop() {
            match step {
                Step::Leave(row) => order.push(row),
                Step::Enter(row) => {
                    if !rows.contains(row) || !seen.insert(row) {
                        continue;
                    }
                    steps.push(Step::Leave(row));
                    let below = walk.edges(row, holds).unwrap_or_default();
                    steps.extend(below.into_iter().filter_map(|edge| match (edge.target, edge.role) {
                        (Target::Row(row), Role::Directory) if holds == Holds::Directory => Some(Step::Enter(row)),
                        (Target::Indirect { row, .. }, _) if holds == Holds::Table => Some(Step::Enter(row)),
                        _ => None,
                    }));
                }
            }
        }
    }
    order
}

fn is_faulty(walk: &Walk<'_>, edge: Edge) -> bool {
    walk.faults.contains_key(&(edge.target, edge.role)) || walk.faults.contains_key(&(edge.target, Role::File))
}

fn trace_root(
    walk: &Walk<'_>,
    taint: &Taint,
    root: &Root,
    touches: &mut BTreeMap<String, BTreeSet<Touch>>,
) -> Result<()> {
    let reader = walk.reader();
    let mut seen: HashSet<(Target, Role)> = HashSet::new();
    let target = resolve(walk.table, &root.object);
    let mut todo = vec![(Edge { role: root.role, target }, String::new())];
    while let Some((edge, path)) = todo.pop() {
        if !taint.may_lead(walk, edge) {
            continue;
        }
        let first = seen.insert((edge.target, edge.role));
        for name in blame(walk, taint, &reader, edge)? {
            let places = touches.entry(name).or_default();
            if places.len() < TOUCHES_MAX {
                places.insert(Touch { snapshot: root.snapshot.clone(), path: path.clone() });
            }
        }
        if edge.role == Role::Directory && first {
            let mut bytes = Vec::new();
            let read = reader.read(object_name(walk.table, edge.target), &mut |chunk| {
                bytes.extend_from_slice(chunk);
                Ok(())
            });
            match read {
                Err(error) if !bulk::is_damage(&error) => return Err(error),
                // That it cannot be read whole is a fault already.
                Err(_) => {}
                Ok(()) => todo.extend(below(walk, &bytes, &path)),
            }
        }
    }
    Ok(())
}

/// An entry, with its name.
#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    name: String,
    #[serde(rename = "type", default)]
    kind: String,
    obj: ObjectId,
}

#[derive(Deserialize)]
struct Listing {
    entries: Option<Vec<Entry>>,
}

fn below(walk: &Walk<'_>, directory: &[u8], path: &str) -> Vec<(Edge, String)> {
    let listing: Listing = serde_json::from_slice(directory).unwrap_or(Listing { entries: None });
    let step = |entry: Entry| {
        let role = holds::role(EntryType::from_text(&entry.kind));
        let path = if path.is_empty() { entry.name } else { format!("{path}/{}", entry.name) };
        (Edge { role, target: resolve(walk.table, &entry.obj) }, path)
    };
    listing.entries.into_iter().flatten().map(step).collect()
}

/// The faults of this very object: itself, its tables, or a chunk of it. Tables may name each other: each is looked into once.
fn blame(walk: &Walk<'_>, taint: &Taint, reader: &ObjectReader<'_>, edge: Edge) -> Result<Vec<String>> {
    let mut faulty = Vec::new();
    let mut seen = HashSet::from([edge.target]);
    let mut todo = vec![edge];
    while let Some(edge) = todo.pop() {
        if is_faulty(walk, edge) {
            faulty.push(object_name(walk.table, edge.target).to_string());
        }
        let inner = match edge.target {
            Target::Indirect { row, depth: 1 } if taint.tables.contains(row) => walk.edges(row, Holds::Table),
            Target::Indirect { row, depth } if depth > 1 => {
                // The table is an object itself. What it holds is not kept.
                let table = Edge { role: Role::File, target: Target::Indirect { row, depth: depth - 1 } };
                match reader.points(edge.target, Role::File) {
                    Err(error) if !bulk::is_damage(&error) => return Err(error),
                    parts => Some(parts.into_iter().flatten().chain([table]).collect()),
                }
            }
            _ => None,
        };
        todo.extend(inner.into_iter().flatten().filter(|inner| seen.insert(inner.target)));
    }
    Ok(faulty)
}
