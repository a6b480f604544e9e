//! Every compression, for measuring and for tests. Maintenance writes `zstd-fastest` alone ([`super::compress_zstd_fastest`]).

use std::io::Write;

use flate2::Compression;

use super::names::{self, Family};
use super::{id_of, zstd};
use crate::error::{Error, ErrorKind, Result};

/// Compresses as a writer of this Kopia name does, header included: the same format at the nearest level of another library, so
/// sizes differ a little from Kopia's. The parallel writers' streams are made by one thread.
///
/// # Errors
/// `Unsupported` for an unknown name; `Internal` if the encoder fails.
pub fn compress_like(name: &str, plain: &[u8]) -> Result<Vec<u8>> {
    let unknown = || Error::unsupported(format!("compression {name:?} is not known"));
    let id = id_of(name).ok_or_else(unknown)?;
    let mut stored = id.0.to_be_bytes().to_vec();
    let written = match names::family(id).ok_or_else(unknown)? {
        Family::Gzip => {
            whole(flate2::write::GzEncoder::new(&mut stored, deflate_level(name)), plain, |e| e.finish().map(drop))
        }
        Family::Deflate => {
            whole(flate2::write::DeflateEncoder::new(&mut stored, deflate_level(name)), plain, |e| e.finish().map(drop))
        }
        Family::Zstd => zstd::append(zstd_level(name), plain, &mut stored),
        Family::S2 => {
            super::s2::append(name == "s2-better", plain, &mut stored);
            Ok(())
        }
        Family::Lz4 => whole(lz4_flex::frame::FrameEncoder::new(&mut stored), plain, |e| {
            e.finish().map(drop).map_err(std::io::Error::other)
        }),
    };
    written.map_err(|error| Error::new(ErrorKind::Internal, format!("compress with {name}")).with_source(error))?;
    Ok(stored)
}

fn whole<W: Write>(mut writer: W, plain: &[u8], finish: impl FnOnce(W) -> std::io::Result<()>) -> std::io::Result<()> {
    writer.write_all(plain)?;
    finish(writer)
}

fn deflate_level(name: &str) -> Compression {
    if name.ends_with("best-speed") {
        Compression::fast()
    } else if name.ends_with("best-compression") {
        Compression::best()
    } else {
        Compression::default()
    }
}

/// Levels of the reference library that Kopia's encoder says it matches.
fn zstd_level(name: &str) -> i32 {
    match name {
        "zstd-fastest" => zstd::LEVEL_FASTEST,
        "zstd-better-compression" => 7,
        "zstd-best-compression" => 11,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compression::Decompressor;

    #[test]
    fn each_kind_of_stream_reads_back() {
        let text = b"what is written reads back. ".repeat(50_000);
        let mut noise: Vec<u8> = (0..70_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        noise.truncate(200_001);
        let (mut decompressor, mut out) = (Decompressor::new(), Vec::new());
        for plain in [&text[..], &noise, b"x", b""] {
            for name in names::names() {
                let stored = compress_like(name, plain).unwrap();
                decompressor.decompress(id_of(name).unwrap(), &stored, plain.len(), &mut out).unwrap();
                assert!(out == plain, "{name} {}", plain.len());
                assert!(plain.len() < 1_000_000 || stored.len() < plain.len() / 10, "{name} does not compress");
            }
        }
        assert_eq!(compress_like("zip", b"x").unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
