use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::*;
use crate::content::ContentId;
use crate::content::read::read_content;
use crate::directory::{Directory, EntryType, parse_object, parse_slice};
use crate::index_set::load_view;
use crate::index_set::testing::{Golden, golden};
use crate::manifest::{Manifest, ManifestSet};
use crate::object::{ObjectId, resolve};
use std::collections::{BTreeMap, BTreeSet};

fn sorted(list: &Value) -> BTreeMap<String, Value> {
    list.as_array().unwrap().iter().map(|item| (item["id"].as_str().unwrap().to_owned(), item.clone())).collect()
}

fn golden_names() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden");
    let names = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.strip_suffix(".tar.gz").map(str::to_owned)).collect()
}

#[test]
fn every_golden_repository_lists_and_walks_as_kopia_does() {
    let names = golden_names();
    assert!(names.len() >= 27);
    let chunked: usize = names.iter().map(|name| walk(name, &golden(name))).sum();
    assert!(chunked > 0, "no golden repository has a directory in chunks");
}

/// Holds lists against Kopia's, then walks all snapshots as garbage collection has to, and holds the used contents against what
/// Kopia's own left live. Gives the number of directories in chunks.
fn walk(name: &str, golden: &Golden) -> usize {
    let view = load_view(&golden.repository, 2).unwrap();
    let manifests = ManifestSet::load(&golden.repository, &view).unwrap();
    assert!(manifests.unreadable.is_empty(), "{name}");
    let expect = &golden.expect["before"];
    assert_eq!(sorted(&json!(manifests.list())), sorted(&expect["manifests"]), "{name}");

    let (snapshots, unreadable) = load_snapshots(&manifests);
    assert!(unreadable.is_empty(), "{name}");
    let listed = list(snapshots, &manifests, &TimeZone::UTC);
    assert_eq!(json!(listed), expect["snapshots"], "{name}");

    let mut chunked = 0;
    let mut fetch = |id: &ContentId| {
        let row = view.table.find(id).unwrap_or_else(|| panic!("{name}: {id} is not in the index"));
        read_content(&golden.repository, &view.table.entry(row))
    };
    let mut todo: Vec<(ObjectId, bool)> =
        load_snapshots(&manifests).0.iter().map(|s| (s.root_entry.obj, s.root_entry.kind == "d")).collect();
    let (mut seen, mut used) = (BTreeSet::new(), BTreeSet::new());
    while let Some((object, is_directory)) = todo.pop() {
        if !seen.insert((object, is_directory)) {
            continue;
        }
        resolve(&object, &mut fetch, &mut |found| {
            used.insert(found.id.to_string());
        })
        .unwrap();
        if is_directory {
            let mut visited = 0;
            parse_object(object, &mut fetch, |child| {
                visited += 1;
                todo.push((child.object, child.kind == EntryType::Directory));
            })
            .unwrap();
            let mut whole = Vec::new();
            let mut reader = crate::object::ObjectReader::open(object, &mut fetch).unwrap();
            std::io::Read::read_to_end(&mut reader, &mut whole).unwrap();
            assert_eq!(Directory::parse(&whole).unwrap().entries.map_or(0, |e| e.len()), visited, "{name} {object}");
            if object.indirection > 0 {
                chunked += 1;
                // No chunk of a large directory may pass for a directory (R8).
                let mut fragments = Vec::new();
                resolve(&object, &mut fetch, &mut |found| fragments.push(found.id)).unwrap();
                assert!(fragments.len() > 2);
                assert!(fragments.iter().all(|id| parse_slice(&fetch(id).unwrap(), |_| ()).is_err()), "{name}");
            }
        }
    }
    let kept: BTreeSet<String> = golden.expect["after"]["contents"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|content| content["deleted"] != json!(true))
        .map(|content| content["contentID"].as_str().unwrap().to_owned())
        .filter(|id| !id.starts_with('m'))
        .collect();
    assert_eq!(used, kept, "{name}");
    chunked
}

fn manifest(body: &str) -> Manifest {
    Manifest {
        id: "aa".into(),
        labels: BTreeMap::from([("type".into(), "snapshot".into()), ("hostname".into(), "h".into())]),
        modified: jiff::Timestamp::UNIX_EPOCH,
        data: serde_json::from_str(body).unwrap(),
    }
}

#[test]
fn a_snapshot_that_does_not_parse_is_reported() {
    let good = r#"{"id":"","source":{"host":"h"},"rootEntry":{"type":"d","obj":"k82b3"},"tags":null,"pins":null}"#;
    let snapshot = Snapshot::from_manifest(&manifest(good)).unwrap();
    assert_eq!((snapshot.id.as_str(), snapshot.is_complete()), ("aa", true));
    for (from, to) in [
        (r#"{"type":"d","obj":"k82b3"}"#, "null"),
        (r#"{"type":"d","obj":"k82b3"}"#, "{}"),
        (r#""obj":"k82b3""#, r#""obj":"""#),
        (r#""obj":"k82b3""#, r#""obj":null"#),
        (r#"rootEntry"#, "other"),
        (r#"{"host":"h"}"#, r#"{"host":1}"#),
        (r#""tags":null"#, r#""startTime":"noon""#),
    ] {
        let mut set = ManifestSet::default();
        set.manifests.insert("aa".into(), manifest(&good.replace(from, to)));
        let (snapshots, unreadable) = load_snapshots(&set);
        assert!(snapshots.is_empty(), "{to}");
        assert_eq!((unreadable[0].id.as_str(), unreadable[0].source.to_string().as_str()), ("aa", "@h"), "{to}");
    }
}
