use std::io::Write as _;

use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;

const IDS: [&str; 6] = ["gzip", "pgzip", "deflate-default", "zstd", "s2-default", "lz4"];

/// `plain` as a codec of another project writes it, header included.
fn compress(name: &str, plain: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::default();
    let stream = match id_of(name).and_then(names::family).unwrap() {
        Family::Gzip => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), level);
            writer.write_all(plain).unwrap();
            writer.finish().unwrap()
        }
        Family::Deflate => {
            let mut writer = flate2::write::DeflateEncoder::new(Vec::new(), level);
            writer.write_all(plain).unwrap();
            writer.finish().unwrap()
        }
        // A streaming encoder records no content size, as Kopia from 128 KiB on.
        Family::Zstd => ::zstd::stream::encode_all(plain, 1).unwrap(),
        Family::S2 => {
            let mut stream = Vec::new();
            let mut writer = minlz::Writer::new(&mut stream);
            writer.write_all(plain).unwrap();
            writer.flush().unwrap();
            drop(writer);
            stream
        }
        Family::Lz4 => {
            let info =
                lz4_flex::frame::FrameInfo::new().block_mode(lz4_flex::frame::BlockMode::Linked).content_checksum(true);
            let mut writer = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
            writer.write_all(plain).unwrap();
            writer.finish().unwrap()
        }
    };
    headed(name, &stream)
}

fn headed(name: &str, stream: &[u8]) -> Vec<u8> {
    [&id_of(name).unwrap().0.to_be_bytes(), stream].concat()
}

fn noise(length: usize) -> Vec<u8> {
    let mut x: u32 = 12345;
    (0..length)
        .map(|_| {
            x = x.wrapping_mul(1_103_515_245).wrapping_add(12345);
            (x >> 16) as u8
        })
        .collect()
}

fn decompress(name: &str, stored: &[u8], length: usize) -> Result<Vec<u8>> {
    let mut out = b"left over from before".to_vec();
    let result = Decompressor::new().decompress(id_of(name).unwrap(), stored, length, &mut out);
    if result.is_err() {
        assert!(out.is_empty(), "{name}: bytes of a failed stream were left");
    }
    assert!(out.len() <= length, "{name}");
    result.map(|()| out)
}

fn kind(result: Result<Vec<u8>>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn streams_of_the_real_program_decode() {
    let plain = b"hello ".repeat(20);
    for (name, stream) in [
        ("s2-default", "ff06000053327354774f0011000035cc9816781468656c6c6f201106150062"),
        ("zstd", "28b52ffd04007500003068656c6c6f20015406032a2f017a3e7c28"),
    ] {
        let stored = headed(name, &hex::decode(stream).unwrap());
        assert_eq!(decompress(name, &stored, plain.len()).unwrap(), plain, "{name}");
        let mut out = Vec::new();
        Decompressor::new().decompress_headed(&stored, 120, &mut out).unwrap();
        assert_eq!(out, plain);
        assert_eq!(
            Decompressor::new().decompress_headed(&stored, 119, &mut out).unwrap_err().kind(),
            ErrorKind::Damaged
        );
    }
}

#[test]
fn one_decompressor_reads_every_codec_in_turn() {
    let mut decompressor = Decompressor::new();
    let mut out = Vec::new();
    let mixed = [noise(300_000), vec![7; 200_000], b"abc".repeat(70_000)].concat();
    for plain in [&b"x"[..], &mixed, b"hello hello hello hello", &mixed[..4096]] {
        for name in IDS {
            let stored = compress(name, plain);
            decompressor.decompress(id_of(name).unwrap(), &stored, plain.len(), &mut out).unwrap();
            assert!(out == plain, "{name} {}", plain.len());
            decompressor.decompress_headed(&stored, 1 << 20, &mut out).unwrap();
            assert!(out == plain, "{name} {} headed", plain.len());
            decompressor.decompress_headed(&stored, plain.len(), &mut out).unwrap();
            assert!(out == plain, "{name} {} headed, tight", plain.len());
        }
    }
}

#[test]
fn an_empty_s2_stream_is_empty() {
    assert_eq!(decompress("s2-better", &headed("s2-better", &[]), 0).unwrap(), b"");
    assert_eq!(kind(decompress("s2-better", &headed("s2-better", &[]), 1)), ErrorKind::Damaged);
}

#[test]
fn id_zero_is_the_plaintext_itself() {
    let mut out = Vec::new();
    Decompressor::new().decompress(CompressionId(0), b"abc", 3, &mut out).unwrap();
    assert_eq!(out, b"abc");
    assert!(Decompressor::new().decompress(CompressionId(0), b"abc", 4, &mut out).is_err());
}

#[test]
fn r25_output_ends_at_the_recorded_length() {
    let bomb = vec![0; 2 << 20];
    for name in IDS {
        let stored = compress(name, &bomb);
        for length in [0, 1, 700, 65_536, bomb.len() - 1, bomb.len() + 1] {
            assert_eq!(kind(decompress(name, &stored, length)), ErrorKind::Damaged, "{name} {length}");
        }
        assert!(decompress(name, &stored, bomb.len()).unwrap() == bomb, "{name}");
        let mut out = Vec::new();
        let result = Decompressor::new().decompress_headed(&stored, bomb.len() - 1, &mut out);
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Damaged, "{name}");
        assert!(out.capacity() <= 2 * bomb.len(), "{name}");
    }
}

