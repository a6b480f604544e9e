//! JSON objects that must be objects: serde takes an array of the fields in their order for a struct as well, Go never does.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// A `T` that was written as an object.
#[derive(Debug)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        object(from).map(Self)
    }
}

/// For `deserialize_with`.
///
/// # Errors
/// If it is no object, or `T` does not take it.
pub fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    from.deserialize_map(Only(PhantomData))
}

struct Only<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Only<T> {
    type Value = T;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Two {
        a: u8,
        b: Box<serde_json::value::RawValue>,
    }

    #[test]
    fn arrays_are_no_objects() {
        assert!(serde_json::from_str::<Two>(r#"[1, 2]"#).is_ok(), "if serde learns it, this module may go");
        assert!(serde_json::from_str::<Object<Two>>(r#"[1, 2]"#).is_err());
        let two = serde_json::from_str::<Object<Two>>(r#"{"b": 1e2, "a": 1}"#).unwrap().0;
        assert_eq!((two.a, two.b.get()), (1, "1e2"));
    }
}
