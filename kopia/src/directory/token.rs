//! JSON tokens over a slice that may end early.

/// Why a token could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The bytes end inside it.
    Incomplete,
    /// It is not what it should be.
    Bad(&'static str),
}

pub(super) type Step<T> = Result<T, Stop>;

/// Deepest nesting of values. Kopia's own go to four; the bits of a word make a stack that needs no memory.
const DEPTH_MAX: u32 = 128;

/// A place in the bytes.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) position: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.position..).unwrap_or_default()
    }

    pub(super) fn skip_space(&mut self) {
        let space = |b: &u8| matches!(b, b' ' | b'\n' | b'\r' | b'\t');
        self.position += self.rest().iter().take_while(|b| space(b)).count();
    }

    /// The next byte that is not white space, left where it is.
    pub(super) fn peek(&mut self) -> Step<u8> {
        self.skip_space();
        self.rest().first().copied().ok_or(Stop::Incomplete)
    }

    /// Takes exactly `byte`, after white space.
    pub(super) fn expect(&mut self, byte: u8, what: &'static str) -> Step<()> {
        if self.peek()? != byte {
            return Err(Stop::Bad(what));
        }
        self.position += 1;
        Ok(())
    }

    /// Takes `word`.
    pub(super) fn literal(&mut self, word: &'static [u8]) -> Step<()> {
        let rest = self.rest();
        if rest.starts_with(word) {
            self.position += word.len();
            return Ok(());
        }
        if word.starts_with(rest) { Err(Stop::Incomplete) } else { Err(Stop::Bad("an unknown word")) }
    }

    /// Takes a string, and gives what is between the quotes (escapes checked, not decoded). Bytes that are not UTF-8 are let
    /// through: Go's decoder replaces them, and no name matters here.
    pub(super) fn string(&mut self) -> Step<RawString<'a>> {
        self.expect(b'"', "a string should begin here")?;
        let start = self.position;
        let mut escaped = false;
        loop {
            let plain = plain_prefix(self.rest());
            self.position += plain;
            match self.rest() {
                [b'"', ..] => break,
                [b'\\', ..] => {
                    escaped = true;
                    self.escape()?;
                }
                [_, ..] => return Err(Stop::Bad("a control character in a string")),
                [] => return Err(Stop::Incomplete),
            }
        }
        let text = self.bytes.get(start..self.position).unwrap_or_default();
        self.position += 1;
        Ok(RawString { text, escaped })
    }

    fn escape(&mut self) -> Step<()> {
        match self.rest().get(1) {
            None => return Err(Stop::Incomplete),
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.position += 2,
            Some(b'u') => {
                for index in 2..6 {
                    let digit = self.rest().get(index).ok_or(Stop::Incomplete)?;
                    if !digit.is_ascii_hexdigit() {
                        return Err(Stop::Bad("a malformed \\u escape"));
                    }
                }
                self.position += 6;
            }
            Some(_) => return Err(Stop::Bad("an unknown escape")),
        }
        Ok(())
    }

    /// Takes a number. One at the very end of the bytes is incomplete: another digit might follow.
    fn number(&mut self) -> Step<()> {
        let mut rest = self.rest();
        rest = rest.strip_prefix(b"-").unwrap_or(rest);
        rest = match rest {
            [b'0', rest @ ..] => rest,
            _ => digits(rest)?,
        };
        if let [b'.', fraction @ ..] = rest {
            rest = digits(fraction)?;
        }
        if let [b'e' | b'E', exponent @ ..] = rest {
            rest = digits(match exponent {
                [b'+' | b'-', digits @ ..] => digits,
                digits => digits,
            })?;
        }
        if rest.is_empty() {
            return Err(Stop::Incomplete);
        }
        self.position = self.bytes.len() - rest.len();
        Ok(())
    }

    /// Takes any value, well-formed to its end, without recursion.
    pub(super) fn skip_value(&mut self) -> Step<()> {
        // The lowest bit of `objects` says whether the innermost open value is an object.
        let (mut depth, mut objects) = (0u32, 0u128);
        loop {
            match self.peek()? {
                open @ (b'{' | b'[') => {
                    self.position += 1;
                    let is_object = open == b'{';
                    if self.peek()? == (if is_object { b'}' } else { b']' }) {
                        self.position += 1;
                    } else {
                        depth += 1;
                        if depth > DEPTH_MAX {
                            return Err(Stop::Bad("values nested too deep"));
                        }
                        objects = objects << 1 | u128::from(is_object);
                        if is_object {
                            self.key()?;
                        }
                        continue;
                    }
                }
                b'"' => {
                    self.string()?;
                }
                b't' => self.literal(b"true")?,
                b'f' => self.literal(b"false")?,
                b'n' => self.literal(b"null")?,
                b'-' | b'0'..=b'9' => self.number()?,
                _ => return Err(Stop::Bad("a value should begin here")),
            }
            // A value has ended: close what ends with it.
            loop {
                if depth == 0 {
                    return Ok(());
                }
                let is_object = objects & 1 == 1;
                let next = self.peek()?;
                self.position += 1;
                match (next, is_object) {
                    (b',', true) => {
                        self.key()?;
                    }
                    (b',', false) => {}
                    (b'}', true) | (b']', false) => {
                        depth -= 1;
                        objects >>= 1;
                        continue;
                    }
                    _ => return Err(Stop::Bad("a comma or the end of a value should stand here")),
                }
                break;
            }
        }
    }

    /// Takes a key and its colon.
    pub(super) fn key(&mut self) -> Step<RawString<'a>> {
        let key = self.string()?;
        self.expect(b':', "a colon should follow a key")?;
        Ok(key)
    }
}

