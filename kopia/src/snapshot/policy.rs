//! Which policy governs a source (`snapshot/policy/policy_manager.go`, `policy_merge.go`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::manifest::SourceInfo;
use crate::error::{Error, Result};
use crate::manifest::{Manifest, ManifestSet};

/// Retention settings. What is unset is not the same as zero: an unset test is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RetentionPolicy {
    /// Newest ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_latest: Option<i64>,
    /// One for each hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_hourly: Option<i64>,
    /// One for each day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_daily: Option<i64>,
    /// One for each ISO week.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_weekly: Option<i64>,
    /// One for each month.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_monthly: Option<i64>,
    /// One for each year.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_annual: Option<i64>,
    /// Save nothing if the root is that of the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_identical_snapshots: Option<bool>,
}

impl RetentionPolicy {
    /// What Kopia keeps where no policy says otherwise.
    pub const DEFAULT: Self = Self {
        keep_latest: Some(10),
        keep_hourly: Some(48),
        keep_daily: Some(7),
        keep_weekly: Some(4),
        keep_monthly: Some(24),
        keep_annual: Some(3),
        ignore_identical_snapshots: Some(false),
    };

    /// Takes from `other`, a more general policy, what is unset here.
    fn inherit(&mut self, other: &Self) {
        let Self {
            keep_latest,
            keep_hourly,
            keep_daily,
            keep_weekly,
            keep_monthly,
            keep_annual,
            ignore_identical_snapshots,
        } = self;
        *keep_latest = keep_latest.or(other.keep_latest);
        *keep_hourly = keep_hourly.or(other.keep_hourly);
        *keep_daily = keep_daily.or(other.keep_daily);
        *keep_weekly = keep_weekly.or(other.keep_weekly);
        *keep_monthly = keep_monthly.or(other.keep_monthly);
        *keep_annual = keep_annual.or(other.keep_annual);
        *ignore_identical_snapshots = ignore_identical_snapshots.or(other.ignore_identical_snapshots);
    }
}

/// The part of a policy that decides what stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Policy {
    retention: Option<RetentionPolicy>,
    no_parent: Option<bool>,
}

impl Policy {
    fn from_manifest(manifest: &Manifest) -> Result<Self> {
        let bad = || Error::damaged(format!("read policy {}", manifest.id));
        // serde takes a list for an object whose fields are in order.
        if !manifest.data.get().starts_with('{') {
            return Err(bad().with_source("it is not a JSON object"));
        }
        serde_json::from_str(manifest.data.get()).map_err(|error| bad().with_source(error))
    }
}

/// The retention that holds for `source`: each setting from the first policy that defines it, going from the path up to its root,
/// to the user, the host, the global policy and the defaults. `noParent` ends the search, the defaults included.
///
/// # Errors
/// `Damaged` if a policy on the way cannot be read; nothing may be expired then.
pub fn effective_retention(manifests: &ManifestSet, source: &SourceInfo) -> Result<RetentionPolicy> {
    let mut merged = RetentionPolicy::default();
    for manifest in hierarchy(manifests, source) {
        let policy = Policy::from_manifest(manifest)?;
        merged.inherit(&policy.retention.unwrap_or_default());
        if policy.no_parent == Some(true) {
            return Ok(merged);
        }
    }
    merged.inherit(&RetentionPolicy::DEFAULT);
    Ok(merged)
}

/// Policies that apply to `source`, most specific first. Of duplicates for one target all are here, the oldest first: it wins.
#[must_use]
pub fn hierarchy<'m>(manifests: &'m ManifestSet, source: &SourceInfo) -> Vec<&'m Manifest> {
    let mut found = Vec::new();
    if !source.path.is_empty() {
        let mut path = source.path.as_str().to_owned();
        loop {
            let at = SourceInfo { path: path.clone(), ..source.clone() };
            found.extend(manifests.find(&labels_of(&at)));
            let parent = parent_path(&path);
            if parent == path {
                break;
            }
            path = parent;
        }
    }
    let user = SourceInfo { path: String::new(), ..source.clone() };
    let host = SourceInfo { user_name: String::new(), ..user.clone() };
    for target in [user, host, SourceInfo::default()] {
        found.extend(manifests.find(&labels_of(&target)));
    }
    found
}

/// Labels of a policy for this target.
fn labels_of(target: &SourceInfo) -> BTreeMap<&str, &str> {
    let SourceInfo { host, user_name, path } = target;
    let labels: &[(&str, &str)] = match (path.is_empty(), user_name.is_empty(), host.is_empty()) {
        (false, ..) => &[("policyType", "path"), ("username", user_name), ("hostname", host), ("path", path)],
        (_, false, _) => &[("policyType", "user"), ("username", user_name), ("hostname", host)],
        (_, _, false) => &[("policyType", "host"), ("hostname", host)],
        _ => &[("policyType", "global")],
    };
    labels.iter().copied().chain([("type", "policy")]).collect()
}

