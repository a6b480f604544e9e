//! Flags, their environment twins, and their keys in the configuration file, as given; nothing is checked yet.

use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;

/// Which repository, and how to reach it.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct RepositoryArgs {
    /// Address: `filesystem:///path`, `s3://bucket/prefix`, `gcs://bucket/prefix` or `azure://container/prefix`
    #[arg(value_name = "REPO", env = "KOPIA_REPOSITORY")]
    pub repository: Option<String>,
    /// Kopia connection file (`repository.config`) that names the repository, in place of REPO
    #[arg(long, value_name = "FILE", env = "VERGER_CONFIG_FILE", help_heading = "Repository")]
    pub config_file: Option<PathBuf>,
    /// Name of the environment variable that holds the repository's password [default: KOPIA_PASSWORD]
    #[arg(long, value_name = "NAME", env = "VERGER_PASSWORD_ENV", help_heading = "Repository")]
    pub password_env: Option<String>,
    /// File that holds the repository's password; one trailing newline is not part of it
    #[arg(long, value_name = "FILE", env = "VERGER_PASSWORD_FILE", help_heading = "Repository")]
    pub password_file: Option<PathBuf>,
    /// S3 endpoint, `https://host[:port]` or `http://host[:port]` (no TLS); also AWS_S3_ENDPOINT
    #[arg(long, value_name = "URL", env = "VERGER_S3_ENDPOINT", help_heading = "Storage")]
    pub s3_endpoint: Option<String>,
    /// S3 region; also AWS_REGION
    #[arg(long, value_name = "NAME", env = "VERGER_S3_REGION", help_heading = "Storage")]
    pub s3_region: Option<String>,
    /// PEM file with the certificate authorities of the storage endpoint
    #[arg(long, value_name = "FILE", env = "VERGER_ROOT_CA_PEM_PATH", help_heading = "Storage")]
    pub root_ca_pem_path: Option<PathBuf>,
    /// Do not verify the storage endpoint's TLS certificate
    #[arg(long, env = "VERGER_DISABLE_TLS_VERIFICATION", help_heading = "Storage",
        value_parser = clap::builder::BoolishValueParser::new(),
        num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        hide_default_value = true, hide_possible_values = true)]
    pub disable_tls_verification: bool,
}

/// How much of the machine and the network a cycle may use.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct EngineArgs {
    /// Most memory to use, such as `512MiB` or `2GB`, at least 96MiB; the rest goes into temporary files [default: 512MiB]
    #[arg(long, value_name = "SIZE", env = "VERGER_MEMORY_LIMIT", help_heading = "Limits")]
    pub memory_limit: Option<String>,
    /// Parallel storage requests [default: 16 remote, 4 on local disks]
    #[arg(long, value_name = "N", env = "VERGER_PARALLEL", help_heading = "Limits")]
    pub parallel: Option<u32>,
    /// Most bytes to download in a second
    #[arg(long, value_name = "SIZE", env = "VERGER_DOWNLOAD_BYTES_PER_SECOND", help_heading = "Limits")]
    pub download_bytes_per_second: Option<String>,
    /// Most bytes to upload in a second
    #[arg(long, value_name = "SIZE", env = "VERGER_UPLOAD_BYTES_PER_SECOND", help_heading = "Limits")]
    pub upload_bytes_per_second: Option<String>,
    /// Most reads, most writes and most listings in a second, each
    #[arg(long, value_name = "N", env = "VERGER_REQUESTS_PER_SECOND", help_heading = "Limits")]
    pub requests_per_second: Option<u32>,
    /// Folder for the ledger [default: $XDG_STATE_HOME/verger or ~/.local/state/verger]
    #[arg(long, value_name = "DIR", env = "VERGER_STATE_DIR", help_heading = "State")]
    pub state_dir: Option<PathBuf>,
}
