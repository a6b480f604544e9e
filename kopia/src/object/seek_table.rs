//! Seek tables of indirect objects (`repo/object/indirect.go`).

use serde::Deserialize;

use super::ObjectId;
use crate::error::{Error, Result};

/// One part of an indirect object. Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeekEntry {
    /// Where the part begins in the object.
    pub start: u64,
    /// How long it is, decoded.
    pub length: u64,
    /// The part: direct, `Z`, or again indirect.
    pub object: ObjectId,
}

/// The parts of an indirect object, in order, without gaps; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeekTable {
    /// The parts.
    pub entries: Vec<SeekEntry>,
}

#[derive(Deserialize)]
struct Stored {
    stream: String,
    entries: Vec<StoredEntry>,
}

#[derive(Deserialize)]
struct StoredEntry {
    /// Kopia omits zeros.
    #[serde(default)]
    s: u64,
    #[serde(default)]
    l: u64,
    o: ObjectId,
}

impl SeekTable {
    /// Parses the whole plaintext of a table. Unknown fields are skipped.
    ///
    /// # Errors
    /// `Damaged`: not this JSON, no entries, a gap or an overlap, lengths beyond 2^63, or an empty part that is itself indirect
    /// (Kopia writes none, and a tree of them would cost time without bound).
    pub fn parse(plain: &[u8]) -> Result<Self> {
        // serde takes a list for an object whose fields are in order.
        if !plain.trim_ascii_start().starts_with(b"{") {
            return Err(Error::damaged("parse a seek table: it is not a JSON object"));
        }
        let stored: Stored =
            serde_json::from_slice(plain).map_err(|error| Error::damaged("parse a seek table").with_source(error))?;
        if stored.stream != "kopia:indirect" {
            return Err(Error::damaged("parse a seek table: the stream is not \"kopia:indirect\""));
        }
        let mut end = 0u64;
        let mut entries = Vec::with_capacity(stored.entries.len());
        for (index, entry) in stored.entries.into_iter().enumerate() {
            let bad = |what: &str| Error::damaged(format!("parse a seek table: entry {index} {what}"));
            if entry.s != end {
                return Err(bad("does not begin where the one before it ends"));
            }
            if entry.l == 0 && entry.o.indirection > 0 {
                return Err(bad("is empty and yet indirect"));
            }
            // Kopia's lengths are int64.
            end = end.checked_add(entry.l).filter(|&e| i64::try_from(e).is_ok()).ok_or_else(|| bad("is too long"))?;
            entries.push(SeekEntry { start: entry.s, length: entry.l, object: entry.o });
        }
        if entries.is_empty() {
            return Err(Error::damaged("parse a seek table: it has no entries"));
        }
        Ok(Self { entries })
    }

    /// Length of the object, in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.entries.last().map_or(0, |last| last.start.saturating_add(last.length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = concat!(
        r#"{"stream":"kopia:indirect","entries":[{"l":131072,"o":"aa00"},{"s":131072,"l":5,"o":"Ixbb00"},"#,
        r#"{"s":131077,"o":"Zcc00"}]}"#,
        "\n"
    );

    #[test]
    fn a_table_reads_with_omitted_zeros_and_unknown_fields() {
        let table = SeekTable::parse(SAMPLE.as_bytes()).unwrap();
        let flat: Vec<_> = table.entries.iter().map(|e| (e.start, e.length, e.object.to_string())).collect();
        let expected = [(0, 131_072, "aa00"), (131_072, 5, "Ixbb00"), (131_077, 0, "Zcc00")];
        assert_eq!(flat, expected.map(|(s, l, o)| (s, l, o.to_owned())));
        assert_eq!(table.length(), 131_077);
        let extended = SAMPLE.replace(r#""l":5"#, r#""l":5,"new":[{}]"#).replace(r#""stream""#, r#""x":1,"stream""#);
        assert_eq!(SeekTable::parse(extended.as_bytes()).unwrap(), table);
    }

    #[test]
    fn a_table_cut_anywhere_is_refused() {
        let whole = SAMPLE.trim_end();
        for length in 0..whole.len() {
            assert!(SeekTable::parse(&whole.as_bytes()[..length]).is_err(), "{length}");
        }
        assert!(SeekTable::parse(format!("{SAMPLE}{SAMPLE}").as_bytes()).is_err());
    }

    #[test]
    fn tables_that_kopia_does_not_write_are_refused() {
        for (from, to) in [
            ("131072,\"l\":5", "131071,\"l\":5"),
            ("131072,\"l\":5", "131073,\"l\":5"),
            ("\"l\":5", "\"l\":-5"),
            ("\"l\":5", "\"l\":5e0"),
            ("\"l\":5", "\"l\":9223372036854775807"),
            ("\"l\":5", "\"l\":18446744073709551615"),
            ("\"l\":5", "\"l\":123456789012345678901234567890"),
            ("\"l\":5,\"o\"", "\"o\""),
            ("\"Ixbb00\"", "\"\""),
            ("\"Ixbb00\"", "null"),
            ("kopia:indirect", "kopia:directory"),
        ] {
            let text = SAMPLE.replace(from, to);
            assert_ne!(text, SAMPLE);
            assert!(SeekTable::parse(text.as_bytes()).is_err(), "{to}");
        }
        for text in [
            r#"{"stream":"kopia:indirect","entries":[]}"#,
            r#"{"stream":"kopia:indirect","entries":null}"#,
            "[]",
            r#"["kopia:indirect",[{"l":1,"o":"aa"}]]"#,
        ] {
            assert!(SeekTable::parse(text.as_bytes()).is_err(), "{text}");
        }
        let deep = format!("{{\"x\":{}", "[".repeat(1_000_000));
        assert!(SeekTable::parse(deep.as_bytes()).is_err());
    }
}