/// One or more digits, and what follows them.
fn digits(bytes: &[u8]) -> Step<&[u8]> {
    let count = digit_prefix(bytes);
    match (count, bytes.is_empty()) {
        (0, true) => Err(Stop::Incomplete),
        (0, false) => Err(Stop::Bad("a malformed number")),
        _ => Ok(bytes.get(count..).unwrap_or_default()),
    }
}

/// How many bytes from the start are neither a quote, nor a backslash, nor a control character; eight at a time, because names
/// are too short for anything that has to be set up. (Sixteen at a time, in vector instructions, took half as long again.)
#[inline]
pub(super) fn plain_prefix(bytes: &[u8]) -> usize {
    const LOW: u64 = u64::MAX / 255;
    const HIGH: u64 = LOW << 7;
    // The lowest byte that is marked is a true hit; carries can only spoil those above it.
    let below = |word: u64, limit: u64| word.wrapping_sub(LOW * limit) & !word & HIGH;
    let equal = |word: u64, byte: u8| below(word ^ (LOW * u64::from(byte)), 1);
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let hits = below(word, 0x20) | equal(word, b'"') | equal(word, b'\\');
        if hits != 0 {
            return index * 8 + hits.trailing_zeros() as usize / 8;
        }
    }
    let stops = |b: &u8| *b < 0x20 || *b == b'"' || *b == b'\\';
    words.len() * 8 + tail.iter().position(stops).unwrap_or(tail.len())
}

/// How many bytes from the start are decimal digits.
#[inline]
pub(super) fn digit_prefix(bytes: &[u8]) -> usize {
    const LOW: u64 = u64::MAX / 255;
    const HIGH: u64 = LOW << 7;
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        // Digits become 0 to 9; adding 0x76 carries all else below 0x80 into the high bit, and no further.
        let values = u64::from_le_bytes(*word) ^ (LOW * 0x30);
        let others = (((values & !HIGH) + LOW * 0x76) | values) & HIGH;
        if others != 0 {
            return index * 8 + others.trailing_zeros() as usize / 8;
        }
    }
    words.len() * 8 + tail.iter().position(|b| !b.is_ascii_digit()).unwrap_or(tail.len())
}

/// What stands between the quotes.
#[derive(Clone, Copy)]
pub(super) struct RawString<'a> {
    pub(super) text: &'a [u8],
    pub(super) escaped: bool,
}

impl RawString<'_> {
    /// Whether the string is `name`, a lower-case word, in the way that Go's decoder compares field names: without regard to
    /// case, the long s and the Kelvin sign included.
    pub(super) fn is_field(&self, name: &str) -> bool {
        if !self.escaped && self.text.is_ascii() {
            return self.text.eq_ignore_ascii_case(name.as_bytes());
        }
        let fold = |c: char| match c {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            c => c.to_ascii_lowercase(),
        };
        self.decode().is_some_and(|text| text.chars().map(fold).eq(name.chars()))
    }

    /// The string itself; `None` if it is not UTF-8 or has half a surrogate pair (Go puts U+FFFD, which nothing here may hold).
    pub(super) fn decode(&self) -> Option<String> {
        let mut quoted = Vec::with_capacity(self.text.len() + 2);
        quoted.push(b'"');
        quoted.extend_from_slice(self.text);
        quoted.push(b'"');
        serde_json::from_slice(&quoted).ok()
    }
}
