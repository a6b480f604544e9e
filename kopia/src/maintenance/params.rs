//! Maintenance parameters: the manifest labelled `type: maintenance` (`repo/maintenance/maintenance_params.go`).

use crate::error::{Error, Result};
use crate::maintenance::go_json::nanoseconds;
use crate::manifest::{Manifest, ManifestSet};
use crate::strict;
use serde_json::{Map, Value};
use std::time::Duration;

/// Value of the label `type`.
pub const MANIFEST_TYPE: &str = "maintenance";

/// One of the two cycles.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct CycleParams {
    /// Whether it runs by itself.
    pub enabled: bool,
    /// From one run to the next.
    #[serde(with = "nanoseconds")]
    pub interval: Duration,
}

/// Limits of log clean-up. A limit that is not positive does not limit.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LogRetention {
    /// Bytes.
    pub max_total_size: i64,
    /// Blobs.
    pub max_count: i64,
    /// Age.
    #[serde(with = "nanoseconds")]
    pub max_age: Duration,
}

impl LogRetention {
    /// Kopia's defaults: 1 GiB, 10,000 logs, 30 days.
    #[must_use]
    pub fn kopia_default() -> Self {
        Self { max_total_size: 1 << 30, max_count: 10_000, max_age: Duration::from_secs(30 * 86_400) }
    }

    /// All three zero means the defaults; any one set means that zeros do not limit.
    #[must_use]
    pub fn or_default(&self) -> Self {
        if *self == Self::default() { Self::kopia_default() } else { self.clone() }
    }
}

/// The parameters. Fields that this program does not know survive a rewrite.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Params {
    /// `user@host` that may run maintenance; empty: nobody.
    pub owner: String,
    /// Quick cycle.
    #[serde(deserialize_with = "strict::object")]
    pub quick: CycleParams,
    /// Full cycle.
    #[serde(deserialize_with = "strict::object")]
    pub full: CycleParams,
    /// Log clean-up.
    #[serde(deserialize_with = "strict::object")]
    pub log_retention: LogRetention,
    /// Whether object locks are extended.
    pub extend_object_locks: bool,
    /// Parallel listings and deletes of packs; 0 means 16.
    pub list_parallelism: i64,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Params {
    /// Kopia's defaults, with an empty owner: what a repository without the manifest has.
    #[must_use]
    pub fn kopia_default() -> Self {
        Self {
            quick: CycleParams { enabled: true, interval: Duration::from_secs(3600) },
            full: CycleParams { enabled: true, interval: Duration::from_secs(86_400) },
            log_retention: LogRetention::kopia_default(),
            ..Self::default()
        }
    }

    /// Of several manifests (two clients raced) the one modified last counts, then the one with the greatest ID.
    ///
    /// # Errors
    /// `Damaged` if that manifest is not what Kopia writes.
    pub fn load(manifests: &ManifestSet) -> Result<Self> {
        match current(manifests.of_type(MANIFEST_TYPE)) {
            None => Ok(Self::kopia_default()),
            Some(manifest) => Self::parse(&manifest.id, manifest.data.get()),
        }
    }

    /// Parses a manifest's body.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn parse(id: &str, json: &str) -> Result<Self> {
        let parsed: Result<strict::Object<Self>, _> = serde_json::from_str(json);
        parsed
            .map(|strict::Object(params)| params)
            .map_err(|e| Error::damaged(format!("parse maintenance parameters in manifest {id}")).with_source(e))
    }

    /// The body of a new manifest; putting it means removing every one in [`existing`].
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// IDs of all manifests that hold parameters: a writer removes them all and puts one new.
#[must_use]
pub fn existing(manifests: &ManifestSet) -> Vec<&str> {
    manifests.of_type(MANIFEST_TYPE).map(|manifest| manifest.id.as_str()).collect()
}

fn current<'a>(manifests: impl Iterator<Item = &'a Manifest>) -> Option<&'a Manifest> {
    manifests.max_by(|a, b| (a.modified, &a.id).cmp(&(b.modified, &b.id)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    const WRITTEN: &str = concat!(
        r#"{"owner":"ann@box","quick":{"enabled":true,"interval":3600000000000},"#,
        r#""full":{"enabled":false,"interval":86400000000000},"#,
        r#""logRetention":{"maxTotalSize":1073741824,"maxCount":10000,"maxAge":2592000000000000},"#,
        r#""extendObjectLocks":false,"listParallelism":0"#
    );

    fn set(entries: &[(&str, &str, &str)]) -> ManifestSet {
        let mut set = ManifestSet::default();
        for (id, modified, owner) in entries {
            set.manifests.insert(
                (*id).into(),
                Manifest {
                    id: (*id).into(),
                    labels: [("type".to_owned(), "maintenance".to_owned())].into(),
                    modified: modified.parse().unwrap(),
                    data: RawValue::from_string(format!(r#"{{"owner":"{owner}"}}"#)).unwrap(),
                },
            );
        }
        set
    }

    #[test]
    fn kopias_body_reads_back_with_unknown_fields() {
        let json = format!(r#"{WRITTEN},"new":{{"a":1}}}}"#);
        let params = Params::parse("0", &json).unwrap();
        assert_eq!((params.owner.as_str(), params.quick.interval.as_secs()), ("ann@box", 3600));
        assert_eq!(params.to_json(), json);
        for broken in ["", "[]", r#"{"owner":1}"#, r#"{"quick":{"interval":-1}}"#] {
            assert_eq!(Params::parse("0", broken).unwrap_err().kind(), crate::ErrorKind::Damaged, "{broken}");
        }
    }

    #[test]
    fn the_newest_manifest_counts_then_the_greatest_id() {
        let none = Params::load(&set(&[])).unwrap();
        assert!(none.owner.is_empty() && none.full.enabled && none.quick.enabled);
        let raced = set(&[
            ("b", "2024-01-01T00:00:00Z", "older"),
            ("a", "2024-01-02T00:00:00Z", "same time, lesser"),
            ("c", "2024-01-02T00:00:00Z", "this"),
        ]);
        assert_eq!(Params::load(&raced).unwrap().owner, "this");
        assert_eq!(existing(&raced), ["a", "b", "c"]);
        // What a manifest leaves out is Go's zero, not the default.
        assert!(!Params::load(&raced).unwrap().full.enabled);
    }

    #[test]
    fn log_limits_default_only_all_together() {
        assert_eq!(LogRetention::default().or_default(), LogRetention::kopia_default());
        let one = LogRetention { max_count: 5, ..LogRetention::default() };
        assert_eq!(one.or_default(), one);
    }
}
