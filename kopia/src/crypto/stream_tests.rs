use super::*;
use crate::ecc::Ecc;
use proptest::prelude::*;

const NAMES: [&str; 2] = ["AES256-GCM-HMAC-SHA256", "CHACHA20-POLY1305-HMAC-SHA256"];
const IV: &[u8] = b"0123456789abcdef";

fn cipher(name: &str, ecc: Option<Ecc>) -> Cipher {
    Cipher::new(name, &[9; 32], ecc).unwrap()
}

fn sample(length: usize) -> Vec<u8> {
    (0..length as u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as u8).collect()
}

/// Gives a few bytes at a time, as sockets do.
struct Dribble<'a>(&'a [u8], usize);

impl Read for Dribble<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.1.min(out.len()).min(self.0.len());
        let (now, later) = self.0.split_at(count);
        out[..count].copy_from_slice(now);
        self.0 = later;
        Ok(count)
    }
}

#[test]
fn streams_decrypt_what_the_one_shot_ciphers_sealed() {
    let chunk = CHUNK;
    let around = |n: usize| n.saturating_sub(2)..n + 3;
    let lengths: Vec<usize> = [0, 16, 64, chunk - 16, chunk, chunk + 16, 2 * chunk, 5 * chunk]
        .into_iter()
        .flat_map(around)
        .chain([31, 100, 1000, 300_000])
        .collect();
    for name in NAMES {
        let cipher = cipher(name, None);
        for &length in &lengths {
            let plain = sample(length);
            let stored = cipher.seal(IV, &plain).unwrap();
            let verified = cipher.open_stream(IV, stored.as_slice(), Vec::new()).unwrap();
            assert_eq!(verified.length(), length as u64);
            assert!(verified.into_inner() == plain, "{name}, {length} bytes");
        }
        let stored = cipher.seal(IV, &sample(70_000)).unwrap();
        let verified = cipher.open_stream(IV, Dribble(&stored, 7), Vec::new()).unwrap();
        assert!(verified.into_inner() == sample(70_000));
    }
}

#[test]
fn no_plaintext_comes_back_from_a_changed_or_cut_message() {
    for name in NAMES {
        let cipher = cipher(name, None);
        let stored = cipher.seal(IV, &sample(CHUNK + 100)).unwrap();
        let places = (0..40).chain(CHUNK - 20..CHUNK + 40).chain(stored.len() - 40..stored.len());
        for place in places {
            let mut hit = stored.clone();
            hit[place] ^= 1 << (place % 8);
            let error = cipher.open_stream(IV, hit.as_slice(), Vec::new()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{name}, byte {place}");
            assert!(cipher.open_stream(IV, &stored[..place], Vec::new()).is_err(), "{name}, cut at {place}");
        }
        let mut longer = stored.clone();
        longer.push(0);
        assert!(cipher.open_stream(IV, longer.as_slice(), Vec::new()).is_err());
        assert!(cipher.open_stream(b"another iv", stored.as_slice(), Vec::new()).is_err());
    }
}

#[test]
fn blobs_stream_by_their_name() {
    let cipher = cipher(NAMES[0], None);
    let hasher = crate::crypto::Hasher::new("HMAC-SHA256", b"k").unwrap();
    let (id, stored) = cipher.seal_blob(&hasher, "xn3_", "s1-c2", &sample(1000)).unwrap();
    assert!(cipher.open_blob_stream(&id, &stored[..], Vec::new()).unwrap().into_inner() == sample(1000));
    let error = cipher.open_blob_stream(&BlobId::from("xn3_"), &stored[..], Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
}

#[test]
fn errors_of_either_end_keep_their_kind() {
    struct Fails(ErrorKind);
    impl Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other(Error::new(self.0, "get")))
        }
    }
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let cipher = cipher(NAMES[1], None);
    let error = cipher.open_stream(IV, Fails(ErrorKind::Permission), Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permission);
    let stored = cipher.seal(IV, b"x").unwrap();
    let error = cipher.open_stream(IV, stored.as_slice(), Full).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::DiskFull);
}

#[test]
fn damage_inside_error_correction_is_repaired_block_by_block() {
    for (percent, length) in [(10, 3), (10, 4000), (10, 100_000), (1, 700_000), (100, 40_000)] {
        let ecc = Ecc::new("REED-SOLOMON-CRC32", percent).unwrap();
        let cipher = cipher(NAMES[0], Some(ecc.clone()));
        let plain = sample(length);
        let mut stored = cipher.seal(IV, &plain).unwrap();
        let open = |stored: &[u8]| {
            let mut reader = ecc.reader(io::Cursor::new(stored), stored.len() as u64);
            let opened = cipher.open_stream(IV, &mut reader, Vec::new()).map(Verified::into_inner);
            (opened, reader.repaired())
        };
        let (opened, repaired) = open(&stored);
        assert!(opened.unwrap() == plain && !repaired, "{percent} %, {length} bytes");
        let last = stored.len() - 1;
        stored[last] ^= 1;
        let (opened, repaired) = open(&stored);
        assert!(opened.unwrap() == plain && repaired, "{percent} %, {length} bytes");
        for byte in stored.iter_mut().step_by(2) {
            *byte ^= 0x55;
        }
        assert_eq!(open(&stored).0.unwrap_err().kind(), ErrorKind::Damaged);
    }
}

#[test]
fn a_length_that_lies_is_an_error() {
    let ecc = Ecc::new("REED-SOLOMON-CRC32", 10).unwrap();
    let stored = ecc.encode(&sample(50_000)).unwrap();
    for length in [stored.len() as u64 + 1, 1 << 33, u64::MAX] {
        assert!(ecc.reader(io::Cursor::new(&stored), length).read_to_end(&mut Vec::new()).is_err(), "{length}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_bytes_give_what_the_one_shot_ciphers_give(
        which in 0..2usize,
        stored in proptest::collection::vec(any::<u8>(), 0..300),
        plain in proptest::collection::vec(any::<u8>(), 0..150_000),
        step in 1..5000usize,
    ) {
        let cipher = cipher(NAMES[which], None);
        prop_assert!(cipher.open_stream(IV, stored.as_slice(), Vec::new()).is_err());
        let sealed = cipher.seal(IV, &plain).unwrap();
        let opened = cipher.open_stream(IV, Dribble(&sealed, step), Vec::new()).unwrap().into_inner();
        prop_assert!(opened == plain);
    }

    #[test]
    fn the_reader_gives_what_decoding_at_once_gives(
        percent in 1u32..=100,
        stored in proptest::collection::vec(any::<u8>(), 0..40_000),
        message in proptest::collection::vec(any::<u8>(), 0..40_000),
        flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..6),
    ) {
        let ecc = Ecc::new("REED-SOLOMON-CRC32", percent).unwrap();
        let mut encoded = ecc.encode(&message).unwrap();
        for (place, bits) in flips {
            let place = place % encoded.len();
            encoded[place] ^= bits;
        }
        for stored in [&stored, &encoded] {
            let mut read = Vec::new();
            let mut reader = ecc.reader(io::Cursor::new(stored), stored.len() as u64);
            let streamed = reader.read_to_end(&mut read).is_ok().then_some(read);
            if let Ok((at_once, repaired)) = ecc.decode(stored) {
                prop_assert_eq!(streamed, Some(at_once));
                prop_assert!(repaired || !reader.repaired());
            }
        }
    }
}
