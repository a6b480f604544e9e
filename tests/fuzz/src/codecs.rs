//! Compression, error correction, encryption, and where files are cut.

use std::io::{Cursor, Read};

use verger_kopia::compression::{Decompressor, compress_zstd_fastest, id_of, name};
use verger_kopia::content::CompressionId;
use verger_kopia::crypto::Cipher;
use verger_kopia::ecc::Ecc;
use verger_kopia::splitter::Splitter;

use super::bytes::Bytes;
use super::within;

const IDS: [u32; 8] = [0x1000, 0x1101, 0x1200, 0x1300, 0x1400, 0x1500, 0, 0x9999];
/// Outputs of hostile streams need not be large to show what they do.
const LENGTH_MAX: u32 = 1 << 22;

/// Codec, recorded length (four bytes), then a stream without its header.
pub fn decompress(data: &[u8]) {
    let mut rest = Bytes(data);
    let id = CompressionId(IDS[usize::from(rest.byte()) % IDS.len()]);
    let length = usize::try_from(rest.word() % LENGTH_MAX).unwrap();
    let stored = if id.0 == 0 { rest.0.to_vec() } else { [&id.0.to_be_bytes(), rest.0].concat() };
    assert_eq!(name(id).and_then(id_of), name(id).map(|_| id));

    let mut decompressor = Decompressor::new();
    let mut out = Vec::new();
    // Contexts, and an error's words; the output is as long as recorded and no longer.
    let exact =
        within((64 << 10) + 2 * length, 4, data.len(), || decompressor.decompress(id, &stored, length, &mut out));
    assert_eq!(out.len(), if exact.is_ok() { length } else { 0 });
    let mut headed = Vec::new();
    let grown = within((512 << 10) + 8 * length, 16, data.len(), || {
        decompressor.decompress_headed(&stored, length, &mut headed)
    });
    assert!(headed.len() <= length);
    if id.0 != 0 && exact.is_ok() {
        grown.unwrap();
        assert_eq!(headed, out);
        decoded_elsewhere(id, rest.0, &out);
    }
    if let Some(compressed) = compress_zstd_fastest(rest.0) {
        assert!(compressed.len() < rest.0.len());
        decompressor.decompress(CompressionId(0x1101), &compressed, rest.0.len(), &mut out).unwrap();
        assert_eq!(out, rest.0);
    }
}

/// Another decoder of the same format finds the same bytes.
fn decoded_elsewhere(id: CompressionId, stream: &[u8], plain: &[u8]) {
    let mut other = Vec::new();
    match id.0 {
        0x1000 | 0x1300 => flate2::read::MultiGzDecoder::new(stream).read_to_end(&mut other),
        0x1500 => flate2::read::DeflateDecoder::new(stream).read_to_end(&mut other),
        _ => return,
    }
    .unwrap();
    assert_eq!(other, plain);
}

/// Overhead in percent, how many places are damaged and where, then a message.
pub fn ecc(data: &[u8]) {
    let mut rest = Bytes(data);
    let ecc = Ecc::new("REED-SOLOMON-CRC32", u32::from(rest.byte())).unwrap();
    let damage: Vec<u32> = (0..rest.byte() % 4).map(|_| rest.word()).collect();
    let message = rest.0;
    // Any bytes as a stored item; the code of the largest overhead has as much parity as data.
    let decoded = within(4096, 8, data.len(), || ecc.decode(message));
    let mut streamed = Vec::new();
    let mut reader = ecc.reader(Cursor::new(message), message.len() as u64);
    let read = reader.read_to_end(&mut streamed);
    if let (Ok((decoded, repaired)), Ok(_)) = (&decoded, &read) {
        assert_eq!((decoded, *repaired), (&streamed, reader.repaired()));
    }
    assert!(decoded.is_err() || read.is_ok(), "a stream refuses what decodes in one piece");

    let mut stored = ecc.encode(message).unwrap();
    assert!(ecc.is_intact(&stored));
    assert_eq!(ecc.decode(&stored).unwrap(), (message.to_vec(), false));
    for place in &damage {
        let place = usize::try_from(*place).unwrap() % stored.len();
        stored[place] ^= 0x55;
    }
    match ecc.decode(&stored) {
        Ok((found, _)) => assert_eq!(found, message, "a repair that is none"),
        // Every code has at least two shards of parity for each block.
        Err(_) => assert!(damage.len() > 2, "{} damaged bytes are too many", damage.len()),
    }
}

