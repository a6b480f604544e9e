//! The files that simulated clients back up: few, small, and the same for all, so that what one client drops another one
//! takes up again. Directories have no times of their own: the same files make the same directory.

use std::collections::BTreeMap;

use serde_json::json;
use verger_kopia::Repository;
use verger_kopia::content::ContentId;

/// Different files that there are.
pub const FILES: usize = 36;
/// Files of one client's tree, over the folders.
pub const TREE: usize = 9;
const FOLDERS: usize = 3;

/// A content: its prefix (0 for none) and its plaintext.
pub type Plain = (u8, Vec<u8>);

/// One object: its contents, and its ID in a directory.
#[derive(Clone)]
pub struct Object {
    pub id: String,
    pub contents: Vec<(ContentId, Plain)>,
    pub length: usize,
}

/// All files, with the IDs that they have in this repository.
pub struct Files(Vec<Object>);

impl Files {
    pub fn new(repository: &Repository) -> Self {
        Self((0..FILES).map(|number| file(repository, number)).collect())
    }

    pub fn get(&self, number: usize) -> &Object {
        &self.0[number]
    }

    /// The directories of a tree, the root last. `tree`: numbers of files by place; places that are not there yet are left out.
    pub fn directories(&self, repository: &Repository, tree: &BTreeMap<usize, usize>) -> Vec<Object> {
        let mut folders: BTreeMap<usize, Vec<serde_json::Value>> = BTreeMap::new();
        for (place, number) in tree {
            let object = self.get(*number);
            folders.entry(place % FOLDERS).or_default().push(listed(&format!("f{place:02}"), "f", object));
        }
        let mut objects = Vec::new();
        let mut top = Vec::new();
        for (folder, entries) in folders {
            let object = directory(repository, &entries);
            top.push(listed(&format!("d{folder}"), "d", &object));
            objects.push(object);
        }
        objects.push(directory(repository, &top));
        objects
    }
}

fn id_of(repository: &Repository, prefix: u8, plain: &[u8]) -> ContentId {
    ContentId::new(prefix, repository.hasher().hash(plain)).unwrap()
}

/// One of four is so large that it has a seek table.
fn file(repository: &Repository, number: usize) -> Object {
    let text = |part: usize| format!("file {number} part {part}\n").repeat(3 + number * 2).into_bytes();
    let plain = |prefix, plain: Vec<u8>| (id_of(repository, prefix, &plain), (prefix, plain));
    if !number.is_multiple_of(4) {
        let content = plain(0, text(0));
        return Object { id: content.0.to_string(), length: content.1.1.len(), contents: vec![content] };
    }
    let mut contents = vec![plain(0, text(0)), plain(0, text(1))];
    let first = contents[0].1.1.len();
    let second = contents[1].1.1.len();
    let table = json!({"stream": "kopia:indirect", "entries": [
        {"l": first, "o": contents[0].0.to_string()}, {"s": first, "l": second, "o": contents[1].0.to_string()}]});
    let table = plain(b'x', format!("{table}\n").into_bytes());
    let id = format!("I{}", table.0);
    contents.push(table);
    Object { id, contents, length: first + second }
}

fn listed(name: &str, kind: &str, object: &Object) -> serde_json::Value {
    json!({"name": name, "type": kind, "mode": "0644", "size": object.length, "mtime": "2020-01-01T00:00:00Z",
        "obj": object.id})
}

fn directory(repository: &Repository, entries: &[serde_json::Value]) -> Object {
    let summary =
        json!({"size": 0, "files": entries.len(), "symlinks": 0, "dirs": 1, "maxTime": "2020-01-01T00:00:00Z"});
    let text = json!({"stream": "kopia:directory", "entries": entries, "summary": summary}).to_string().into_bytes();
    let id = id_of(repository, b'k', &text);
    Object { id: id.to_string(), length: text.len(), contents: vec![(id, (b'k', text))] }
}
