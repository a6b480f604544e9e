//! `kopia.repository`, its encrypted configuration, and `kopia.blobcfg`.

use verger_kopia::clock::Timestamp;
use verger_kopia::crypto::{Cipher, Hasher};
use verger_kopia::ecc::Ecc;
use verger_kopia::format::{BlobConfig, Envelope, RepositoryConfig};
use verger_kopia::splitter::Splitter;

use super::within;

/// The unencrypted envelope. No input makes opening cost more than Kopia's own key derivation, so none is derived here.
pub fn format_blob(data: &[u8]) {
    let Ok(envelope) = within(8192, 200, data.len(), || Envelope::parse(data)) else { return };
    assert!(!envelope.unique_id.is_empty() && data.len() < 65_000);
    if !["scrypt-65536-8-1", "pbkdf2-sha256-600000"].contains(&envelope.key_algorithm.as_str()) {
        assert!(envelope.derive_key("x").is_err());
    }
}

/// The decrypted configuration, of the repository or of `kopia.blobcfg`: what it says either works or is refused.
pub fn format_config(data: &[u8]) {
    if let Ok(config) = within(8192, 200, data.len(), || BlobConfig::parse(data)) {
        assert!(config.retention.is_none_or(|(_, period)| !period.is_zero()));
    }
    let Ok(config) = within(8192, 200, data.len(), || RepositoryConfig::parse(data)) else { return };
    assert!(
        config.max_pack_size >= 10 << 20
            && (1..=3).contains(&config.version)
            && (1..=2).contains(&config.index_version)
    );
    let shown = format!("{config:?}");
    for key in [&config.secret, &config.master_key].into_iter().filter(|key| key.len() > 8) {
        assert!(!shown.contains(&verger_kopia::hex(key)), "a key in Debug");
    }
    if let Some(lock) = &config.upgrade_lock {
        for now in [Timestamp::MIN, Timestamp::MAX, Timestamp::UNIX_EPOCH] {
            assert_eq!(lock.check(now).is_err(), lock.is_locked(now));
        }
    }
    let _ = Splitter::new(&config.splitter);
    let Ok(hasher) = Hasher::new(&config.hash, &config.secret) else { return };
    assert_eq!(hasher.hash(data).as_bytes().len(), hasher.length());
    let ecc = config.has_ecc().then(|| Ecc::new(&config.ecc, config.ecc_overhead_percent)).transpose();
    let Ok(ecc) = ecc else { return };
    let Ok(cipher) = Cipher::new(&config.encryption, &[1; 32], ecc) else { return };
    let (id, sealed) = cipher.seal_blob(&hasher, "n", "", data).unwrap();
    assert_eq!(cipher.open_blob(&id, &sealed).unwrap(), data);
}