#[test]
fn r25_nothing_is_allocated_for_a_length_that_the_stream_cannot_hold() {
    for name in IDS {
        let stored = compress(name, b"abc");
        let mut out = Vec::new();
        let length = 250 << 20;
        let result = Decompressor::new().decompress(id_of(name).unwrap(), &stored, length, &mut out);
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Damaged);
        assert!(out.capacity() < 64 << 20, "{name}: {}", out.capacity());
    }
}

#[test]
fn the_best_ratio_of_each_codec_is_below_its_bound() {
    let zeros = vec![0; 8 << 20];
    for name in IDS {
        assert!(decompress(name, &compress(name, &zeros), zeros.len()).unwrap() == zeros, "{name}");
    }
}

#[test]
fn a_header_must_be_the_recorded_one_and_known() {
    let stored = compress("zstd", b"hello hello hello");
    assert_eq!(kind(decompress("zstd-fastest", &stored, 17)), ErrorKind::Damaged);
    assert_eq!(kind(decompress("zstd", &stored[..3], 17)), ErrorKind::Damaged);
    let mut out = Vec::new();
    let mut decompressor = Decompressor::new();
    let result = decompressor.decompress(CompressionId(0x1600), &[0, 0, 0x16, 0, 1], 1, &mut out);
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Unsupported);
    let result = decompressor.decompress_headed(b"\x00\x00\x16\x00x", 10, &mut out);
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn streams_joined_end_to_end_are_one_where_kopia_reads_them_so() {
    for name in ["gzip", "zstd", "lz4", "s2-default"] {
        let stored = [&compress(name, b"first "), &compress(name, b"second")[4..]].concat();
        assert_eq!(decompress(name, &stored, 12).unwrap(), b"first second", "{name}");
    }
}

#[test]
fn bytes_after_the_end_are_damage() {
    for name in IDS {
        let stored = [&compress(name, b"hello hello hello")[..], b"more"].concat();
        assert_eq!(kind(decompress(name, &stored, 17)), ErrorKind::Damaged, "{name}");
    }
}

#[test]
fn many_skippable_chunks_do_not_exhaust_the_stack() {
    let mut stored = compress("s2-default", b"hello");
    stored.extend(std::iter::repeat_n([0xfe, 0, 0, 0], 1_000_000).flatten());
    assert_eq!(decompress("s2-default", &stored, 5).unwrap(), b"hello");
}

#[test]
fn what_is_compressed_for_writing_reads_back_and_is_smaller() {
    let plain = b"{\"entries\":[]}".repeat(50);
    let stored = compress_zstd_fastest(&plain).unwrap();
    assert!(stored.len() < plain.len());
    assert_eq!(decompress("zstd-fastest", &stored, plain.len()).unwrap(), plain);
    // Kopia's own writer sets the checksum flag (bit 2 of the frame header descriptor).
    assert_eq!(stored[8] & 4, 4);
    assert!(compress_zstd_fastest(&noise(5000)).is_none());
    assert!(compress_zstd_fastest(b"").is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn anything_reads_back(plain in prop::collection::vec(0u8..4, 1..6000), which in 0..IDS.len()) {
        let stored = compress(IDS[which], &plain);
        prop_assert_eq!(decompress(IDS[which], &stored, plain.len()).unwrap(), plain);
    }

    #[test]
    fn cut_streams_are_damage(plain in prop::collection::vec(0u8..4, 1..3000), which in 0..IDS.len(), cut in 0.0..1.0f64) {
        let stored = compress(IDS[which], &plain);
        let end = (stored.len() as f64 * cut) as usize;
        prop_assert_eq!(kind(decompress(IDS[which], &stored[..end], plain.len())), ErrorKind::Damaged);
    }

    #[test]
    fn flipped_bits_never_panic(
        plain in prop::collection::vec(0u8..16, 1..3000), which in 0..IDS.len(), at in 0.0..1.0f64, bit in 0..8u32,
    ) {
        let mut stored = compress(IDS[which], &plain);
        let at = 4 + ((stored.len() - 4) as f64 * at) as usize;
        stored[at] ^= 1 << bit;
        // A flip in a time stamp or a comment changes nothing; else the length or a checksum tells.
        if let Ok(out) = decompress(IDS[which], &stored, plain.len()) {
            prop_assert_eq!(out.len(), plain.len());
        }
    }

    #[test]
    fn rubbish_never_panics(stream in prop::collection::vec(any::<u8>(), 0..400), which in 0..IDS.len(), length in 0..5000usize) {
        let magic: &[u8] = match IDS[which] {
            "zstd" => b"\x28\xb5\x2f\xfd",
            "s2-default" => b"\xff\x06\x00\x00S2sTwO",
            "lz4" => b"\x04\x22\x4d\x18",
            "deflate-default" => b"",
            _ => b"\x1f\x8b\x08",
        };
        let stored = headed(IDS[which], &[magic, &stream].concat());
        let _ = decompress(IDS[which], &stored, length);
        let mut out = Vec::new();
        let _ = Decompressor::new().decompress_headed(&stored, length, &mut out);
        prop_assert!(out.len() <= length);
    }
}
