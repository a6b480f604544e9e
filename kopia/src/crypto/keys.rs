//! Derivation of every key from the password, the master key and the unique ID.

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// A key that is wiped from memory when it goes.
pub type Key = Zeroizing<[u8; 32]>;

/// Kopia refuses shorter salts (`internal/crypto/pb_key_deriver_*.go`).
const SALT_BYTES_MIN: usize = 16;
const SCRYPT_LOG2_N: u8 = 16;
const SCRYPT_R: u32 = 8;
const SCRYPT_P: u32 = 1;
const PBKDF2_ROUNDS: u32 = 600_000;

/// The format key of a password: `algorithm` is the envelope's `keyAlgo`, the salt is the unique ID.
///
/// # Errors
/// `Unsupported` for an unknown algorithm, `Damaged` for a unique ID shorter than 16 bytes.
pub fn format_key(algorithm: &str, password: &str, unique_id: &[u8]) -> Result<Key> {
    if unique_id.len() < SALT_BYTES_MIN {
        return Err(Error::damaged(format!(
            "derive the format key: the unique ID has {} bytes, at least {SALT_BYTES_MIN} are needed",
            unique_id.len()
        )));
    }
    let mut key = Key::default();
    match algorithm {
        "scrypt-65536-8-1" => {
            let params = scrypt::Params::new(SCRYPT_LOG2_N, SCRYPT_R, SCRYPT_P).expect("fixed parameters are valid");
            scrypt::scrypt(password.as_bytes(), unique_id, &params, key.as_mut_slice())
                .expect("32 bytes is a valid output length");
        }
        "pbkdf2-sha256-600000" => {
            pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), unique_id, PBKDF2_ROUNDS, key.as_mut_slice());
        }
        _ => return Err(Error::unsupported(format!("key derivation algorithm {algorithm:?} is not known"))),
    }
    Ok(key)
}

/// `derive(purpose)` of the format: HKDF-SHA256 with the unique ID as salt and the purpose as info.
#[must_use]
pub fn derive(key: &[u8], unique_id: &[u8], purpose: &[u8]) -> Key {
    hkdf32(key, unique_id, purpose)
}

/// The root of content encryption. Unlike everywhere else the purpose stands in the salt, and info is empty
/// (`repo/encryption/encryption.go`).
#[must_use]
pub fn content_secret(master_key: &[u8]) -> Key {
    hkdf32(master_key, b"encryption", b"")
}

fn hkdf32(key: &[u8], salt: &[u8], info: &[u8]) -> Key {
    let mut derived = Key::default();
    Hkdf::<Sha256>::new(Some(salt), key)
        .expand(info, derived.as_mut_slice())
        .expect("32 bytes is a valid output length");
    derived
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::prelude::{BASE64_STANDARD, Engine as _};

    struct Vector {
        algorithm: &'static str,
        password: &'static str,
        unique_id: &'static str,
        format_key: &'static str,
        aes: &'static str,
        checksum: &'static str,
        master_key: &'static str,
        content_secret: &'static str,
        /// Whether `derive` starts from the format key, as in repositories created as version 1.
        from_format_key: bool,
        schedule: &'static str,
    }

    const VECTORS: [Vector; 3] = [
        Vector {
            algorithm: "scrypt-65536-8-1",
            password: "correct horse battery staple",
            unique_id: "L8G+9MLQY/07uTl2JjEUKLeDCD8sTG0gjol5lN20d4A=",
            format_key: "029d3da76fb355df94f995136b0fb27868d00706bb3109726a5deabb790140ab",
            aes: "04fdd919b052998204f42934f8626305be44ba2cdf0363512c2c2646687ba06a",
            checksum: "5609bc55f86e4d1770c8b7496104a7b8e4562c1d34b1e6ee13b817dc349fc35b",
            master_key: "596bdeb681319edd68da8ba145826ab15c1097148700356e2ef2c3ef4abf8f07",
            content_secret: "c0c59b47a4f117f98f8b9c852d00bdcb1ee62f71193c27d3c319eafb4ac0a030",
            from_format_key: false,
            schedule: "d8fca0c4fafe88c4bf8d5d05fe5f321119faaec913c91667aa47a5d113094800",
        },
        Vector {
            algorithm: "pbkdf2-sha256-600000",
            password: "test-password-1",
            unique_id: "PlSXAGEo8/z6NVcPPM5r9DJ58BBCoiBMXbr8BCS9ffY=",
            format_key: "4624322d88fd61ca1b4a9e6cbd4c6ad8d74006c28d94baadd9c714d975cab279",
            aes: "9a48b293559971e28cd9f4ceb0fc703d2389e3378e01826cc47f4c28901470f4",
            checksum: "7e9ba66407bdb405cb57f156744a73e1219102cb9fea0fbcf7ab13ba6d2fa3c1",
            master_key: "f66499e43a13c5d111d8f69b160d9aac2a1e17aa3b9ac89141536c5339c2a673",
            content_secret: "aca03063e72cc8fbd344a6d645c9fa7e5d419b42456a6ea916c798dd8c36f244",
            from_format_key: false,
            schedule: "de85356949c96ce0f1fdc06d7eb691567721dc2e2faf4e60e39171c3ba1b3759",
        },
        Vector {
            algorithm: "scrypt-65536-8-1",
            password: "test-password-1",
            unique_id: "FOwvt3Z8TiyQIiuWL7u7kOMyCn7oOS2kCFZMUU0/mHo=",
            format_key: "a6d2d6e276169a5b619e6429e4a147744f2b8dd52f165d12185a6baef63a1683",
            aes: "f991083a2d145f1155353a3f6e1fe3e068f4d727855a72ff754af48b087ba6b4",
            checksum: "90f63dd617827a8e5e73675f2879778dd23f8911f6b2894c6366dac86ea1c91b",
            master_key: "1d59c6bd86f2de4c3b2279b673ce6b29d0cd53cc6b7276f38f733feb8e3b582a",
            content_secret: "ead997ae469a300f7bc2c52decb9cc47fbb8cfceeb87dc5d2767ad360c17cd9f",
            from_format_key: true,
            schedule: "503f81e9a68ffa8adfe3fac9e83a62069d157e073d6c26989e13f3a32f219042",
        },
    ];

    #[test]
    fn keys_are_those_of_real_repositories() {
        for vector in VECTORS {
            let unique_id = BASE64_STANDARD.decode(vector.unique_id).unwrap();
            let format_key = format_key(vector.algorithm, vector.password, &unique_id).unwrap();
            assert_eq!(hex::encode(*format_key), vector.format_key);
            assert_eq!(hex::encode(*derive(&*format_key, &unique_id, b"AES")), vector.aes);
            assert_eq!(hex::encode(*derive(&*format_key, &unique_id, b"CHECKSUM")), vector.checksum);
            let master_key = hex::decode(vector.master_key).unwrap();
            assert_eq!(hex::encode(*content_secret(&master_key)), vector.content_secret);
            let root = if vector.from_format_key { &format_key[..] } else { &master_key[..] };
            assert_eq!(hex::encode(*derive(root, &unique_id, b"maintenance schedule")), vector.schedule);
        }
    }

    #[test]
    fn unknown_algorithms_and_short_salts_are_refused() {
        let error = format_key("scrypt-1-1-1", "x", &[0; 32]).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Unsupported);
        assert!(error.to_string().contains("scrypt-1-1-1"));
        assert_eq!(format_key("scrypt-65536-8-1", "x", &[0; 15]).unwrap_err().kind(), crate::ErrorKind::Damaged);
    }
}
