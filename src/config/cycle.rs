//! Flags of a maintenance cycle, their environment twins and their keys in the configuration file.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Deserialize;
use verger_kopia::{Error, ErrorKind, Result};

/// Least and usual time from mark to drop, in hours (R15).
const MARK_TO_DROP_MIN: u64 = 5;

/// Kopia's safety level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SafetyLevel {
    /// All margins hold: right while other clients are at work
    Full,
    /// No margins: deletes at once, and breaks snapshots that other clients are making
    None,
}

/// What a cycle may do, and in whose name.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct CycleArgs {
    /// A full cycle now: snapshot GC, drop, rewrite, delete, index, logs
    #[arg(long, env = "VERGER_FULL", help_heading = "Cycle",
        value_parser = clap::builder::BoolishValueParser::new(),
        num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        hide_default_value = true, hide_possible_values = true)]
    pub full: bool,
    /// A quick cycle now: index work; with the legacy index also metadata packs and logs
    #[arg(long, env = "VERGER_QUICK", help_heading = "Cycle",
        value_parser = clap::builder::BoolishValueParser::new(),
        num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        hide_default_value = true, hide_possible_values = true)]
    pub quick: bool,
    /// An index cycle now: what a quick cycle does to the index, and nothing else
    #[arg(long, env = "VERGER_INDEX", help_heading = "Cycle",
        value_parser = clap::builder::BoolishValueParser::new(),
        num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        hide_default_value = true, hide_possible_values = true)]
    pub index: bool,
    /// Margins [default: full]
    #[arg(long, value_enum, value_name = "LEVEL", env = "VERGER_SAFETY", help_heading = "Cycle")]
    pub safety: Option<SafetyLevel>,
    /// Hours from marking a content to dropping it, at least 5; under 24 only where no client sleeps in the middle of a snapshot
    /// [default: 24]
    #[arg(long, value_name = "HOURS", env = "VERGER_MARK_TO_DROP", help_heading = "Cycle")]
    pub mark_to_drop: Option<u64>,
    /// There is no other maintainer: do not wait for one, and need no conditional writes of the store
    #[arg(long, env = "VERGER_EXCLUSIVE", help_heading = "Cycle",
        value_parser = clap::builder::BoolishValueParser::new(),
        num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        hide_default_value = true, hide_possible_values = true)]
    pub exclusive: bool,
    /// Wait while another maintainer holds the lease
    #[arg(long, env = "VERGER_WAIT", help_heading = "Cycle",
        value_parser = clap::builder::BoolishValueParser::new(),
        num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        hide_default_value = true, hide_possible_values = true)]
    pub wait: bool,
    /// Become Kopia's maintenance owner of the repository
    #[arg(long, env = "VERGER_TAKE_OWNERSHIP", help_heading = "Cycle",
        value_parser = clap::builder::BoolishValueParser::new(),
        num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        hide_default_value = true, hide_possible_values = true)]
    pub take_ownership: bool,
    /// Act in the name of the owner (Velero, OADP and VolSync use `default@default`)
    #[arg(long, value_name = "USER@HOST", env = "VERGER_ACT_AS", help_heading = "Cycle")]
    pub act_as: Option<String>,
}

fn usage(step: &str, fix: &str) -> Error {
    Error::new(ErrorKind::Usage, step).with_fix(fix)
}

impl CycleArgs {
    /// Fills what neither flag nor environment gave. One alternative that was given rules out the file's other one.
    ///
    /// # Errors
    /// `Usage` for alternatives that exclude each other, values out of range, and a file that asks for no margins: that is a
    /// person's word, said each time.
    pub(crate) fn or(self, file: Self) -> Result<Self> {
        if file.safety == Some(SafetyLevel::None) {
            return Err(usage(
                "the configuration file asks for `safety: none`",
                "Margins are given up by a person's word each time: --safety none --i-am-alone",
            ));
        }
        let mode_is_given = self.full || self.quick || self.index;
        let owner_is_given = self.take_ownership || self.act_as.is_some();
        let both = Self {
            full: self.full || (!mode_is_given && file.full),
            quick: self.quick || (!mode_is_given && file.quick),
            index: self.index || (!mode_is_given && file.index),
            safety: self.safety.or(file.safety),
            mark_to_drop: self.mark_to_drop.or(file.mark_to_drop),
            exclusive: self.exclusive || file.exclusive,
            wait: self.wait || file.wait,
            take_ownership: self.take_ownership || (!owner_is_given && file.take_ownership),
            act_as: self.act_as.or(if owner_is_given { None } else { file.act_as }),
        };
        if [both.full, both.quick, both.index].into_iter().filter(|mode| *mode).count() > 1 {
            return Err(usage(
                "more than one of --full, --quick and --index is given",
                "Give one; a full cycle includes the quick one's work, and a quick one the index work",
            ));
        }
        if both.take_ownership && both.act_as.is_some() {
            return Err(usage("both --take-ownership and --act-as are given", "Give one of them"));
        }
        if both.mark_to_drop.is_some_and(|hours| hours < MARK_TO_DROP_MIN) {
            return Err(usage(
                "--mark-to-drop is less than 5 hours",
                "Kopia's own margins add up to five hours: give 5 or more",
            ));
        }
        Ok(both)
    }

    /// Time from mark to drop, if somebody said.
    #[must_use]
    pub(crate) fn mark_to_drop(&self) -> Option<Duration> {
        self.mark_to_drop.map(|hours| Duration::from_secs(hours.saturating_mul(3600)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_rule_out_the_files_alternatives() {
        let file = CycleArgs { quick: true, act_as: Some("default@default".into()), ..CycleArgs::default() };
        let flags = CycleArgs { full: true, take_ownership: true, ..CycleArgs::default() };
        let both = flags.or(file.clone()).unwrap();
        assert_eq!((both.full, both.quick, both.take_ownership, both.act_as), (true, false, true, None));
        let from_file = CycleArgs::default().or(file).unwrap();
        assert_eq!((from_file.quick, from_file.act_as.as_deref()), (true, Some("default@default")));
    }

    #[test]
    fn contradictions_and_short_waits_are_refused() {
        for args in [
            CycleArgs { full: true, quick: true, ..CycleArgs::default() },
            CycleArgs { quick: true, index: true, ..CycleArgs::default() },
            CycleArgs { take_ownership: true, act_as: Some("a@b".into()), ..CycleArgs::default() },
            CycleArgs { mark_to_drop: Some(4), ..CycleArgs::default() },
        ] {
            assert_eq!(args.or(CycleArgs::default()).unwrap_err().kind(), ErrorKind::Usage);
        }
        let file = CycleArgs { safety: Some(SafetyLevel::None), ..CycleArgs::default() };
        assert_eq!(CycleArgs::default().or(file).unwrap_err().kind(), ErrorKind::Usage);
    }
}
