//! Which contents stand behind an object.

use std::collections::HashSet;

use super::read::{NESTING_MAX, read_table, too_deep};
use super::{ObjectId, SeekTable};
use crate::compression::Decompressor;
use crate::content::ContentId;
use crate::error::Result;

/// What a content is to its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContentRole {
    /// Bytes of the object.
    Data,
    /// Bytes of a seek table.
    Table,
}

/// A content that an object needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentUse {
    /// The content.
    pub content: ContentId,
    /// What it is there for.
    pub role: ContentRole,
}

/// What was found behind an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ObjectParts {
    /// Contents visited; one that is used twice counts twice.
    pub contents: u64,
    /// Seek tables read.
    pub tables: u64,
    /// Length in bytes, if a table states it.
    pub length: Option<u64>,
}

type Fetch<'a> = dyn FnMut(&ContentId) -> Result<Vec<u8>> + 'a;

/// Visits all contents behind `object`: of its data and of its seek tables, at every level. Only tables are read, by `fetch`;
/// a direct object is visited without reading anything.
///
/// # Errors
/// Those of `fetch`; `Damaged` if a table is malformed. What was visited before stands, but is not all.
pub fn resolve(object: &ObjectId, fetch: &mut Fetch<'_>, visit: &mut dyn FnMut(ContentUse)) -> Result<ObjectParts> {
    let mut walk =
        Walk { fetch, visit, decompressor: Decompressor::new(), seen: HashSet::new(), parts: ObjectParts::default() };
    if let Some(table) = walk.object(object, ContentRole::Data, NESTING_MAX)? {
        walk.parts.length = Some(table);
    }
    Ok(walk.parts)
}

struct Walk<'a, 'b> {
    fetch: &'a mut Fetch<'b>,
    visit: &'a mut dyn FnMut(ContentUse),
    decompressor: Decompressor,
    /// Indirect objects already gone through: tables that name each other over and over must not multiply the work.
    seen: HashSet<(ObjectId, ContentRole)>,
    parts: ObjectParts,
}

impl Walk<'_, '_> {
    /// Length of an indirect object.
    fn object(&mut self, object: &ObjectId, role: ContentRole, depth: u32) -> Result<Option<u64>> {
        let Some(table) = object.table() else {
            self.parts.contents = self.parts.contents.saturating_add(1);
            (self.visit)(ContentUse { content: object.content, role });
            return Ok(None);
        };
        if !self.seen.insert((*object, role)) {
            return Ok(None);
        }
        let depth = depth.checked_sub(1).ok_or_else(|| too_deep(object))?;
        self.object(&table, ContentRole::Table, depth)?;
        let SeekTable { entries } = read_table(&table, &mut *self.fetch, &mut self.decompressor, depth)?;
        self.parts.tables = self.parts.tables.saturating_add(1);
        for part in &entries {
            self.object(&part.object, role, depth)?;
        }
        Ok(entries.last().map(|last| last.start.saturating_add(last.length)))
    }
}
