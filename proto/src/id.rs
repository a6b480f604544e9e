//! Typed names. A repository is its unique ID together with the store it lies in (R6), never a URL.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Longest unique ID that is believed, in hexadecimal digits (Kopia writes 64).
pub const UNIQUE_ID_DIGITS_MAX: usize = 128;
/// Longest name of a worker, in bytes.
pub const WORKER_ID_BYTES_MAX: usize = 128;

/// Text that is not an ID of this kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}")]
pub struct BadId {
    /// The text.
    pub text: String,
    /// What it should have been.
    pub what: &'static str,
}

fn is_hex(text: &str, digits_max: usize) -> bool {
    !text.is_empty()
        && text.len() <= digits_max
        && text.len().is_multiple_of(2)
        && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Takes the text if it has the right shape.
            ///
            /// # Errors
            /// [`BadId`] otherwise.
            pub fn new(text: impl Into<String>) -> Result<Self, BadId> {
                let text = text.into();
                let valid: fn(&str) -> bool = $valid;
                if valid(&text) { Ok(Self(text)) } else { Err(BadId { text, what: $what }) }
            }

            /// As text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;

            fn try_from(text: String) -> Result<Self, BadId> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// Kopia's unique ID, lower-case hexadecimal.
    UniqueId, "a unique ID in lower-case hexadecimal", |text| is_hex(text, UNIQUE_ID_DIGITS_MAX)
}
text_id! {
    /// The random ID of a store that Verger's lease holds: 32 lower-case hexadecimal digits.
    StoreId, "a store ID of 32 lower-case hexadecimal digits", |text| text.len() == 32 && is_hex(text, 32)
}
text_id! {
    /// What people call a repository of a fleet: 1 to 63 lower-case letters, digits, `.`, `_` and `-`, the first a letter or a digit.
    RepositoryName, "a repository's name (1 to 63 of a-z, 0-9, '.', '_', '-', beginning with a letter or digit)", |text| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        text.len() <= 63
            && text.bytes().next().is_some_and(plain)
            && text.bytes().all(|b| plain(b) || matches!(b, b'.' | b'_' | b'-'))
    }
}
text_id! {
    /// A worker: printable, without spaces, at most 128 bytes.
    WorkerId, "a worker's name", |text| {
        !text.is_empty() && text.len() <= WORKER_ID_BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic())
    }
}
text_id! {
    /// A fleet: the 8 lower-case hexadecimal digits in `verger@fleet-0a1b2c3d`.
    FleetId, "a fleet's number of 8 lower-case hexadecimal digits", |text| text.len() == 8 && is_hex(text, 8)
}
text_id! {
    /// A pool of workers: 1 to 32 lower-case letters, digits and `-`. Safe as a word of a subject and as the name of a consumer.
    Pool, "a pool's name (1 to 32 of a-z, 0-9 and '-')", |text| {
        (1..=32).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self(crate::repo::POOL_DEFAULT.to_owned())
    }
}

text_id! {
    /// A session of Kopia's, as the names of what it wrote end in it.
    SessionName, "a session of 's' and hexadecimal digits", |text| {
        let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let digits = text.strip_prefix('s').filter(|digits| !digits.is_empty() && digits.len() <= 63);
        digits.is_some_and(|digits| digits.bytes().all(is_digit))
    }
}

/// One repository in one store. Its text, `<unique>-<store>`, is safe as the name of a folder.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RepositoryId {
    /// Kopia's unique ID; copies share it.
    pub unique: UniqueId,
    /// The store it lies in.
    pub store: StoreId,
}

impl fmt::Display for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.unique, self.store)
    }
}

impl fmt::Debug for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RepositoryId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId { text: text.to_owned(), what: "a repository ID (<unique ID>-<store ID>)" };
        let (unique, store) = text.split_once('-').ok_or_else(bad)?;
        Ok(Self { unique: unique.parse()?, store: store.parse()? })
    }
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number_id! {
    /// A cycle, counted from 1 by the machine.
    CycleId
}
number_id! {
    /// A job, counted from 1 by the machine; the same over all attempts.
    JobId
}

/// Digest of a plan's header, which holds the digest of its body.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlanDigest(pub Digest);

impl fmt::Display for PlanDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_reads_back_and_no_path_gets_in() {
        let id: RepositoryId = format!("{}-{}", "ab".repeat(32), "01".repeat(16)).parse().unwrap();
        assert_eq!(id.to_string().parse::<RepositoryId>().unwrap(), id);
        for text in ["", "ab", "../x-00", "ab-/etc", "AB-00112233445566778899aabbccddeeff"] {
            assert!(text.parse::<RepositoryId>().is_err(), "{text}");
        }
        assert!(serde_json::from_str::<UniqueId>("\"../up\"").is_err(), "reading a record checks the shape, too");
        assert!(WorkerId::new("two words").is_err());
        assert!(SessionName::new("s0123456789abcdef142").is_ok());
        for text in ["", "s", "0123", "sABC", "s../up", &format!("s{}", "0".repeat(64))] {
            assert!(SessionName::new(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pool_and_a_fleet_are_safe_in_a_subject() {
        assert_eq!(Pool::new("default").unwrap(), Pool::default());
        for text in ["", "a.b", "a>", "*", "Night", "a b", "ä", &"x".repeat(33)] {
            assert!(Pool::new(text).is_err(), "{text}");
        }
        for text in ["", "0a1b2c3", "0A1B2C3D", "0a1b2c3d4e", "../../.."] {
            assert!(FleetId::new(text).is_err(), "{text}");
        }
        assert!(FleetId::new("0a1b2c3d").is_ok());
    }
}
