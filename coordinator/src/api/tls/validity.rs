//! From when until when a certificate is valid: the two times alone, out of its DER.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Valid from (inclusive) and until (inclusive); `None` if this is not the DER of a certificate.
pub(super) fn of(certificate: &[u8]) -> Option<(Timestamp, Timestamp)> {
    let (body, _) = tagged(certificate, SEQUENCE)?;
    let (signed, _) = tagged(body, SEQUENCE)?;
    let rest = tagged(signed, VERSION).map_or(signed, |(_, rest)| rest);
    // Serial number, signature's algorithm, issuer.
    let rest = (0..3).try_fold(rest, |rest, _| element(rest).map(|(_, _, rest)| rest))?;
    let (times, _) = tagged(rest, SEQUENCE)?;
    let (from, rest) = time(times)?;
    let (until, _) = time(rest)?;
    Some((from, until))
}

/// Tag, content, and what comes after.
fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = input.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..0x80 => (usize::from(*first), rest),
        _ => {
            let digits = usize::from(first & 0x7f);
            let (length, rest) = rest.split_at_checked(digits).filter(|_| (1..=4).contains(&digits))?;
            let length = length.iter().fold(0u32, |sum, byte| sum << 8 | u32::from(*byte));
            (usize::try_from(length).ok()?, rest)
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

fn tagged(input: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    element(input).filter(|(tag, _, _)| *tag == wanted).map(|(_, content, rest)| (content, rest))
}

fn time(input: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (tag, content, rest) = element(input)?;
    let text = std::str::from_utf8(content).ok()?.strip_suffix('Z')?;
    let text = match tag {
        // Two digits mean 1950 to 2049 (RFC 5280).
        UTC_TIME if text.len() == 12 => format!("{}{text}", if text < "5" { "20" } else { "19" }),
        GENERALIZED_TIME if text.len() == 14 => text.to_owned(),
        _ => return None,
    };
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i8>().ok();
    let year = text.get(..4)?.parse::<i16>().ok()?;
    let (month, day) = (number(4, 6)?, number(6, 8)?);
    let (hour, minute, second) = (number(8, 10)?, number(10, 12)?, number(12, 14)?);
    let time = DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
    Some((time.to_zoned(TimeZone::UTC).ok()?.timestamp(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(from: (i32, u8, u8), until: (i32, u8, u8)) -> Vec<u8> {
        let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
        parameters.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
        parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn both_kinds_of_time_are_read() {
        for (from, until, expected) in [
            ((1999, 12, 31), (2049, 6, 30), ["1999-12-31T00:00:00Z", "2049-06-30T00:00:00Z"]),
            ((2026, 1, 2), (2126, 2, 28), ["2026-01-02T00:00:00Z", "2126-02-28T00:00:00Z"]),
        ] {
            let found = of(&made(from, until)).unwrap();
            assert_eq!([found.0.to_string(), found.1.to_string()], expected);
        }
    }

    #[test]
    fn what_is_cut_or_changed_is_never_read_past_its_end() {
        let certificate = made((2026, 1, 1), (2027, 1, 1));
        for length in 0..certificate.len().min(200) {
            assert_eq!(of(&certificate[..length]), None, "{length}");
        }
        for at in 0..200 {
            for byte in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut changed = certificate.clone();
                changed[at] = byte;
                let _ = of(&changed);
            }
        }
        assert_eq!(of(b"\x30\x84\xff\xff\xff\xff"), None);
    }
}
