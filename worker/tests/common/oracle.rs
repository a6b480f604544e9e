//! Reachability the slow way, as the real program walks: one snapshot after another, each object by itself, names and all.
//! Shares nothing with the scan and the solve but reading single contents; parses with `serde_json`.

use std::collections::BTreeSet;

use serde_json::Value;
use verger_kopia::Repository;
use verger_kopia::compression::Decompressor;
use verger_kopia::content::ContentId;
use verger_kopia::content::read::read_content;
use verger_kopia::index::Table;

pub struct Oracle<'a> {
    repository: &'a Repository,
    table: &'a Table,
    seen: BTreeSet<(String, bool)>,
    pub used: BTreeSet<ContentId>,
}

impl<'a> Oracle<'a> {
    pub fn new(repository: &'a Repository, table: &'a Table) -> Self {
        Self { repository, table, seen: BTreeSet::new(), used: BTreeSet::new() }
    }

    /// Walks an entry of a directory, or a root.
    pub fn entry(&mut self, entry: &Value) {
        let object = entry["obj"].as_str().unwrap();
        let directory = entry["type"] == "d";
        if !self.seen.insert((object.to_owned(), directory)) {
            return;
        }
        self.backing(object);
        if directory {
            let listing: Value = serde_json::from_slice(&self.read(object)).unwrap();
            assert_eq!(listing["stream"], "kopia:directory");
            for entry in listing["entries"].as_array().into_iter().flatten() {
                self.entry(entry);
            }
        }
    }

    fn backing(&mut self, object: &str) {
        if let Some(index) = object.strip_prefix('I') {
            self.backing(index);
            for chunk in self.chunks(index) {
                self.backing(&chunk);
            }
        } else {
            self.used.insert(content_of(object));
        }
    }

    fn chunks(&self, index: &str) -> Vec<String> {
        let table: Value = serde_json::from_slice(&self.read(index)).unwrap();
        assert_eq!(table["stream"], "kopia:indirect");
        table["entries"].as_array().unwrap().iter().map(|entry| entry["o"].as_str().unwrap().to_owned()).collect()
    }

    fn read(&self, object: &str) -> Vec<u8> {
        if let Some(index) = object.strip_prefix('I') {
            return self.chunks(index).iter().flat_map(|chunk| self.read(chunk)).collect();
        }
        let id = content_of(object);
        let row = self.table.find(&id).unwrap_or_else(|| panic!("no content {id}"));
        let plain = read_content(self.repository, &self.table.entry(row)).unwrap();
        if !object.starts_with('Z') {
            return plain;
        }
        let mut out = Vec::new();
        Decompressor::new().decompress_headed(&plain, 1 << 30, &mut out).unwrap();
        out
    }
}

fn content_of(object: &str) -> ContentId {
    object.trim_start_matches(['Z', 'D']).parse().unwrap()
}
