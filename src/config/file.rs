//! The YAML configuration file: the long flags' names as keys, unknown ones refused.

use std::path::Path;

use serde::Deserialize;
use verger_kopia::storage::Address;
use verger_kopia::{Error, ErrorKind, Result};

use super::cycle::CycleArgs;
use super::engine::Engine;
use super::flags::Flags;
use super::raw::{EngineArgs, RepositoryArgs};

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct File {
    /// Which repository, and how to reach it.
    pub repository: RepositoryArgs,
    /// Limits and state.
    pub engine: EngineArgs,
    /// What a cycle may do, and in whose name.
    pub maintain: CycleArgs,
    /// Flags of `verger up`.
    pub up: Flags,
    /// Flags of `verger coordinator`.
    pub coordinator: Flags,
    /// Flags of `verger worker`.
    pub worker: Flags,
}

impl File {
    /// Sections that are named after commands.
    pub(crate) fn services(&self) -> [(&'static str, &Flags); 3] {
        [("up", &self.up), ("coordinator", &self.coordinator), ("worker", &self.worker)]
    }

    /// Whether every value can be used, as far as that can be said without a repository.
    ///
    /// # Errors
    /// `Usage` for the first that cannot.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(address) = &self.repository.repository {
            address.parse::<Address>()?;
        }
        Engine::resolve(EngineArgs::default(), self.engine.clone())?;
        CycleArgs::default().or(self.maintain.clone()).map(drop)
    }
}

/// Reads the configuration file at `path`.
///
/// # Errors
/// `Usage` if it cannot be read, is not YAML, or has a key that Verger does not know.
pub(crate) fn read(path: &Path) -> Result<File> {
    let step = || format!("read configuration file {}", path.display());
    let text = std::fs::read_to_string(path).map_err(|e| Error::new(ErrorKind::Usage, step()).with_source(e))?;
    parse(path, &text)
}

pub(super) fn parse(path: &Path, text: &str) -> Result<File> {
    let step = || format!("read configuration file {}", path.display());
    if text.trim().is_empty() {
        return Ok(File::default());
    }
    serde_saphyr::from_str(text).map_err(|e| {
        // The lines after the first draw the place.
        let what = e.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Error::new(ErrorKind::Usage, step()).with_source(what).with_fix("Correct that line, or take it out")
    })
}

impl RepositoryArgs {
    /// Fills what neither flag nor environment gave.
    #[must_use]
    pub(crate) fn or(self, file: Self) -> Self {
        Self {
            repository: self.repository.or(file.repository),
            config_file: self.config_file.or(file.config_file),
            password_env: self.password_env.or(file.password_env),
            password_file: self.password_file.or(file.password_file),
            s3_endpoint: self.s3_endpoint.or(file.s3_endpoint),
            s3_region: self.s3_region.or(file.s3_region),
            root_ca_pem_path: self.root_ca_pem_path.or(file.root_ca_pem_path),
            disable_tls_verification: self.disable_tls_verification || file.disable_tls_verification,
        }
    }
}

impl EngineArgs {
    /// Fills what neither flag nor environment gave.
    #[must_use]
    pub(crate) fn or(self, file: Self) -> Self {
        Self {
            memory_limit: self.memory_limit.or(file.memory_limit),
            parallel: self.parallel.or(file.parallel),
            download_bytes_per_second: self.download_bytes_per_second.or(file.download_bytes_per_second),
            upload_bytes_per_second: self.upload_bytes_per_second.or(file.upload_bytes_per_second),
            requests_per_second: self.requests_per_second.or(file.requests_per_second),
            state_dir: self.state_dir.or(file.state_dir),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<File> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("verger.yaml");
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    #[test]
    fn keys_are_the_flags_names() {
        let file =
            parse("repository:\n  repository: s3://b/p/\n  password-env: X\nengine:\n  memory-limit: 1GiB\n").unwrap();
        assert_eq!(file.repository.repository.as_deref(), Some("s3://b/p/"));
        assert_eq!(file.engine.memory_limit.as_deref(), Some("1GiB"));
    }

    #[test]
    fn unknown_keys_and_broken_files_are_refused() {
        for text in ["repository:\n  pasword-env: X\n", "engines: {}\n", "a: [\n", "engine: 3\n"] {
            assert_eq!(parse(text).unwrap_err().kind(), ErrorKind::Usage, "{text}");
        }
        assert!(parse("").is_ok());
    }

    #[test]
    fn flags_come_before_the_file() {
        let flag = EngineArgs { parallel: Some(3), ..EngineArgs::default() };
        let file = EngineArgs { parallel: Some(9), memory_limit: Some("1GB".into()), ..EngineArgs::default() };
        let both = flag.or(file);
        assert_eq!((both.parallel, both.memory_limit.as_deref()), (Some(3), Some("1GB")));
    }
}
