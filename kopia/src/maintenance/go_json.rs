//! Go's JSON forms of times and durations.
//!
//! Times are RFC 3339 with up to nine fractional digits and any zone offset; "unset" is the first moment of year 1.
//! Durations are integers in nanoseconds.

use crate::clock::Timestamp;
use serde::{Deserialize, Deserializer, Serializer};
use std::time::Duration;

/// Unix seconds of `0001-01-01T00:00:00Z`, Go's zero time.
const ZERO_SECONDS: i64 = -62_135_596_800;

/// Go's zero time, which stands for "unset".
#[must_use]
pub fn zero_time() -> Timestamp {
    Timestamp::from_second(ZERO_SECONDS).unwrap_or(Timestamp::MIN)
}

/// A time that may be unset.
pub mod optional_time {
    use super::{Deserialize, Deserializer, Serializer, Timestamp, zero_time};

    /// Writes `None` as Go's zero time.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&time.unwrap_or_else(zero_time))
    }

    /// Reads `null` and Go's zero time as `None`.
    ///
    /// # Errors
    /// Not a time.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        let time = Option::<Timestamp>::deserialize(deserializer)?;
        Ok(time.filter(|time| *time != zero_time()))
    }
}

/// A duration in nanoseconds.
pub mod nanoseconds {
    use super::{Deserialize, Deserializer, Duration, Serializer};

    /// Writes nanoseconds, at most as many as Go's type holds.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }

    /// Reads nanoseconds.
    ///
    /// # Errors
    /// Not an integer, or negative: Kopia's commands never write such a duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let nanos = Option::<i64>::deserialize(deserializer)?.unwrap_or_default();
        u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| serde::de::Error::custom("negative duration"))
    }
}

/// `duration` as Go prints it: `24h0m0s`, `1.5s`, `0s`.
#[must_use]
pub fn duration_text(duration: Duration) -> String {
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    if seconds == 0 && nanos == 0 {
        return "0s".into();
    }
    if seconds == 0 {
        let (unit, name, width) = match nanos {
            0..1_000 => (1, "ns", 0),
            1_000..1_000_000 => (1_000, "µs", 3),
            _ => (1_000_000, "ms", 6),
        };
        return format!("{}{}{name}", nanos / unit, fraction(nanos % unit, width));
    }
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let rest = format!("{rest}{}s", fraction(nanos, 9));
    match (hours, minutes) {
        (0, 0) => rest,
        (0, _) => format!("{minutes}m{rest}"),
        _ => format!("{hours}h{minutes}m{rest}"),
    }
}

fn fraction(value: u32, width: usize) -> String {
    if value == 0 {
        return String::new();
    }
    format!(".{value:0width$}").trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Both {
        #[serde(with = "optional_time")]
        at: Option<Timestamp>,
        #[serde(with = "nanoseconds")]
        every: Duration,
    }

    #[test]
    fn times_have_up_to_nine_digits_trimmed_and_the_zero_time_is_unset() {
        for (json, back) in [
            ("2024-05-06T07:08:09.120000000+02:00", "2024-05-06T05:08:09.12Z"),
            ("2024-05-06T07:08:09.123456789Z", "2024-05-06T07:08:09.123456789Z"),
            ("2024-05-06T07:08:09Z", "2024-05-06T07:08:09Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ] {
            let read: Both = serde_json::from_str(&format!(r#"{{"at":"{json}","every":3600000000000}}"#)).unwrap();
            assert_eq!(read.at.is_none(), json.starts_with("0001"));
            let written = serde_json::to_string(&read).unwrap();
            assert_eq!(written, format!(r#"{{"at":"{back}","every":3600000000000}}"#));
        }
        assert!(serde_json::from_str::<Both>(r#"{"at":"2024-13-06T07:08:09Z","every":1}"#).is_err());
        assert!(serde_json::from_str::<Both>(r#"{"at":null,"every":-1}"#).is_err());
    }

    #[test]
    fn durations_read_as_go_prints_them() {
        for (duration, text) in [
            (Duration::ZERO, "0s"),
            (Duration::from_secs(86_400), "24h0m0s"),
            (Duration::from_secs(90), "1m30s"),
            (Duration::from_millis(1500), "1.5s"),
            (Duration::from_micros(1_500), "1.5ms"),
            (Duration::from_nanos(7), "7ns"),
        ] {
            assert_eq!(duration_text(duration), text);
        }
    }
}
