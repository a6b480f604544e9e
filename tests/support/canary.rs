//! Secrets that a test sends through everything, to look for them afterwards where they must not be.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::{Path, PathBuf};
use std::process::Command;

use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::{Aes256Gcm, KeyInit as _, Nonce};
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use memchr::memmem;
use serde_json::{Value, json};
use verger_kopia::crypto::keys;

use crate::support::{Golden, PASSWORD};

/// What any coordinator answers to its owner, once it has looked after `photos` for a cycle.
pub const PAGES: [&str; 12] = [
    "/healthz",
    "/readyz",
    "/metrics",
    "/v1/openapi.json",
    "/v1/status",
    "/v1/repositories",
    "/v1/repositories/photos",
    "/v1/cycles",
    "/v1/cycles/1",
    "/v1/events",
    "/v1/leases",
    "/v1/tokens",
];

/// What must not be found, by what it is.
#[derive(Default)]
pub struct Canaries {
    pub all: Vec<(String, Vec<u8>)>,
    /// Everything that was printed or answered.
    pub said: Vec<(String, Vec<u8>)>,
}

impl Canaries {
    /// A new one: 24 letters that stand nowhere else.
    pub fn make(&mut self, what: &str) -> String {
        let mut digest = [0; 32];
        let seed = format!("{what} {} {:?}", self.all.len(), std::time::SystemTime::now());
        digest.copy_from_slice(verger_proto::Digest::of(seed.as_bytes()).as_bytes());
        let text = digest.iter().take(24).map(|byte| char::from(b'a' + byte % 26)).collect::<String>();
        self.keep(what, text.as_bytes());
        text
    }

    pub fn keep(&mut self, what: &str, secret: &[u8]) {
        assert!(secret.len() >= 16, "{what} is too short to be told from chance");
        self.all.push((what.to_owned(), secret.to_vec()));
    }

    /// A token: its text, and the bytes that it stands for.
    pub fn token(&mut self, what: &str, text: &str) {
        let digits = text.trim().strip_prefix("vgr_").unwrap();
        self.keep(what, digits.as_bytes());
        self.keep(&format!("{what} (bytes)"), &BASE64_URL_SAFE_NO_PAD.decode(digits).unwrap());
    }

    /// Runs a command, whatever comes of it, and remembers what it said.
    pub fn hear(&mut self, command: &mut Command) -> std::process::Output {
        let output = command.output().unwrap();
        let arguments: Vec<String> = command.get_args().map(|part| part.to_string_lossy().into_owned()).collect();
        self.said.push((arguments.join(" "), [output.stdout.clone(), output.stderr.clone()].concat()));
        output
    }

    /// As [`Self::hear`], of one that must fail.
    pub fn fail(&mut self, command: &mut Command) {
        let output = self.hear(command);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && !told.contains("--ca-file"), "{command:?}: {told}");
    }

    /// In which of these bytes which canary stands: as it is, in base64 or in hexadecimal digits.
    pub fn found(&self, place: &str, bytes: &[u8]) -> Vec<String> {
        let forms = |secret: &[u8]| {
            let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
            [secret.to_vec(), BASE64_STANDARD_NO_PAD.encode(secret).into_bytes(), hex.into_bytes()]
        };
        let is_in = |secret: &[u8]| forms(secret).iter().any(|form| memmem::find(bytes, form).is_some());
        self.all.iter().filter(|(_, secret)| is_in(secret)).map(|(what, _)| format!("{what} in {place}")).collect()
    }

    /// As [`Self::found`], in the files below a folder, but for those below others.
    pub fn found_below(&self, folder: &Path, but: &[PathBuf]) -> Vec<String> {
        files(folder)
            .iter()
            .filter(|path| !but.iter().any(|but| path.starts_with(but)))
            .flat_map(|path| self.found(&path.display().to_string(), &std::fs::read(path).unwrap_or_default()))
            .collect()
    }
}

/// Every file below a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Gives the repository another password, as `kopia repository change-password` does; its keys are canaries, too.
pub fn change_password(golden: &Golden, password: &str, canaries: &mut Canaries) {
    let [path, settings] = ["kopia.repository.f", "kopia.blobcfg.f"].map(|name| golden.repository().join(name));
    let mut envelope: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let text = |name: &str| envelope[name].as_str().unwrap().to_owned();
    let unique = BASE64_STANDARD.decode(text("uniqueID")).unwrap();
    let cipher = |password: &str| {
        let key = keys::format_key(&text("keyAlgo"), password, &unique).unwrap();
        let derive = |purpose: &[u8]| keys::derive(&key[..], &unique, purpose);
        (Aes256Gcm::new_from_slice(&derive(b"AES")[..]).unwrap(), derive(b"CHECKSUM").to_vec())
    };
    let (old, new) = (cipher(PASSWORD), cipher(password));
    let open = |sealed: &[u8]| {
        let (nonce, msg) = sealed.split_at(12);
        let nonce: [u8; 12] = nonce.try_into().unwrap();
        old.0.decrypt(&Nonce::from(nonce), Payload { msg, aad: &old.1 }).unwrap()
    };
    let seal = |plain: &[u8]| {
        let message = new.0.encrypt(&Nonce::from([9; 12]), Payload { msg: plain, aad: &new.1 }).unwrap();
        [&[9; 12][..], &message].concat()
    };
    let config = open(&BASE64_STANDARD.decode(text("encryptedBlockFormat")).unwrap());
    let keys: Value = serde_json::from_slice(&config).unwrap();
    for name in ["masterKey", "secret"] {
        canaries.keep(name, &BASE64_STANDARD.decode(keys["format"][name].as_str().unwrap()).unwrap());
    }
    envelope["encryptedBlockFormat"] = json!(BASE64_STANDARD.encode(seal(&config)));
    std::fs::write(&path, serde_json::to_vec(&envelope).unwrap()).unwrap();
    let changed = seal(&open(&std::fs::read(&settings).unwrap()));
    std::fs::write(&settings, changed).unwrap();
}

/// Whether a word stands in a file below a folder.
pub fn holds(folder: &Path, word: &str) -> bool {
    files(folder).iter().any(|path| memmem::find(&std::fs::read(path).unwrap_or_default(), word.as_bytes()).is_some())
}