/// The parent of a path of either kind of system; a root is its own.
fn parent_path(path: &str) -> String {
    let is_separator = |c: char| c == '/' || c == '\\';
    let has_volume = matches!(path.as_bytes(), [_, b':', b'/' | b'\\', ..]) && path.is_char_boundary(2);
    let (volume, mut rest) = if has_volume { path.split_at(2) } else { ("", path) };
    let mut last = rest.rfind(is_separator);
    if let Some(at) = last.filter(|&at| at != 0 && at == rest.len() - 1) {
        rest = &rest[..at];
        last = rest.rfind(is_separator);
    }
    match last {
        None => path.to_owned(),
        Some(at) => format!("{volume}{}", &rest[..at.max(1)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn source(path: &str) -> SourceInfo {
        SourceInfo { host: "h".into(), user_name: "u".into(), path: path.into() }
    }

    /// Policies by target and body, each written a second after the one before.
    fn policies(entries: &[(SourceInfo, &str)]) -> ManifestSet {
        let mut set = ManifestSet::default();
        for (index, (target, body)) in entries.iter().enumerate() {
            let id = format!("{:032x}", entries.len() - index);
            let labels = labels_of(target).into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            let modified = Timestamp::from_second(i64::try_from(index).unwrap()).unwrap();
            let data = serde_json::from_str(body).unwrap();
            set.manifests.insert(id.clone(), Manifest { id, labels, modified, data });
        }
        set
    }

    fn latest(set: &ManifestSet, path: &str) -> Option<i64> {
        effective_retention(set, &source(path)).unwrap().keep_latest
    }

    const TWO: &str = r#"{"retention":{"keepLatest":2}}"#;
    const THREE: &str = r#"{"retention":{"keepLatest":3}}"#;

    #[test]
    fn parents_are_kopias() {
        for (path, parent) in [
            ("/a/b", "/a"),
            ("/a/b/", "/a"),
            ("/a", "/"),
            ("/", "/"),
            ("C:\\x\\y", "C:\\x"),
            ("C:\\x", "C:\\"),
            ("C:\\", "C:\\"),
            ("C:/x/y", "C:/x"),
            ("\\\\srv\\share", "\\\\srv"),
            ("plain", "plain"),
            ("", ""),
            ("é/ü", "é"),
        ] {
            assert_eq!(parent_path(path), parent, "{path}");
        }
    }

    #[test]
    fn the_most_specific_policy_wins_setting_by_setting() {
        let user = SourceInfo { path: String::new(), ..source("") };
        let host = SourceInfo { user_name: String::new(), ..user.clone() };
        let set = policies(&[
            (SourceInfo::default(), r#"{"retention":{"keepLatest":1,"keepAnnual":91}}"#),
            (host, r#"{"retention":{"keepMonthly":92,"keepLatest":92}}"#),
            (user, TWO),
            (source("/a"), r#"{"retention":{"keepDaily":0}}"#),
            (source("/a/b"), THREE),
            (SourceInfo { user_name: "other".into(), ..source("/a/b") }, r#"{"retention":{"keepHourly":77}}"#),
        ]);
        let merged = effective_retention(&set, &source("/a/b/c")).unwrap();
        let expected = RetentionPolicy {
            keep_latest: Some(3),
            keep_daily: Some(0),
            keep_monthly: Some(92),
            keep_annual: Some(91),
            ..RetentionPolicy::DEFAULT
        };
        assert_eq!(merged, expected);
        assert_eq!((latest(&set, "/a"), latest(&set, "/")), (Some(2), Some(2)));
    }

    #[test]
    fn no_parent_suppresses_even_the_defaults() {
        let set = policies(&[(source("/a"), r#"{"retention":{"keepDaily":5},"noParent":true}"#), (source("/"), TWO)]);
        let alone = RetentionPolicy { keep_daily: Some(5), ..RetentionPolicy::default() };
        assert_eq!(effective_retention(&set, &source("/a/b")).unwrap(), alone);
        assert_eq!(latest(&set, "/b"), Some(2));
    }

    #[test]
    fn of_duplicates_the_oldest_wins() {
        assert_eq!(latest(&policies(&[(source("/a"), TWO), (source("/a"), THREE)]), "/a"), Some(2));
        assert_eq!(latest(&policies(&[(source("/a"), THREE), (source("/a"), TWO)]), "/a"), Some(3));
    }

    #[test]
    fn an_unreadable_policy_is_an_error_where_it_applies() {
        for body in
            ["[]", r#"{"retention":{"keepLatest":"2"}}"#, r#"{"retention":{"keepLatest":2.5}}"#, r#"{"noParent":1}"#]
        {
            let set = policies(&[(source("/a"), body)]);
            assert!(effective_retention(&set, &source("/a/b")).is_err(), "{body}");
            assert!(effective_retention(&set, &source("/b")).is_ok(), "{body}");
        }
    }
}
