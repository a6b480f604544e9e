//! Reed-Solomon error correction `REED-SOLOMON-CRC32`.
//!
//! A stored item is the parity shards of all blocks, then their data shards, each shard behind its CRC-32. A shard whose
//! CRC does not hold counts as lost; as many lost shards of a block can be repaired as it has intact parity shards.

mod codec;
mod gf256;
mod layout;
mod reader;

use std::sync::{Arc, OnceLock};

use crate::error::{Error, Result};
use layout::Layout;

pub use reader::EccReader;

const ALGORITHM: &str = "REED-SOLOMON-CRC32";

/// Shard layout for one overhead percentage.
#[derive(Clone)]
pub struct Ecc {
    percent: u32,
    layout: Layout,
    rows: Arc<Rows>,
}

/// Coefficients of the parity shards, computed when something is encoded first.
#[derive(Default)]
struct Rows {
    small: OnceLock<Vec<Vec<u8>>>,
    large: OnceLock<Vec<Vec<u8>>>,
}

impl Ecc {
    /// The algorithm of this Kopia name with this overhead in percent (above 0).
    ///
    /// # Errors
    /// `Unsupported` for an unknown name.
    pub fn new(name: &str, overhead_percent: u32) -> Result<Self> {
        if name != ALGORITHM {
            return Err(Error::unsupported(format!("error correction {name:?} is not known")));
        }
        Ok(Self { percent: overhead_percent, layout: Layout::of_percent(overhead_percent), rows: Arc::default() })
    }
}

impl std::fmt::Debug for Ecc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let code = self.layout.code;
        write!(f, "{ALGORITHM} {} % ({} + {})", self.percent, code.data, code.parity)
    }
}
