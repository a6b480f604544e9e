//! Format blobs that the real program would not write: the configuration of one, decrypted, changed and encrypted again.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::Value;
use verger_kopia::crypto::keys;

use super::support::{Golden, PASSWORD};

const NONCE_BYTES: usize = 12;

/// Changes the `format` part of the configuration in a repository's `kopia.repository`.
pub fn change(golden: &Golden, change: impl FnOnce(&mut Value)) {
    let path = golden.repository().join("kopia.repository.f");
    let mut envelope: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let bytes = |key: &str| BASE64_STANDARD.decode(envelope[key].as_str().unwrap()).unwrap();
    let (unique_id, sealed) = (bytes("uniqueID"), bytes("encryptedBlockFormat"));
    let key = keys::format_key(envelope["keyAlgo"].as_str().unwrap(), PASSWORD, &unique_id).unwrap();
    let derive = |purpose: &[u8]| keys::derive(&key[..], &unique_id, purpose);
    let (aes, aad) = (derive(b"AES"), derive(b"CHECKSUM"));
    let cipher = Aes256Gcm::new_from_slice(&aes[..]).unwrap();
    let (nonce, message) = sealed.split_at(NONCE_BYTES);
    let nonce = Nonce::try_from(nonce).unwrap();
    let plain = cipher.decrypt(&nonce, Payload { msg: message, aad: &aad[..] }).unwrap();
    let mut config: Value = serde_json::from_slice(&plain).unwrap();
    change(&mut config["format"]);
    let plain = serde_json::to_vec(&config).unwrap();
    // The nonce is used again: nothing here is secret.
    let message = cipher.encrypt(&nonce, Payload { msg: &plain, aad: &aad[..] }).unwrap();
    let sealed = [&nonce[..], &message].concat();
    envelope["encryptedBlockFormat"] = BASE64_STANDARD.encode(sealed).into();
    std::fs::write(path, serde_json::to_vec_pretty(&envelope).unwrap()).unwrap();
}
