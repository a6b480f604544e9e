//! What a worker says of itself. Nothing rests on it: it is for people, and for those who ask it to take nothing new.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::time::LogTime;

/// Most pools that a worker works for.
pub const POOLS_MAX: usize = 16;
/// Most labels that it has.
pub const LABELS_MAX: usize = 16;
/// Longest pool, label or version, in bytes.
pub const WORD_BYTES_MAX: usize = 63;

/// What a worker says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerInfo {
    /// Random, for each process: two processes of one name are told apart.
    pub instance: u64,
    /// When the process began, by its own clock.
    pub started: LogTime,
    /// Its program's version.
    pub version: String,
    /// Whose repositories it works on.
    pub pools: Vec<String>,
    /// Where it is, and whatever else is said of it.
    pub labels: BTreeMap<String, String>,
    /// How much it does at once.
    pub places: u32,
    /// Which exchange it has, if any.
    pub exchange: Option<String>,
}

impl WorkerInfo {
    /// Whether it is as short as what is kept of workers must be.
    ///
    /// # Errors
    /// What is too long.
    pub fn check(&self) -> Result<(), String> {
        let is_word = |text: &String| (1..=WORD_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
        if self.pools.is_empty() || self.pools.len() > POOLS_MAX || !self.pools.iter().all(is_word) {
            return Err(format!(
                "a worker works for 1 to {POOLS_MAX} pools, each named with 1 to {WORD_BYTES_MAX} bytes"
            ));
        }
        let fits = |(key, value): (&String, &String)| is_word(key) && is_word(value);
        if self.labels.len() > LABELS_MAX || !self.labels.iter().all(fits) {
            return Err(format!(
                "a worker has at most {LABELS_MAX} labels, names and values with 1 to {WORD_BYTES_MAX} bytes"
            ));
        }
        if !is_word(&self.version) || self.exchange.as_ref().is_some_and(|id| !is_word(id)) {
            return Err(format!("version and exchange have 1 to {WORD_BYTES_MAX} bytes"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> WorkerInfo {
        WorkerInfo {
            instance: 7,
            started: LogTime(1),
            version: "0.1.0".to_owned(),
            pools: vec!["default".to_owned()],
            labels: BTreeMap::from([("zone".to_owned(), "cellar".to_owned())]),
            places: 2,
            exchange: None,
        }
    }

    #[test]
    fn what_is_kept_of_a_worker_is_short() {
        assert_eq!(info().check(), Ok(()));
        let many = (0..=POOLS_MAX).map(|number| number.to_string()).collect();
        let long = "x".repeat(WORD_BYTES_MAX + 1);
        for bad in [
            WorkerInfo { pools: Vec::new(), ..info() },
            WorkerInfo { pools: many, ..info() },
            WorkerInfo { pools: vec![long.clone()], ..info() },
            WorkerInfo { labels: BTreeMap::from([("zone".to_owned(), String::new())]), ..info() },
            WorkerInfo { labels: BTreeMap::from([("line\nfeed".to_owned(), "x".to_owned())]), ..info() },
            WorkerInfo { version: long.clone(), ..info() },
            WorkerInfo { exchange: Some(long), ..info() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
