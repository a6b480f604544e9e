//! Required features.

use super::json::Fields;
use crate::error::{Error, Result};

/// What this program understands, as the Kopia of its time does (`repo/open.go`).
const UNDERSTOOD: [&str; 2] = ["index-v1", "index-v2"];

/// A feature a client must know.
#[derive(Debug, Clone)]
pub struct RequiredFeature {
    /// Name.
    pub feature: String,
    /// Opening may go on with a warning.
    pub warn: bool,
    /// Message for people.
    pub message: String,
}

impl RequiredFeature {
    pub(super) fn from_fields(mut fields: Fields) -> Result<Self> {
        let feature = fields.text("feature")?;
        let Some(mut otherwise) = fields.object("ifNotUnderstood", "the advice of a required feature")? else {
            return Ok(Self { feature, warn: false, message: String::new() });
        };
        let warn = otherwise.flag("warn")?;
        let mut message = otherwise.text("message")?;
        for (lead, field) in [("see ", "url"), ("it needs Kopia ", "upgradeToVersion")] {
            let value = otherwise.text(field)?;
            if !value.is_empty() {
                let gap = if message.is_empty() { "" } else { "; " };
                message = format!("{message}{gap}{lead}{value}");
            }
        }
        Ok(Self { feature, warn, message })
    }

    /// Whether this program knows it.
    #[must_use]
    pub fn is_understood(&self) -> bool {
        UNDERSTOOD.contains(&self.feature.as_str())
    }

    /// # Errors
    /// `Unsupported` with its message, unless it is understood or asks for a warning only.
    pub fn check(&self) -> Result<()> {
        if self.is_understood() || self.warn {
            return Ok(());
        }
        let step = format!("the repository requires feature {:?}, which is not known", self.feature);
        Err(Error::unsupported(if self.message.is_empty() { step } else { format!("{step}: {}", self.message) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feature(text: &str) -> RequiredFeature {
        RequiredFeature::from_fields(Fields::parse("a required feature", text.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn unknown_features_refuse_with_their_words_unless_they_only_warn() {
        assert!(feature(r#"{"feature":"index-v2","ifNotUnderstood":{"warn":false}}"#).check().is_ok());
        assert!(feature(r#"{"feature":"flux","ifNotUnderstood":{"warn":true}}"#).check().is_ok());
        assert!(feature(r#"{"feature":"flux"}"#).check().is_err());
        let text = r#"{"feature":"flux","ifNotUnderstood":{"message":"too new","url":"u://x","upgradeToVersion":"9"}}"#;
        let error = feature(text).check().unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Unsupported);
        assert!(error.to_string().ends_with("\"flux\", which is not known: too new; see u://x; it needs Kopia 9"));
    }
}
