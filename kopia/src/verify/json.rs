//! Directories and seek tables by `serde_json`: slow, streaming, and a parser of its own.

use std::io::Read;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::error::{Error, Result};

/// One entry of a directory, as far as the check needs it.
#[derive(serde::Deserialize)]
pub(super) struct Entry {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default, rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) obj: String,
}

/// One entry of a seek table.
#[derive(serde::Deserialize)]
pub(super) struct Part {
    #[serde(default, rename = "s")]
    pub(super) start: u64,
    #[serde(default, rename = "l")]
    pub(super) length: u64,
    #[serde(rename = "o")]
    pub(super) object: String,
}

/// Reads a directory to its end, entry by entry.
pub(super) fn directory(bytes: &mut dyn Read, visit: &mut dyn FnMut(Entry)) -> Result<()> {
    stream(bytes, "kopia:directory", visit)
}

/// Reads a seek table to its end.
pub(super) fn seek_table(bytes: &mut dyn Read, visit: &mut dyn FnMut(Part)) -> Result<()> {
    stream(bytes, "kopia:indirect", visit)
}

fn stream<T: serde::de::DeserializeOwned>(bytes: &mut dyn Read, wanted: &str, visit: &mut dyn FnMut(T)) -> Result<()> {
    let mut parser = serde_json::Deserializer::from_reader(std::io::BufReader::new(bytes));
    let step = || format!("parse {wanted}");
    let name = parser.deserialize_map(Document { visit }).map_err(|e| failure(&step(), e))?;
    parser.end().map_err(|e| failure(&step(), e))?;
    if name.as_deref() != Some(wanted) {
        return Err(Error::damaged(format!("{}: it is a {name:?} stream", step())));
    }
    Ok(())
}

/// A failure to read the bytes keeps its kind (a store that does not answer is no damage); malformed JSON is damage.
fn failure(step: &str, error: serde_json::Error) -> Error {
    if !error.is_io() {
        return Error::damaged(step).with_source(error);
    }
    match std::io::Error::from(error).downcast::<Error>() {
        Ok(inner) => inner.at(step),
        Err(other) => Error::damaged(step).with_source(other),
    }
}

struct Document<'a, T> {
    visit: &'a mut dyn FnMut(T),
}

impl<'de, T: serde::de::DeserializeOwned> Visitor<'de> for Document<'_, T> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a stream object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        let mut name = None;
        while let Some(key) = map.next_key::<String>()? {
            // Go matches field names without regard to case.
            match key.to_ascii_lowercase().as_str() {
                "stream" => name = Some(map.next_value()?),
                "entries" => map.next_value_seed(Entries { visit: &mut *self.visit })?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(name)
    }
}

struct Entries<'a, T> {
    visit: &'a mut dyn FnMut(T),
}

impl<'de, T: serde::de::DeserializeOwned> serde::de::DeserializeSeed<'de> for Entries<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: serde::de::DeserializeOwned> Visitor<'de> for Entries<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("entries or null")
    }

    fn visit_unit<E>(self) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> std::result::Result<(), A::Error> {
        while let Some(entry) = entries.next_element::<T>()? {
            (self.visit)(entry);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        directory(&mut text.as_bytes(), &mut |entry| {
            names.push(format!("{}:{}:{}", entry.kind, entry.name, entry.obj))
        })?;
        Ok(names)
    }

    #[test]
    fn directories_are_read_whole() {
        let text = "{\"stream\":\"kopia:directory\",\"entries\":[{\"name\":\"a\",\"type\":\"f\",\"obj\":\"ab\"},\
                    {\"name\":\"a\",\"type\":\"d\",\"obj\":\"kab\",\"summ\":{\"x\":[1]}}],\"summary\":{}}\n";
        assert_eq!(names(text).unwrap(), ["f:a:ab", "d:a:kab"]);
        assert_eq!(names("{\"stream\":\"kopia:directory\",\"entries\":null}").unwrap(), [""; 0]);
    }

    #[test]
    fn fragments_and_other_streams_are_not_directories() {
        for text in [
            "",
            "{\"stream\":\"kopia:directory\",\"entries\":[{\"name\":\"a\"}",
            "{\"stream\":\"kopia:indirect\",\"entries\":[]}",
            "{\"entries\":[]}",
            "{\"stream\":\"kopia:directory\",\"entries\":[]} {}",
            "\"name\":\"b\"}]}",
        ] {
            assert!(names(text).is_err(), "{text}");
        }
    }
}
