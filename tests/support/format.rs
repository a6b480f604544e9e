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
    std::fs::write(&path, changed(&std::fs::read(&path).unwrap(), PASSWORD, PASSWORD, change)).unwrap();
}

/// A `kopia.repository` with its `format` part changed, encrypted with another password or the same.
pub fn changed(blob: &[u8], password: &str, new_password: &str, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut envelope: Value = serde_json::from_slice(blob).unwrap();
    let bytes = |key: &str| BASE64_STANDARD.decode(envelope[key].as_str().unwrap()).unwrap();
    let (unique_id, sealed) = (bytes("uniqueID"), bytes("encryptedBlockFormat"));
    let cipher = |password: &str| {
        let key = keys::format_key(envelope["keyAlgo"].as_str().unwrap(), password, &unique_id).unwrap();
        let derive = |purpose: &[u8]| keys::derive(&key[..], &unique_id, purpose);
        (Aes256Gcm::new_from_slice(&derive(b"AES")[..]).unwrap(), derive(b"CHECKSUM"))
    };
    let (old, aad) = cipher(password);
    let (nonce, message) = sealed.split_at(NONCE_BYTES);
    let nonce = Nonce::try_from(nonce).unwrap();
    let plain = old.decrypt(&nonce, Payload { msg: message, aad: &aad[..] }).unwrap();
    let mut config: Value = serde_json::from_slice(&plain).unwrap();
    change(&mut config["format"]);
    let plain = serde_json::to_vec(&config).unwrap();
    let (new, aad) = if password == new_password { (old, aad) } else { cipher(new_password) };
    // The nonce is used again: nothing here is secret.
    let message = new.encrypt(&nonce, Payload { msg: &plain, aad: &aad[..] }).unwrap();
    let sealed = [&nonce[..], &message].concat();
    envelope["encryptedBlockFormat"] = BASE64_STANDARD.encode(sealed).into();
    serde_json::to_vec_pretty(&envelope).unwrap()
}
