//! A section of the configuration file that is named after a command: its long flags' names as keys.

use std::collections::BTreeMap;

use serde::Deserialize;

/// What a flag is given in the file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
enum Value {
    Switch(bool),
    Number(i64),
    Text(String),
    Many(Vec<String>),
}

/// Flags of one command, by their long names without dashes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Flags(BTreeMap<String, Value>);

impl Flags {
    /// Each flag, and its values as they would stand on the command line.
    pub(crate) fn values(&self) -> impl Iterator<Item = (&str, Vec<String>)> {
        self.0.iter().map(|(name, value)| {
            let values = match value {
                Value::Switch(on) => vec![on.to_string()],
                Value::Number(number) => vec![number.to_string()],
                Value::Text(text) => vec![text.clone()],
                Value::Many(texts) => texts.clone(),
            };
            (name.as_str(), values)
        })
    }
}
