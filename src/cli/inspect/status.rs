//! `inspect status`.

use std::time::Duration;

use serde::Serialize;
use verger_kopia::Result;
use verger_kopia::format::{EpochParameters, RepositoryConfig};

use super::Open;
use crate::output::{self, Output};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(rename = "uniqueIDHex")]
    unique_id_hex: String,
    content_format: ContentFormat,
    object_format: ObjectFormat,
}

/// Kopia's `format.ContentFormat` without its keys.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContentFormat {
    hash: String,
    encryption: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    ecc: String,
    #[serde(skip_serializing_if = "is_zero")]
    ecc_overhead_percent: u32,
    version: u8,
    max_pack_size: u64,
    index_version: u8,
    epoch_parameters: Epochs,
    enable_password_change: bool,
}

#[derive(Serialize)]
struct ObjectFormat {
    splitter: String,
}

/// Durations in nanoseconds.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Epochs {
    enabled: bool,
    epoch_refresh_frequency: u128,
    full_checkpoint_frequency: u32,
    cleanup_safety_margin: u128,
    min_epoch_duration: u128,
    epoch_advance_on_count_threshold: u64,
    epoch_advance_on_total_size_bytes_threshold: u64,
    delete_parallelism: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

impl From<&EpochParameters> for Epochs {
    fn from(epochs: &EpochParameters) -> Self {
        Self {
            enabled: epochs.enabled,
            epoch_refresh_frequency: epochs.refresh_frequency.as_nanos(),
            full_checkpoint_frequency: epochs.full_checkpoint_frequency,
            cleanup_safety_margin: epochs.cleanup_safety_margin.as_nanos(),
            min_epoch_duration: epochs.min_epoch_duration.as_nanos(),
            epoch_advance_on_count_threshold: epochs.advance_on_count,
            epoch_advance_on_total_size_bytes_threshold: epochs.advance_on_size,
            // Without epochs everything is zero in what Kopia shows; the library keeps this one at least 1.
            delete_parallelism: if epochs.enabled { epochs.delete_parallelism } else { 0 },
        }
    }
}

impl From<&RepositoryConfig> for ContentFormat {
    fn from(config: &RepositoryConfig) -> Self {
        Self {
            hash: config.hash.clone(),
            encryption: config.encryption.clone(),
            ecc: config.ecc.clone(),
            ecc_overhead_percent: config.ecc_overhead_percent,
            version: config.version,
            max_pack_size: config.max_pack_size,
            index_version: config.index_version,
            epoch_parameters: Epochs::from(&config.epoch),
            enable_password_change: config.enable_password_change,
        }
    }
}

/// Prints what the repository is.
pub(super) fn run(output: Output, open: &Open) -> Result<()> {
    let (repository, config) = (&open.repository, open.repository.config());
    let unique_id_hex: String = repository.unique_id().iter().map(|byte| format!("{byte:02x}")).collect();
    if output.json {
        return output.document(&Status {
            unique_id_hex,
            content_format: ContentFormat::from(config),
            object_format: ObjectFormat { splitter: config.splitter.clone() },
        });
    }
    let mut lines = vec![
        format!("Address:             {}", repository.storage().address()),
        format!("Unique ID:           {unique_id_hex}"),
        format!("Hash:                {}", config.hash),
        format!("Encryption:          {}", config.encryption),
    ];
    if config.has_ecc() {
        lines.push(format!("Error correction:    {} with {}% overhead", config.ecc, config.ecc_overhead_percent));
    }
    lines.extend([
        format!("Splitter:            {}", config.splitter),
        format!("Format version:      {}", config.version),
        format!("Index format:        v{}", config.index_version),
        format!("Max pack length:     {}", output::bytes(config.max_pack_size)),
        format!("Password changes:    {}", if config.enable_password_change { "supported" } else { "not supported" }),
    ]);
    lines.extend(epoch_lines(&config.epoch));
    if let Some((mode, period)) = repository.blob_config().retention {
        lines.push(format!("Blob retention:      {mode:?} for {}", duration(period)));
    }
    output.lines(lines)
}

fn epoch_lines(epochs: &EpochParameters) -> Vec<String> {
    if !epochs.enabled {
        return vec!["Epoch manager:       disabled (legacy index)".to_owned()];
    }
    vec![
        "Epoch manager:       enabled".to_owned(),
        format!("Epoch refresh:       {}", duration(epochs.refresh_frequency)),
        format!(
            "Epoch advance on:    {} blobs or {}, minimum {}",
            epochs.advance_on_count,
            output::bytes(epochs.advance_on_size),
            duration(epochs.min_epoch_duration)
        ),
        format!("Epoch cleanup margin: {}", duration(epochs.cleanup_safety_margin)),
        format!("Epoch checkpoint every: {} epochs", epochs.full_checkpoint_frequency),
    ]
}

/// A duration as Go prints it.
fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if h > 0 {
        format!("{h}h{m}m{s}s")
    } else if m > 0 {
        format!("{m}m{s}s")
    } else {
        format!("{s}s")
    }
}
