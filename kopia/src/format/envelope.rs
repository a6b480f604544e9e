//! The plain JSON envelope of `kopia.repository`, and the encryption that it shares with `kopia.blobcfg`.

use zeroize::Zeroizing;

use super::json::Fields;
use crate::crypto::aead::{self, Algorithm, OpenError};
use crate::crypto::keys::{self, Key};
use crate::error::{Error, Result};

/// Name of the format blob.
pub const FORMAT_BLOB: &str = "kopia.repository";

/// Kopia does not load longer ones: length and checksum of the replica in packs must fit
/// (`repo/format/format_blob.go`, 65,000 with a checksum of 32).
const LENGTH_MAX: usize = 65_000 - 32;

/// What stands unencrypted in `kopia.repository`, and the encrypted configuration.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// Kopia's unique ID, the salt of all key derivation.
    pub unique_id: Vec<u8>,
    /// How the password becomes the format key.
    pub key_algorithm: String,
    encrypted_config: Vec<u8>,
}

impl Envelope {
    /// Parses the bytes of `kopia.repository`.
    ///
    /// # Errors
    /// `Damaged` if they are not such an envelope, `Unsupported` for another encryption than `AES256_GCM`.
    pub fn parse(blob: &[u8]) -> Result<Self> {
        if blob.len() > LENGTH_MAX {
            return Err(Error::damaged(format!(
                "parse {FORMAT_BLOB}: {} bytes are more than the {LENGTH_MAX} that Kopia loads",
                blob.len()
            )));
        }
        let mut fields = Fields::parse(FORMAT_BLOB, blob)?;
        let encryption = fields.text("encryption")?;
        let envelope = Self {
            unique_id: fields.bytes("uniqueID")?,
            key_algorithm: fields.text("keyAlgo")?,
            encrypted_config: fields.bytes("encryptedBlockFormat")?,
        };
        if envelope.unique_id.is_empty() || envelope.encrypted_config.is_empty() {
            return Err(Error::damaged(format!("parse {FORMAT_BLOB}: it lacks its unique ID or its configuration")));
        }
        if encryption != "AES256_GCM" {
            return Err(Error::unsupported(format!("format blob encryption {encryption:?} is not known")));
        }
        Ok(envelope)
    }

    /// The format key of a password. Slow by design.
    ///
    /// # Errors
    /// `Unsupported` for an unknown key derivation, `Damaged` for a unique ID that is too short.
    pub fn derive_key(&self, password: &str) -> Result<Key> {
        keys::format_key(&self.key_algorithm, password, &self.unique_id)
    }

    /// The plaintext of the configuration, or what keeps it shut.
    pub(crate) fn open_config(&self, key: &Key) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        self.open(key, &self.encrypted_config)
    }

    /// Decrypts the configuration or `kopia.blobcfg`.
    pub(crate) fn open(&self, key: &Key, message: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (aes, aad) = self.blob_keys(key);
        let mut plain = Zeroizing::new(Vec::new());
        aead::open(Algorithm::Aes256Gcm, &aes, &aad[..], message, &mut plain)?;
        Ok(plain)
    }

    fn blob_keys(&self, key: &Key) -> (Key, Key) {
        let derive = |purpose: &[u8]| keys::derive(&key[..], &self.unique_id, purpose);
        (derive(b"AES"), derive(b"CHECKSUM"))
    }

    /// The bytes of a format blob like this one with another configuration.
    #[cfg(test)]
    pub(crate) fn with_config(&self, key: &Key, config: &[u8]) -> Vec<u8> {
        use base64::prelude::{BASE64_STANDARD, Engine as _};
        let envelope = serde_json::json!({
            "uniqueID": BASE64_STANDARD.encode(&self.unique_id),
            "keyAlgo": self.key_algorithm,
            "encryption": "AES256_GCM",
            "encryptedBlockFormat": BASE64_STANDARD.encode(self.seal(key, config)),
        });
        serde_json::to_vec_pretty(&envelope).unwrap()
    }

    /// Encrypts as [`Envelope::open`] decrypts.
    #[cfg(test)]
    pub(crate) fn seal(&self, key: &Key, plain: &[u8]) -> Vec<u8> {
        let (aes, aad) = self.blob_keys(key);
        aead::seal(Algorithm::Aes256Gcm, &aes, &aad[..], plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn kind(blob: &str) -> ErrorKind {
        Envelope::parse(blob.as_bytes()).unwrap_err().kind()
    }

    #[test]
    fn envelopes_parse_with_names_in_any_case() {
        let envelope = Envelope::parse(
            br#"{"UniqueId":"AQI=","KEYALGO":"x","encryption":"AES256_GCM","encryptedblockformat":"AA==","more":1}"#,
        )
        .unwrap();
        assert_eq!((envelope.unique_id.as_slice(), envelope.key_algorithm.as_str()), ([1, 2].as_slice(), "x"));
    }

    #[test]
    fn what_is_no_envelope_is_damage_and_what_is_new_unsupported() {
        assert_eq!(kind(""), ErrorKind::Damaged);
        assert_eq!(kind("{}"), ErrorKind::Damaged);
        assert_eq!(kind(&" ".repeat(70_000)), ErrorKind::Damaged);
        assert_eq!(
            kind(r#"{"uniqueID":"AQI=","keyAlgo":"x","encryption":"NONE","encryptedBlockFormat":"AA=="}"#),
            ErrorKind::Unsupported
        );
    }
}
