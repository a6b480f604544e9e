//! Content compression: a 4-byte header ID (big-endian) and a codec stream.
//!
//! Every codec decodes into a slice of the caller, so no stream can make the output grow beyond what the index
//! recorded (R25), and none allocates by a length that the stream itself claims.

mod deflate;
mod encode;
mod gzip;
mod lz4;
mod names;
mod s2;
mod zstd;

use crate::mutant::{self, Mutant};
pub use encode::compress_like;
pub use names::{ZSTD_FASTEST, id_of, is_deprecated, name, names};
pub use zstd::compress_zstd_fastest;

use crate::content::CompressionId;
use crate::error::{Error, Result};
use names::Family;

/// Length of the header ID.
const HEADER_LENGTH: usize = 4;

/// Lengths in index entries stay below this (index version 2 has 28 bits; version 1 knows no content compression).
const ORIGINAL_LENGTH_MAX: usize = (1 << 28) - 1;

/// First guess of the output of a stream whose length is not recorded.
const FIRST_GUESS: usize = 64 << 10;

/// Why a codec gave up.
#[derive(Debug)]
enum Failure {
    /// The slice is full and the stream goes on.
    Full,
    /// Not a stream of this codec, or not the whole of one.
    Malformed(String),
}

impl Failure {
    fn malformed(why: impl ToString) -> Self {
        Self::Malformed(why.to_string())
    }
}

/// What a codec answers: the number of bytes written to the front of the slice.
type Decoded = std::result::Result<usize, Failure>;

/// A reusable decompressor (contexts and buffers are kept between calls). One a thread.
#[derive(Default)]
pub struct Decompressor {
    inflate: Option<flate2::Decompress>,
    zstd: Option<zstd::Context>,
    /// Decrypted, still compressed bytes; lent to `content::read`.
    pub(crate) scratch: Vec<u8>,
}

impl Decompressor {
    /// A new one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Decompresses `stored` (header included) into `out` (replaced), which ends up `original_length` long, or empty
    /// after an error. With ID 0, `stored` is the plaintext itself.
    ///
    /// # Errors
    /// `Damaged`: another header than `expected`, a malformed stream, or more or fewer bytes than `original_length` (R25).
    /// `Unsupported`: an ID that Kopia never had.
    pub fn decompress(
        &mut self,
        expected: CompressionId,
        stored: &[u8],
        original_length: usize,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let result = self.decompress_exactly(expected, stored, original_length, out);
        if result.is_err() {
            out.clear();
        }
        result
    }

    fn decompress_exactly(
        &mut self,
        expected: CompressionId,
        stored: &[u8],
        original_length: usize,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        if expected == CompressionId(0) {
            out.clear();
            out.extend_from_slice(stored);
            return length_must_be(original_length, stored.len());
        }
        let family = known(expected)?;
        let (header, stream) = split_header(stored)?;
        if header != expected {
            return Err(Error::damaged(format!(
                "decompress: the header is {:#06x}, the index says {:#06x}",
                header.0, expected.0
            )));
        }
        let reach = stream.len().saturating_mul(family.expansion_max());
        if original_length > ORIGINAL_LENGTH_MAX || original_length > reach {
            return Err(Error::damaged(format!(
                "decompress: {} bytes of {} cannot hold {original_length} bytes",
                stream.len(),
                family.name()
            )));
        }
        if mutant::on(Mutant::R25Uncapped) {
            return self.decompress_growing(stored, usize::MAX, out);
        }
        // One byte more than expected tells a longer stream from one that ends here. Not cleared first: only bytes
        // that the buffer did not have yet need zeroing.
        out.resize(original_length + 1, 0);
        match self.decode(family, stream, out) {
            Ok(length) => {
                out.truncate(length);
                length_must_be(original_length, length)
            }
            Err(failure) => Err(damaged(family, failure, original_length)),
        }
    }

    /// As [`Decompressor::decompress`] for a legacy `Z` object, whose header is in the bytes and whose length is not
    /// recorded; never more than `cap` bytes.
    ///
    /// # Errors
    /// `Damaged`: a malformed stream, or more than `cap` bytes. `Unsupported`: an unknown header.
    pub fn decompress_headed(&mut self, stored: &[u8], cap: usize, out: &mut Vec<u8>) -> Result<()> {
        let result = self.decompress_growing(stored, cap, out);
        if result.is_err() {
            out.clear();
        }
        result
    }

    fn decompress_growing(&mut self, stored: &[u8], cap: usize, out: &mut Vec<u8>) -> Result<()> {
        let (header, stream) = split_header(stored)?;
        let family = known(header)?;
        let limit = cap.saturating_add(1).min(stream.len().saturating_mul(family.expansion_max()).saturating_add(1));
        let mut room = stream.len().saturating_mul(4).max(FIRST_GUESS).min(limit);
        loop {
            out.resize(room, 0);
            match self.decode(family, stream, out) {
                Ok(length) if length <= cap => {
                    out.truncate(length);
                    return Ok(());
                }
                Err(Failure::Full) if room < limit => room = room.saturating_mul(4).min(limit),
                Ok(_) => return Err(damaged(family, Failure::Full, cap)),
                Err(failure) => return Err(damaged(family, failure, cap)),
            }
        }
    }

    fn decode(&mut self, family: Family, stream: &[u8], out: &mut [u8]) -> Decoded {
        match family {
            Family::Gzip => gzip::decode(self.inflate.get_or_insert_with(deflate::context), stream, out),
            Family::Deflate => deflate::decode(self.inflate.get_or_insert_with(deflate::context), stream, out),
            Family::Zstd => {
                if self.zstd.is_none() {
                    self.zstd = Some(zstd::Context::new()?);
                }
                self.zstd.as_mut().map_or(Err(Failure::malformed("no context")), |context| context.decode(stream, out))
            }
            Family::S2 => s2::decode(stream, out),
            Family::Lz4 => lz4::decode(stream, out),
        }
    }
}

fn known(id: CompressionId) -> Result<Family> {
    names::family(id).ok_or_else(|| Error::unsupported(format!("decompress: unknown compression {:#06x}", id.0)))
}

fn split_header(stored: &[u8]) -> Result<(CompressionId, &[u8])> {
    match stored.split_first_chunk::<HEADER_LENGTH>() {
        Some((header, stream)) => Ok((CompressionId(u32::from_be_bytes(*header)), stream)),
        None => Err(Error::damaged(format!("decompress: {} bytes are too few for a header", stored.len()))),
    }
}

fn length_must_be(expected: usize, found: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let found = if found > expected { "more".to_owned() } else { found.to_string() };
    Err(Error::damaged(format!("decompress: the index says {expected} bytes, the stream holds {found}")))
}

fn damaged(family: Family, failure: Failure, limit: usize) -> Error {
    match failure {
        Failure::Full => {
            Error::damaged(format!("decompress: a {} stream holds more than the {limit} bytes expected", family.name()))
        }
        Failure::Malformed(why) => {
            Error::damaged(format!("decompress: malformed {} stream", family.name())).with_source(why)
        }
    }
}

#[cfg(test)]
mod tests;
