//! Names of what a batch does (S6): every blob and content with its rule, kept beside the ledger before the deed.

use std::collections::BTreeMap;

/// What the batch under way does, by rule.
#[derive(Debug, Default)]
pub struct Evidence(BTreeMap<&'static str, Vec<String>>);

impl Evidence {
    /// Notes a blob or content.
    pub fn note(&mut self, rule: &'static str, name: impl Into<String>) {
        self.0.entry(rule).or_default().push(name.into());
    }

    /// All that was noted since the last time, by rule.
    pub fn take(&mut self) -> impl Iterator<Item = (&'static str, Vec<String>)> + use<> {
        std::mem::take(&mut self.0).into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s6_names_are_kept_by_rule_and_taken_once() {
        let mut evidence = Evidence::default();
        evidence.note("unreferenced-pack", "p1");
        evidence.note("expired-session", "s1");
        evidence.note("unreferenced-pack", "p2");
        let taken: Vec<_> = evidence.take().collect();
        assert_eq!(taken[1], ("unreferenced-pack", vec!["p1".to_owned(), "p2".to_owned()]));
        assert_eq!((taken.len(), evidence.take().count()), (2, 0));
    }
}
