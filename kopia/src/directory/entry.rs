//! A directory with all its fields, for people (`snapshot/manifest.go`, `fs/entry.go`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::object::ObjectId;

/// A whole directory in memory. Not for garbage collection: it names fields exactly and lets the last of two equal ones win.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// `kopia:directory`
    pub stream: String,
    /// Entries in stored order; none is stored as `null`.
    pub entries: Option<Vec<DirectoryEntry>>,
    /// Sums over the tree below.
    #[serde(default)]
    pub summary: Option<DirectorySummary>,
}

impl Directory {
    /// Parses a whole directory.
    ///
    /// # Errors
    /// `Damaged` if it is not one.
    pub fn parse(plain: &[u8]) -> Result<Self> {
        let directory: Self =
            serde_json::from_slice(plain).map_err(|error| Error::damaged("parse a directory").with_source(error))?;
        if directory.stream != "kopia:directory" {
            return Err(Error::damaged("parse a directory: the stream is not \"kopia:directory\""));
        }
        Ok(directory)
    }
}

/// One entry with all that Kopia stores of it. Also the root of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryEntry {
    /// File name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `f`, `d`, `s`, or what a later version writes.
    #[serde(default, rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Permissions.
    #[serde(default, skip_serializing_if = "Permissions::is_zero")]
    pub mode: Permissions,
    /// Bytes. A directory's may be in `summary` alone.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub size: i64,
    /// Last change. Kopia omits the Unix epoch.
    #[serde(default, skip_serializing_if = "is_no_time")]
    pub mtime: Option<Timestamp>,
    /// Owner.
    #[serde(default, skip_serializing_if = "is_zero_id")]
    pub uid: u32,
    /// Group.
    #[serde(default, skip_serializing_if = "is_zero_id")]
    pub gid: u32,
    /// Data, directory, or text of the link.
    pub obj: ObjectId,
    /// Sums over the tree below.
    #[serde(default, rename = "summ", skip_serializing_if = "Option::is_none")]
    pub summary: Option<DirectorySummary>,
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

fn is_zero_id(value: &u32) -> bool {
    *value == 0
}

fn is_no_time(value: &Option<Timestamp>) -> bool {
    value.is_none_or(|time| time == Timestamp::UNIX_EPOCH)
}

/// Sums over a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectorySummary {
    /// Bytes of all files.
    #[serde(default)]
    pub size: i64,
    /// Files.
    #[serde(default)]
    pub files: i64,
    /// Symbolic links.
    #[serde(default)]
    pub symlinks: i64,
    /// Directories, this one included.
    #[serde(default)]
    pub dirs: i64,
    /// Newest change below.
    #[serde(default)]
    pub max_time: Timestamp,
    /// Why the tree is not whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub incomplete: String,
    /// Entries that could not be read.
    #[serde(default)]
    pub num_failed: i64,
    /// Errors that a policy ignored.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub num_ignored_errors: i64,
    /// Some of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<Vec<FailedEntry>>,
}

/// An entry that could not be read when the snapshot was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedEntry {
    /// Path below the directory.
    #[serde(default)]
    pub path: String,
    /// What happened.
    #[serde(default)]
    pub error: String,
}

/// Permission bits as Go numbers them: set-uid, set-gid and sticky are bits 23, 22 and 20, not those of `chmod`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Permissions(pub i32);

impl Permissions {
    fn is_zero(&self) -> bool {
        self.0 == 0
    }

    /// The bits of `chmod`.
    #[must_use]
    pub fn unix(&self) -> u32 {
        let bit = |go: u32, unix: u32| if self.0.cast_unsigned() >> go & 1 == 1 { unix } else { 0 };
        self.0.cast_unsigned() & 0o777 | bit(23, 0o4000) | bit(22, 0o2000) | bit(20, 0o1000)
    }
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The sign comes first: Kopia's own "0-7" is no number, not even to Kopia.
        write!(f, "{}0{:o}", if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs())
    }
}

impl FromStr for Permissions {
    type Err = Error;

    /// As Go reads an integer of base 0, without the underscores that nothing writes.
    fn from_str(text: &str) -> Result<Self> {
        let lower = text.to_ascii_lowercase();
        let (sign, number) = match lower.as_bytes() {
            [b'-', ..] => ("-", &lower[1..]),
            [b'+', ..] => ("", &lower[1..]),
            _ => ("", &lower[..]),
        };
        let (radix, digits) = match number.as_bytes() {
            [b'0', b'x', ..] => (16, &number[2..]),
            [b'0', b'b', ..] => (2, &number[2..]),
            [b'0', b'o', ..] => (8, &number[2..]),
            [b'0', _, ..] => (8, &number[1..]),
            _ => (10, number),
        };
        // Rust would take another sign here.
        let signed = (!digits.starts_with(['+', '-'])).then(|| format!("{sign}{digits}"));
        let value = signed.and_then(|digits| i32::from_str_radix(&digits, radix).ok());
        value.map(Self).ok_or_else(|| Error::damaged(format!("parse permissions {text:?}")))
    }
}

impl Serialize for Permissions {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Permissions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_read_as_go_writes_them() {
        for (text, unix) in [("0644", 0o644), ("040000755", 0o4755), ("020000755", 0o2755), ("04000777", 0o1777)] {
            let mode: Permissions = text.parse().unwrap();
            assert_eq!((mode.unix(), mode.to_string()), (unix, text.to_owned()));
        }
        assert_eq!("0x1ff".parse::<Permissions>().unwrap(), Permissions(0o777));
        assert_eq!("420".parse::<Permissions>().unwrap(), Permissions(0o644));
        for (text, value) in [("-0644", -420), ("+07", 7), ("-5", -5), ("-0x80000000", i32::MIN), ("0", 0)] {
            assert_eq!(text.parse::<Permissions>().unwrap(), Permissions(value), "{text}");
            assert_eq!(Permissions(value).to_string().parse::<Permissions>().unwrap(), Permissions(value), "{text}");
        }
        for text in ["", "09", "0x", "é", "0é", "rwx", "0777777777777", "0-5", "--5", "-", "0x-5", "0x80000000"] {
            assert!(text.parse::<Permissions>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_directory_reads_back_as_stored() {
        let text = concat!(
            r#"{"stream":"kopia:directory","entries":[{"name":"a\u003cb","type":"d","mode":"0755","mtime":"2024-01-02T03:04:05.006Z","#,
            r#""uid":1,"gid":2,"obj":"k82b3","summ":{"size":1,"files":2,"symlinks":0,"dirs":1,"maxTime":"2024-01-02T03:04:05Z","#,
            r#""numFailed":1,"errors":[{"path":"x","error":"no"}]}},{"name":"z","type":"f","mtime":"2024-01-02T03:04:05Z","#,
            r#""obj":"82b3"}],"summary":null}"#
        );
        let directory = Directory::parse(text.as_bytes()).unwrap();
        let entries = directory.entries.as_ref().unwrap();
        assert_eq!((entries[0].name.as_str(), entries[1].size), ("a<b", 0));
        assert_eq!(serde_json::to_string(&directory).unwrap().replace('<', "\\u003c"), text);
        assert!(Directory::parse(text.replace("directory", "indirect").as_bytes()).is_err());
        assert!(Directory::parse(br#"{"stream":"kopia:directory","entries":null}"#).unwrap().entries.is_none());
    }
}
