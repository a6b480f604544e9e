//! Where Kopia puts a blob below the root of a file system: `.shards` and the path rule (repo/blob/sharded).

use std::path::PathBuf;

use serde::Deserialize;

use super::names;
use crate::error::{Error, Result};

/// Suffix of every blob's file.
pub(crate) const SUFFIX: &str = ".f";

/// File in the root that holds the sharding.
pub(crate) const SHARDS_FILE: &str = ".shards";

/// A hostile file could ask for a path as deep as it likes.
const SHARDS_MAX: usize = 32;

/// How names become paths.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Sharding {
    default: Vec<i64>,
    #[serde(rename = "maxNonShardedLength")]
    unsharded_max: i64,
    #[serde(default)]
    overrides: Option<Vec<Override>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Override {
    prefix: String,
    shards: Option<Vec<i64>>,
}

impl Sharding {
    /// What Kopia assumes of an old repository without the file.
    pub(crate) fn legacy() -> Self {
        Self { default: vec![3, 3], unsharded_max: 20, overrides: None }
    }

    /// Reads the file's content.
    pub(crate) fn parse(text: &[u8]) -> Result<Self> {
        let sharding: Self = serde_json::from_slice(text)
            .map_err(|error| Error::damaged(format!("read {SHARDS_FILE}: it is malformed")).with_source(error))?;
        let overrides = sharding.overrides.iter().flatten().filter_map(|item| item.shards.as_deref());
        for shards in overrides.chain([sharding.default.as_slice()]) {
            if shards.len() > SHARDS_MAX || shards.iter().any(|&n| n < 0) {
                return Err(Error::damaged(format!("read {SHARDS_FILE}: shard lengths {shards:?} make no sense")));
            }
        }
        Ok(sharding)
    }

    /// The path of a blob's file, relative to the root.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        if names::is_own(name) {
            return PathBuf::from(name);
        }
        let mut path = PathBuf::new();
        let mut rest = name;
        if i64::try_from(name.len()).unwrap_or(i64::MAX) > self.unsharded_max {
            for &shard in self.shards(name) {
                let length = usize::try_from(shard).unwrap_or(usize::MAX);
                if rest.len() <= length {
                    break;
                }
                if length == 0 {
                    continue;
                }
                // Kopia cuts bytes; a name that is cut inside a character is none that it ever made.
                let Some((directory, remainder)) = rest.split_at_checked(length) else { break };
                path.push(directory);
                rest = remainder;
            }
        }
        path.push(format!("{rest}{SUFFIX}"));
        path
    }

    /// The blob that lies at `path`, relative to the root, if the rule would put it there or anywhere.
    pub(crate) fn name(directories: &str, file: &str) -> Option<String> {
        let rest = file.strip_suffix(SUFFIX)?;
        let name = format!("{directories}{rest}");
        (names::is_valid(&name) && !names::is_own(&name)).then_some(name)
    }

    fn shards(&self, name: &str) -> &[i64] {
        let first = self.overrides.iter().flatten().find(|item| name.starts_with(&item.prefix));
        first.map_or(self.default.as_slice(), |item| item.shards.as_deref().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(sharding: &str, name: &str) -> String {
        Sharding::parse(sharding.as_bytes()).unwrap().path(name).to_str().unwrap().to_owned()
    }

    #[test]
    fn paths_are_kopias() {
        let new = r#"{"default":[1,3],"maxNonShardedLength":20}"#;
        assert_eq!(path(new, "xn0_9cf8aabbccddeeff00112233-c1"), "x/n0_/9cf8aabbccddeeff00112233-c1.f");
        assert_eq!(path(new, "_log_20260102_abcdef012"), "_/log/_20260102_abcdef012.f");
        assert_eq!(path(new, "kopia.repository"), "kopia.repository.f");
        assert_eq!(path(new, "kopia.repository.backup.X"), "k/opi/a.repository.backup.X.f");
        assert_eq!(path(new, "verger.lease-with-a-long-name-of-its-own"), "verger.lease-with-a-long-name-of-its-own");
        let odd = r#"{"default":[1,3],"maxNonShardedLength":4,"overrides":[{"prefix":"p","shards":[0,2,2]},{"prefix":"pa","shards":[]}]}"#;
        assert_eq!(path(odd, "pabcdef"), "pa/bc/def.f");
        assert_eq!(path(odd, "pabcd"), "pa/bc/d.f");
        assert_eq!(path(odd, "qabcd"), "q/abc/d.f");
        assert_eq!(path(odd, "qabc"), "qabc.f");
        assert_eq!(Sharding::legacy().path("p0123456789012345678901").to_str(), Some("p01/234/56789012345678901.f"));
    }

    #[test]
    fn malformed_files_are_errors() {
        for text in ["", "{", "[]", "{}", r#"{"default":[-1],"maxNonShardedLength":20}"#, r#"{"default":"x"}"#] {
            assert!(Sharding::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_path_leads_back_to_its_name(name in "[a-z_][a-z0-9_-]{0,60}", a in 0i64..6, b in 0i64..6, max in -1i64..30) {
            proptest::prop_assume!(names::is_valid(&name) && !names::is_own(&name));
            let sharding = Sharding { default: vec![a, b], unsharded_max: max, overrides: None };
            let path = sharding.path(&name);
            let parent = path.parent().unwrap().to_str().unwrap().replace('/', "");
            let back = Sharding::name(&parent, path.file_name().unwrap().to_str().unwrap());
            proptest::prop_assert_eq!(back.as_deref(), Some(name.as_str()));
        }
    }
}
