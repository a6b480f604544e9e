//! Where workers leave what other workers need, and how finely cycles are cut.

use verger_kopia::storage::{Access, Address, settings};
use verger_kopia::{Error, ErrorKind, Result};
use verger_worker::exchange::Exchange;
use verger_worker::run::{SHARD_BYTES, Shards};

use super::engine::size;
use super::stores;

/// The exchange, as given.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ExchangeArgs {
    /// Folder or bucket of its own, the same for all workers of a pool, where shards leave what others need (encrypted):
    /// `filesystem:///path`, `s3://bucket/prefix/`, `gcs://…`, `azure://…` [default: cycles are not shared]
    #[arg(long, value_name = "URL", env = "VERGER_EXCHANGE", help_heading = "Sharing")]
    exchange: Option<String>,
    /// Bytes of packs that a shard has; smaller cycles are not cut [default: 64MiB]
    #[arg(long, value_name = "SIZE", env = "VERGER_SHARD_BYTES", help_heading = "Sharing")]
    shard_bytes: Option<String>,
}

impl ExchangeArgs {
    /// Opens it.
    ///
    /// # Errors
    /// `Usage` for an address or a size that is none; what opening says.
    pub(crate) fn resolve(&self) -> Result<Option<Shards>> {
        let shard_bytes = size("shard-bytes", self.shard_bytes.as_deref())?.unwrap_or(SHARD_BYTES);
        if shard_bytes == 0 {
            let step = "--shard-bytes is 0";
            return Err(Error::new(ErrorKind::Usage, step).with_fix("leave it out for 64MiB"));
        }
        let Some(text) = &self.exchange else { return Ok(None) };
        let address: Address = text.parse().map_err(|error: Error| error.at("--exchange"))?;
        if let Address::Filesystem(path) = &address {
            verger_coordinator::files::make_folders(path)
                .map_err(|error| Error::of_file(format!("make {}", path.display()), error))?;
        }
        let storage = settings::open(&address, &stores::from_environment(), Access::ReadWrite)?;
        let exchange = Exchange::open(storage).map_err(|error| error.at(format!("open the exchange {address}")))?;
        Ok(Some(Shards::new(exchange, shard_bytes)))
    }
}
