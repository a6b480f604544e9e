//! The plaintext of `m` contents: gzip of JSON (`repo/manifest/serialized.go`).

use std::collections::BTreeMap;
use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Manifest;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::strict::Object;

/// Longest JSON of one content. Kopia puts all live manifests into one when it compacts: a million snapshots fit.
const JSON_BYTES_MAX: u64 = 1 << 30;

/// One write of a manifest, as stored: a new state, or a deletion.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ManifestEntry {
    /// 32 hex digits.
    pub id: String,
    /// Labels; none on a deletion.
    #[serde(default, deserialize_with = "null_is_empty", serialize_with = "empty_is_null")]
    pub labels: BTreeMap<String, String>,
    /// When it was written.
    pub modified: Timestamp,
    /// A deletion.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// Body; none on a deletion.
    #[serde(default)]
    pub data: Option<Box<RawValue>>,
}

impl ManifestEntry {
    /// A deletion of `id`.
    #[must_use]
    pub fn deletion(id: impl Into<String>, modified: Timestamp) -> Self {
        Self { id: id.into(), labels: BTreeMap::new(), modified, deleted: true, data: None }
    }

    /// A new state of `id`, or a new manifest (see [`new_id`]). Kopia refuses labels without `type`.
    #[must_use]
    pub fn put(
        id: impl Into<String>,
        labels: BTreeMap<String, String>,
        modified: Timestamp,
        data: Box<RawValue>,
    ) -> Self {
        Self { id: id.into(), labels, modified, deleted: false, data: Some(data) }
    }

    /// The body; `None` on a deletion.
    #[must_use]
    pub fn body(&self) -> Option<&str> {
        if self.deleted { None } else { Some(self.data.as_deref().map_or("null", RawValue::get)) }
    }

    /// Whether it beats `other`, an entry of the same manifest: later, and on a tie (Kopia's choice is arbitrary there) the one
    /// that keeps the manifest.
    #[must_use]
    pub fn beats(&self, other: &Self) -> bool {
        (self.modified, !self.deleted) > (other.modified, !other.deleted)
    }
}

impl From<&Manifest> for ManifestEntry {
    fn from(manifest: &Manifest) -> Self {
        Self::put(manifest.id.clone(), manifest.labels.clone(), manifest.modified, manifest.data.clone())
    }
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

fn empty_is_null<S: serde::Serializer>(labels: &BTreeMap<String, String>, to: S) -> Result<S::Ok, S::Error> {
    if labels.is_empty() { to.serialize_none() } else { labels.serialize(to) }
}

/// A random ID for a new manifest.
#[must_use]
pub fn new_id() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}

#[derive(Serialize, Deserialize)]
struct Stored<E> {
    entries: E,
}

/// The entries in the plaintext of one `m` content.
///
/// # Errors
/// `Damaged` if it is not gzip of this JSON, or an entry lacks its ID, or a live one its type: what it protects is then unknown.
/// `Unsupported` beyond 1 GiB of JSON.
pub fn decode(plain: &[u8]) -> Result<Vec<ManifestEntry>> {
    let mut json = Vec::new();
    MultiGzDecoder::new(plain)
        .take(JSON_BYTES_MAX + 1)
        .read_to_end(&mut json)
        .map_err(|error| Error::damaged("decompress manifests").with_source(error))?;
    if json.len() as u64 > JSON_BYTES_MAX {
        return Err(Error::new(ErrorKind::Unsupported, "decompress manifests: more than 1 GiB in one content"));
    }
    let Object(stored): Object<Stored<Vec<Object<ManifestEntry>>>> =
        serde_json::from_slice(&json).map_err(|error| Error::damaged("parse manifests").with_source(error))?;
    let entries: Vec<ManifestEntry> = stored.entries.into_iter().map(|Object(entry)| entry).collect();
    for entry in &entries {
        if entry.id.is_empty() {
            return Err(Error::damaged("parse manifests: one has no ID"));
        }
        if !entry.deleted && entry.labels.get("type").is_none_or(String::is_empty) {
            return Err(Error::damaged(format!("parse manifests: {} has no type", entry.id)));
        }
    }
    Ok(entries)
}

