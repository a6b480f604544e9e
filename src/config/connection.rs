//! Kopia's connection files (`repository.config`): where a repository lies and who this client is.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde::Deserialize;
use verger_kopia::{Error, ErrorKind, Result};

use super::identity;

/// What a connection file says. `storage.config` may hold secrets: no `Debug`.
#[derive(Clone)]
pub(crate) struct Connection {
    /// The file.
    pub path: PathBuf,
    /// Kopia's backend type: `filesystem`, `s3`, `gcs`, `azureBlob`, …
    pub backend: String,
    /// The backend's settings as written.
    pub config: serde_json::Value,
    /// `username@hostname` of the connection.
    pub identity: String,
    /// The connection is read-only.
    pub read_only: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Written {
    storage: Option<WrittenStorage>,
    #[serde(rename = "apiServer")]
    api_server: Option<serde_json::Value>,
    hostname: String,
    username: String,
    readonly: bool,
}

#[derive(Deserialize)]
struct WrittenStorage {
    r#type: String,
    #[serde(default)]
    config: serde_json::Value,
}

/// Reads a connection file.
///
/// # Errors
/// `Usage` if it is missing or malformed; `Unsupported` if it leads to a Kopia API server.
pub(crate) fn read(path: &Path) -> Result<Connection> {
    let step = || format!("read Kopia connection file {}", path.display());
    let text = std::fs::read(path).map_err(|e| {
        Error::new(ErrorKind::Usage, step())
            .with_source(e)
            .with_fix("Connect with `kopia repository connect` first, or give the repository's address")
    })?;
    parse(path, &text)
}

pub(super) fn parse(path: &Path, text: &[u8]) -> Result<Connection> {
    let step = || format!("read Kopia connection file {}", path.display());
    let written: Written =
        serde_json::from_slice(text).map_err(|e| Error::new(ErrorKind::Usage, step()).with_source(e))?;
    if written.api_server.is_some() {
        return Err(Error::unsupported(format!("{}: it leads to a Kopia API server", step()))
            .with_fix("Maintenance needs the storage itself: give its address"));
    }
    let storage =
        written.storage.ok_or_else(|| Error::new(ErrorKind::Usage, format!("{}: no storage in it", step())))?;
    let or = |text: String, default: String| if text.is_empty() { default } else { text };
    let default = identity::default_identity();
    let (user, host) = default.split_once('@').unwrap_or((&default, ""));
    Ok(Connection {
        path: path.to_owned(),
        backend: storage.r#type,
        config: storage.config,
        identity: format!("{}@{}", or(written.username, user.to_owned()), or(written.hostname, host.to_owned())),
        read_only: written.readonly,
    })
}

impl Connection {
    /// The lock file that Kopia holds while it maintains through this connection.
    #[must_use]
    pub(crate) fn maintenance_lock(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".mlock");
        name.into()
    }

    /// The password that Kopia saved beside the file, if it did.
    ///
    /// # Errors
    /// `Usage` if the saved file is there but cannot be read.
    pub(crate) fn saved_password(&self) -> Result<Option<String>> {
        let mut name = self.path.clone().into_os_string();
        name.push(".kopia-password");
        let step = || format!("read Kopia's saved password beside {}", self.path.display());
        let text = match std::fs::read_to_string(&name) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::new(ErrorKind::Usage, step()).with_source(e)),
        };
        let bytes = base64::engine::general_purpose::STANDARD.decode(text.trim()).ok();
        let password = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        password.map(Some).ok_or_else(|| Error::new(ErrorKind::Usage, step()))
    }

    /// A text field of the backend's settings.
    #[must_use]
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        self.config.get(key)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// A yes-or-no field of the backend's settings.
    #[must_use]
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.config.get(key).and_then(serde_json::Value::as_bool).unwrap_or(false)
    }

    /// The address in Verger's form, without secrets.
    ///
    /// # Errors
    /// `Unsupported` for backends that Verger does not reach.
    pub(crate) fn address(&self) -> Result<String> {
        let need = |key: &str| {
            self.text(key).ok_or_else(|| {
                Error::new(ErrorKind::Usage, format!("read {}: no {key} in its storage", self.path.display()))
            })
        };
        let prefix = self.text("prefix").unwrap_or_default();
        Ok(match self.backend.as_str() {
            "filesystem" => format!("filesystem://{}", need("path")?),
            "s3" => format!("s3://{}/{prefix}", need("bucket")?),
            "gcs" => format!("gcs://{}/{prefix}", need("bucket")?),
            "azureBlob" => format!("azure://{}/{prefix}", need("container")?),
            other => {
                return Err(Error::unsupported(format!("Kopia's backend {other:?} ({})", self.path.display())).with_fix(
                    "Verger maintains filesystem, S3, Google Cloud Storage and Azure; run `kopia maintenance run` for \
                     this one, or mount it as a file system",
                ));
            }
        })
    }
}

/// Connection files that Kopia may have on this machine: the one named in the environment, and those of its default folder.
#[must_use]
pub(crate) fn known() -> Vec<PathBuf> {
    let mut files = Vec::new();
    if let Some(path) = std::env::var_os("KOPIA_CONFIG_PATH") {
        files.push(PathBuf::from(path));
    }
    let folder = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")));
    if let Some(entries) = folder.and_then(|folder| std::fs::read_dir(folder.join("kopia")).ok()) {
        let mut found: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        found.sort();
        files.extend(found.into_iter().filter(|path| path.extension().is_some_and(|x| x == "config")));
    }
    files.dedup();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Result<Connection> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("repository.config");
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    #[test]
    fn identity_and_address_come_from_the_file() {
        let c = written(
            r#"{"storage":{"type":"s3","config":{"bucket":"b","prefix":"p/","endpoint":"h:9000","doNotUseTLS":true}},
               "hostname":"golden","username":"owner","enableActions":false}"#,
        )
        .unwrap();
        assert_eq!(c.identity, "owner@golden");
        assert_eq!(c.address().unwrap(), "s3://b/p/");
        assert!(c.flag("doNotUseTLS") && !c.read_only);
        assert!(c.maintenance_lock().to_string_lossy().ends_with("repository.config.mlock"));
    }

    #[test]
    fn servers_other_backends_and_broken_files_are_refused() {
        let server = written(r#"{"apiServer":{"url":"https://h"},"hostname":"h","username":"u"}"#);
        assert_eq!(server.err().map(|e| e.kind()), Some(ErrorKind::Unsupported));
        let b2 = written(r#"{"storage":{"type":"b2","config":{"bucket":"b"}}}"#).unwrap();
        assert_eq!(b2.address().unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(written("{").err().map(|e| e.kind()), Some(ErrorKind::Usage));
        assert_eq!(written("{}").err().map(|e| e.kind()), Some(ErrorKind::Usage));
    }
}
