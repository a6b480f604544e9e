//! Reed-Solomon error correction `REED-SOLOMON-CRC32`.

/// Shard layout for one overhead percentage.
#[derive(Debug, Clone)]
pub struct Ecc {}
