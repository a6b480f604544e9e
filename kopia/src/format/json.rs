//! JSON objects as Go reads them: field names in any case, absent and `null` the same, numbers without a fraction.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::Value;
use zeroize::{Zeroize as _, Zeroizing};

use crate::error::{Error, Result};

/// The fields of one object. Errors name object and field, never a value: it may be a key.
pub(super) struct Fields {
    what: &'static str,
    values: BTreeMap<String, Value>,
}

impl Fields {
    pub(super) fn parse(what: &'static str, bytes: &[u8]) -> Result<Self> {
        let value = serde_json::from_slice(bytes)
            .map_err(|error| Error::damaged(format!("parse {what}")).with_source(Syntax::of(&error)))?;
        Self::of(what, value)
    }

    fn of(what: &'static str, value: Value) -> Result<Self> {
        let Value::Object(object) = value else {
            return Err(Error::damaged(format!("parse {what}: it is not a JSON object")));
        };
        let values = object.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
        Ok(Self { what, values })
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.values.remove(&name.to_ascii_lowercase()).filter(|value| !value.is_null())
    }

    pub(super) fn bad(&self, name: &str, why: &str) -> Error {
        Error::damaged(format!("parse {}: field {name} {why}", self.what))
    }

    /// Empty if absent.
    pub(super) fn text(&mut self, name: &str) -> Result<String> {
        match self.take(name) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(self.bad(name, "is not a string")),
        }
    }

    /// Decoded from base64; empty if absent.
    pub(super) fn bytes(&mut self, name: &str) -> Result<Vec<u8>> {
        let text = Zeroizing::new(self.text(name)?);
        BASE64_STANDARD.decode(text.as_bytes()).map_err(|_| self.bad(name, "is not base64"))
    }

    /// 0 if absent.
    pub(super) fn integer(&mut self, name: &str) -> Result<i64> {
        match self.take(name) {
            None => Ok(0),
            Some(value) => value.as_i64().ok_or_else(|| self.bad(name, "is not a whole number of 64 bits")),
        }
    }

    /// A number that `T` holds; 0 if absent.
    pub(super) fn number<T: TryFrom<i64>>(&mut self, name: &str) -> Result<T> {
        let value = self.integer(name)?;
        T::try_from(value).map_err(|_| self.bad(name, "is out of range"))
    }

    /// Nanoseconds; zero if absent.
    pub(super) fn duration(&mut self, name: &str) -> Result<Duration> {
        self.number::<u64>(name).map(Duration::from_nanos)
    }

    /// False if absent.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Err(self.bad(name, "is not true or false")),
        }
    }

    pub(super) fn object(&mut self, name: &str, what: &'static str) -> Result<Option<Self>> {
        self.take(name).map(|value| Self::of(what, value)).transpose()
    }

    /// Empty if absent.
    pub(super) fn objects(&mut self, name: &str, what: &'static str) -> Result<Vec<Self>> {
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(values)) => values.into_iter().map(|value| Self::of(what, value)).collect(),
            Some(_) => Err(self.bad(name, "is not a list")),
        }
    }
}

impl Drop for Fields {
    fn drop(&mut self) {
        for value in self.values.values_mut() {
            if let Value::String(text) = value {
                text.zeroize();
            }
        }
    }
}

/// Where the syntax breaks, without what stands there.
#[derive(Debug, thiserror::Error)]
#[error("broken JSON in line {line}, column {column}")]
struct Syntax {
    line: usize,
    column: usize,
}

impl Syntax {
    fn of(error: &serde_json::Error) -> Self {
        Self { line: error.line(), column: error.column() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        Fields::parse("the test", text.as_bytes()).unwrap()
    }

    #[test]
    fn names_match_in_any_case_and_the_last_one_counts() {
        let mut object = fields(r#"{"UNIQUEid":"AQI=","uniqueID":"Aw==","n":null,"Count":-3,"on":true,"wait":1000}"#);
        assert_eq!(object.bytes("uniqueId").unwrap(), [3]);
        assert_eq!((object.integer("count").unwrap(), object.flag("On").unwrap()), (-3, true));
        assert_eq!(object.duration("wait").unwrap(), Duration::from_micros(1));
        assert_eq!(object.text("n").unwrap(), "");
        assert!(object.object("absent", "x").unwrap().is_none() && object.objects("absent", "x").unwrap().is_empty());
    }

    #[test]
    fn other_types_are_damage_and_values_stay_unsaid() {
        for text in
            [r#"{"f":"s3cret"}"#, r#"{"f":[1]}"#, r#"{"f":1.5}"#, r#"{"f":1e3}"#, r#"{"f":9223372036854775808}"#]
        {
            let error = fields(text).integer("f").unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Damaged);
            assert!(error.chain().contains("the test") && !error.chain().contains("s3cret"));
        }
        assert!(fields(r#"{"f":-1}"#).duration("f").is_err());
        assert!(fields(r#"{"f":"s3cret!"}"#).bytes("f").is_err());
        for text in ["", "{", "[]", "3", "{} x", r#"{"s3cret"}"#] {
            let error = Fields::parse("it", text.as_bytes()).err().unwrap();
            assert!(error.kind() == crate::ErrorKind::Damaged && !error.chain().contains("s3cret"), "{text}");
        }
    }
}
