//! Takes an input apart.

/// A cursor that gives zeros and empty slices behind the end.
pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    /// One byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Four bytes, big-endian.
    pub fn word(&mut self) -> u32 {
        u32::from_be_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// As many bytes as a prefix of two bytes says, or the rest.
    pub fn part(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()) << 8 | usize::from(self.byte());
        let (part, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        part
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether JSON text holds a number that is no integer of 64 bits: `serde_json` does not keep those to the last digit.
pub fn has_odd_number(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Number(number) => !number.is_i64() && !number.is_u64(),
        serde_json::Value::Array(values) => values.iter().any(has_odd_number),
        serde_json::Value::Object(fields) => fields.values().any(has_odd_number),
        _ => false,
    }
}