/// The plaintext of an `m` content that holds `entries`.
#[must_use]
pub fn encode(entries: &[ManifestEntry]) -> Vec<u8> {
    let mut json = serde_json::to_vec(&Stored { entries }).expect("strings, times and raw JSON always serialise");
    json.push(b'\n');
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&json).and_then(|()| gzip.finish()).expect("a Vec takes all bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gzip(text: &str) -> Vec<u8> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        gzip.finish().unwrap()
    }

    fn unzip(bytes: &[u8]) -> String {
        let mut text = String::new();
        MultiGzDecoder::new(bytes).read_to_string(&mut text).unwrap();
        text
    }

    const SAMPLE: &str = concat!(
        r#"{"entries":[{"id":"aa","labels":{"type":"snapshot"},"modified":"2026-11-21T09:37:54.764035366Z","data":{"a": 1.50}},"#,
        r#"{"id":"bb","labels":null,"modified":"2026-11-21T09:37:54Z","deleted":true,"data":null}]}"#,
        "\n"
    );

    #[test]
    fn entries_read_back_byte_for_byte() {
        let entries = decode(&gzip(SAMPLE)).unwrap();
        assert_eq!((entries[0].body(), entries[1].body()), (Some(r#"{"a": 1.50}"#), None));
        assert_eq!(unzip(&encode(&entries)), SAMPLE);
    }

    #[test]
    fn damage_anywhere_is_an_error() {
        let whole = gzip(SAMPLE);
        for length in 0..whole.len() {
            assert!(decode(&whole[..length]).is_err(), "{length}");
        }
        let text = SAMPLE.trim_end();
        for length in 0..text.len() {
            assert!(decode(&gzip(&text[..length])).is_err(), "{length}");
        }
        for (from, to) in [
            (r#""id":"aa","#, r#""id":"","#),
            (r#""id":"aa","#, ""),
            (r#""id":"aa","#, r#""id":"aa","id":"aa","#),
            (r#""type":"snapshot""#, r#""type":"""#),
            (r#"{"type":"snapshot"}"#, "null"),
            ("2026-11-21T09:37:54.764035366Z", "yesterday"),
            (r#"{"entries""#, r#"{"other""#),
            ("true", "1"),
        ] {
            assert!(decode(&gzip(&SAMPLE.replace(from, to))).is_err(), "{to}");
        }
        let array = r#"{"entries":[["aa",{"type":"snapshot"},"2026-11-21T09:37:54Z",false,{}]]}"#;
        for text in ["", "{}", "[]", "[[]]", r#"{"entries":null}"#, array] {
            assert!(decode(&gzip(text)).is_err(), "{text}");
        }
        assert!(decode(&gzip(&format!("{{\"entries\":{}", "[".repeat(1_000_000)))).is_err());
    }

    #[test]
    fn new_ids_are_new() {
        assert_eq!((new_id().len(), new_id() == new_id()), (32, false));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            id in "[0-9a-f]{32}", kind in "\\PC{1,9}", value: String, nanos in 0i64..i64::MAX, deleted: bool, number: f64,
        ) {
            let at = Timestamp::from_nanosecond(nanos.into()).unwrap();
            let labels = BTreeMap::from([("type".to_owned(), kind), ("x".to_owned(), value.clone())]);
            let data = serde_json::value::to_raw_value(&serde_json::json!({ "v": value, "n": number })).unwrap();
            let entry =
                if deleted { ManifestEntry::deletion(id, at) } else { ManifestEntry::put(id, labels, at, data) };
            let read = decode(&encode(std::slice::from_ref(&entry))).unwrap();
            prop_assert_eq!(format!("{read:?}"), format!("{:?}", [entry]));
        }
    }
}
