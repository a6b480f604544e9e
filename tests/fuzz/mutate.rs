//! Changes inputs as damage and hostile hands do, and always in the same way.

#![allow(unreachable_pub, reason = "included by several crates")]

/// Words that parsers know, numbers at the edges, and JSON that goes deep.
const TOKENS: &[&[u8]] = &[
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"-1",
    b"0",
    b"9223372036854775807",
    b"18446744073709551615",
    b"1e999",
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"[[[[[[[[",
    b"{\"a\":{\"a\":{\"a\":",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b",",
    b"/",
    b"..",
    b"-",
    b"_",
    b"kopia:directory",
    b"kopia:indirect",
    b"\"obj\":",
    b"\"type\":",
    b"\"entries\":",
    b"\"OBJ\":",
    b"9999-12-31T23:59:59.999999999Z",
    b"-009999-01-02T01:59:59Z",
    b"0001-01-01T00:00:00Z",
    b"Ixkaa00",
    b"IIZ",
    b"xn18446744073709551615_",
    b"xr0_9223372036854775807_a",
    b"\x28\xb5\x2f\xfd",
    b"\x1f\x8b\x08",
    b"\xff\x06\0\0S2sTwO",
    b"\x04\x22\x4d\x18",
];
/// A length field must not make the input itself large.
const LENGTH_MAX: usize = 1 << 16;

/// A small generator (xorshift64*); its seed is its state.
pub struct Random(pub u64);

impl Random {
    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `end`; 0 if that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { usize::try_from(self.number() >> 8).unwrap_or(0) % end }
    }
}

/// Changes `input` in one to six ways. `other` is another input of the same kind, to splice with.
pub fn change(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(6) {
        once(input, other, random);
    }
    input.truncate(LENGTH_MAX);
}

fn once(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let end = (at + random.below(1 + input.len().min(64))).min(input.len());
    match random.below(11) {
        0 => input.truncate(at),
        1 => drop(input.drain(at..end)),
        2 => insert(input, at, TOKENS[random.below(TOKENS.len())]),
        3 => {
            let copy = input[at..end].repeat(1 + random.below(8));
            insert(input, random.below(input.len() + 1), &copy);
        }
        4 => {
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        5 => overwrite(input, at, TOKENS[random.below(TOKENS.len())]),
        6 => {
            let width = [1, 2, 4, 8][random.below(4)];
            let number = [0, 1, u64::MAX, u64::MAX >> 1, random.number(), 1 << random.below(64)][random.below(6)];
            let bytes = if random.below(2) == 0 { number.to_be_bytes() } else { number.to_le_bytes() };
            overwrite(input, at, &bytes[..width]);
        }
        7 => {
            let value = u8::try_from(random.below(256)).unwrap_or(0);
            insert(input, at, &[value]);
        }
        _ => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
    }
}

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    drop(input.splice(at..at, bytes.iter().copied()));
}

fn overwrite(input: &mut [u8], at: usize, bytes: &[u8]) {
    for (slot, byte) in input.iter_mut().skip(at).zip(bytes) {
        *slot = *byte;
    }
}
