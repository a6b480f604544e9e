//! `.storageconfig`: storage classes by prefix (Kopia's repo/blob/s3).

use serde::Deserialize;

use super::S3Storage;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{BlobId, ByteRange};

/// Name of the object, hidden from listings.
pub(super) const CONFIG_NAME: &str = ".storageconfig";

/// Which blobs are written in which class.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct StorageClasses {
    #[serde(rename = "blobOptions", default)]
    options: Option<Vec<ClassOfPrefix>>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
struct ClassOfPrefix {
    #[serde(default)]
    prefix: String,
    #[serde(rename = "storageClass", default)]
    class: String,
}

impl StorageClasses {
    pub(super) fn read(store: &S3Storage) -> Result<Self> {
        match store.read(&BlobId::new(CONFIG_NAME), ByteRange::All) {
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error.at(format!("read {CONFIG_NAME}"))),
        }
    }

    fn parse(text: &[u8]) -> Result<Self> {
        serde_json::from_slice(text)
            .map_err(|error| Error::damaged(format!("read {CONFIG_NAME}: it is malformed")).with_source(error))
    }

    /// The class of a blob: the first prefix that matches decides.
    pub(super) fn of(&self, name: &str) -> Option<&str> {
        let first = self.options.iter().flatten().find(|option| name.starts_with(&option.prefix))?;
        (!first.class.is_empty()).then_some(first.class.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_prefix_decides() {
        let text = br#"{"blobOptions":[{"prefix":"pa","storageClass":"GLACIER_IR"},{"prefix":"p","storageClass":"STANDARD_IA"},{"prefix":"q"}]}"#;
        let classes = StorageClasses::parse(text).unwrap();
        assert_eq!(classes.of("pa12"), Some("GLACIER_IR"));
        assert_eq!(classes.of("pb12"), Some("STANDARD_IA"));
        assert_eq!(classes.of("q1"), None);
        assert_eq!(classes.of("kopia.repository"), None);
        assert!(StorageClasses::parse(b"{").is_err());
        assert_eq!(StorageClasses::parse(b"{}").unwrap(), StorageClasses::default());
    }
}