/// Cipher, then a stored item: in one piece and as a stream it opens to the same plaintext, or not at all.
pub fn cipher(data: &[u8]) {
    let Some((&kind, rest)) = data.split_first() else { return };
    let name = ["AES256-GCM-HMAC-SHA256", "CHACHA20-POLY1305-HMAC-SHA256"][usize::from(kind & 1)];
    let ecc = (kind & 2 != 0).then(|| Ecc::new("REED-SOLOMON-CRC32", 10).unwrap());
    let cipher = Cipher::new(name, &[3; 32], ecc.clone()).unwrap();
    let iv = [9; 16];
    assert!(within(8192, 12, rest.len(), || cipher.open(&iv, rest)).is_err(), "a tag that holds by chance");
    let mut sealed = cipher.seal(&iv, rest).unwrap();
    if kind & 4 != 0 {
        let place = usize::from(kind) * 31 % sealed.len();
        sealed[place] ^= 1;
    }
    let whole = cipher.open(&iv, &sealed);
    let stream = match &ecc {
        None => cipher.open_stream(&iv, &sealed[..], Vec::new()),
        Some(ecc) => cipher.open_stream(&iv, ecc.reader(Cursor::new(&sealed), sealed.len() as u64), Vec::new()),
    };
    assert_eq!(whole.as_ref().map(|(plain, _)| plain).ok(), stream.map(|verified| verified.into_inner()).ok().as_ref());
    assert_eq!(whole.is_ok(), kind & 4 == 0 || ecc.is_some(), "one changed byte");
    assert!(whole.map_or(true, |(plain, _)| plain == rest));
}

/// Splitter, step, and a pattern that is repeated to a file: chunks join to it, none is longer than allowed, and how the bytes come does not
/// matter.
pub fn splitter(data: &[u8]) {
    const NAMES: [&str; 5] =
        ["FIXED-128K", "DYNAMIC-128K-BUZHASH", "DYNAMIC-128K-RABINKARP", "DYNAMIC-256K-BUZHASH", "FIXED-1M"];
    let mut rest = Bytes(data);
    let name = NAMES[usize::from(rest.byte()) % NAMES.len()];
    let (step, times) = (usize::from(rest.byte()) * 509 + 1, usize::from(rest.byte()) * 16 + 1);
    let _ = std::str::from_utf8(rest.0).map(Splitter::new);
    let mut file = rest.0.repeat(times);
    file.truncate(1 << 19);
    let whole = chunks(name, &file, file.len().max(1));
    assert_eq!(whole.iter().sum::<usize>(), file.len());
    let max = Splitter::new(name).unwrap().chunk_max();
    assert!(whole.iter().all(|length| (1..=max).contains(length)));
    assert_eq!(chunks(name, &file, step), whole);
}

/// Lengths of the chunks of a file that comes in steps.
fn chunks(name: &str, file: &[u8], step: usize) -> Vec<usize> {
    let mut splitter = Splitter::new(name).unwrap();
    let (mut chunks, mut open) = (Vec::new(), 0);
    for mut part in file.chunks(step) {
        while let Some(cut) = splitter.next_cut(part) {
            chunks.push(open + cut);
            open = 0;
            part = &part[cut..];
        }
        open += part.len();
    }
    chunks.extend((open > 0).then_some(open));
    chunks
}
