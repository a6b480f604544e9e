//! Zstandard: frames one after another, with or without a recorded content size.

use zstd::zstd_safe::{self, DCtx, DParameter};

use super::{Decoded, Failure, HEADER_LENGTH, names::ZSTD_FASTEST};

/// Largest window a decoder may be made to keep: 128 MiB. Kopia's writers stay below 8 MiB.
const WINDOW_LOG_MAX: u32 = 27;

/// Level of the `zstd` library that comes nearest to Kopia's `zstd-fastest`.
pub(super) const LEVEL_FASTEST: i32 = 1;

/// A decompression context, kept between streams.
pub(super) struct Context(DCtx<'static>);

impl Context {
    pub(super) fn new() -> Result<Self, Failure> {
        let mut context = DCtx::try_create().ok_or_else(|| Failure::malformed("no memory for a zstd context"))?;
        context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).map_err(failure)?;
        Ok(Self(context))
    }

    /// In one pass, so that `out` is the window and nothing else is allocated, whatever the frame header says.
    pub(super) fn decode(&mut self, stream: &[u8], out: &mut [u8]) -> Decoded {
        self.0.decompress(out, stream).map_err(failure)
    }
}

fn failure(code: zstd_safe::ErrorCode) -> Failure {
    let why = zstd_safe::get_error_name(code);
    // `ZSTD_error_dstSize_tooSmall`; the bindings give names only.
    if why == "Destination buffer is too small" { Failure::Full } else { Failure::malformed(why) }
}

/// Compresses as `zstd-fastest`, header included. `None` if that does not make it smaller: then it is stored as it is.
#[must_use]
pub fn compress_zstd_fastest(plain: &[u8]) -> Option<Vec<u8>> {
    let mut compressor = zstd::bulk::Compressor::new(LEVEL_FASTEST).ok()?;
    compressor.include_checksum(true).ok()?;
    let stream = compressor.compress(plain).ok()?;
    if stream.len().checked_add(HEADER_LENGTH)? >= plain.len() {
        return None;
    }
    let mut stored = Vec::with_capacity(HEADER_LENGTH + stream.len());
    stored.extend_from_slice(&ZSTD_FASTEST.0.to_be_bytes());
    stored.extend_from_slice(&stream);
    Some(stored)
}

/// Appends one frame at this level.
pub(super) fn append(level: i32, plain: &[u8], out: &mut Vec<u8>) -> std::io::Result<()> {
    let mut compressor = zstd::bulk::Compressor::new(level)?;
    compressor.include_checksum(true)?;
    out.extend_from_slice(&compressor.compress(plain)?);
    Ok(())
}
