//! The texts of triggers, windows and blackouts. What is shown reads back as the same value.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::check::ScheduleError;
use super::cron::CronLine;
use super::window::{TimeOfDay, Weekdays, Window};
use super::{Blackout, Trigger};
use crate::time::LogTime;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const UNITS: [(&str, u64); 5] = [("w", 604_800), ("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];

/// At most the first of a bad text, for a message.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

impl FromStr for Trigger {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let text = text.trim();
        let words: Vec<&str> = text.split_whitespace().collect();
        let trigger = match words.as_slice() {
            [word] if word.eq_ignore_ascii_case("own") => Trigger::Own,
            [word] if word.eq_ignore_ascii_case("never") => Trigger::Never,
            [word, parts @ ..] if word.eq_ignore_ascii_case("every") => {
                Trigger::Every { seconds: seconds(parts).ok_or_else(|| ScheduleError::Trigger(shown(text)))? }
            }
            [word] if !word.starts_with('@') => return Err(ScheduleError::Trigger(shown(text))),
            [] => return Err(ScheduleError::Trigger(String::new())),
            _ => Trigger::Cron { line: words.join(" ") },
        };
        trigger.check()?;
        Ok(trigger)
    }
}

/// `6h`, `1h30m`, `1d 12h`: numbers with units, the larger first, each once.
fn seconds(parts: &[&str]) -> Option<u64> {
    let text = parts.concat();
    let (mut rest, mut total, mut units) = (text.as_str(), 0u64, UNITS.iter());
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (_, length) = units.find(|(name, _)| *name == &rest[..letters])?;
        total = total.checked_add(number.checked_mul(*length)?)?;
        rest = &rest[letters..];
    }
    (total > 0).then_some(total)
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trigger::Own => f.write_str("own"),
            Trigger::Never => f.write_str("never"),
            Trigger::Cron { line } => f.write_str(line),
            Trigger::Every { seconds } => {
                f.write_str("every ")?;
                let mut rest = *seconds;
                for (name, length) in UNITS {
                    if rest >= length {
                        write!(f, "{}{name}", rest / length)?;
                        rest %= length;
                    }
                }
                Ok(())
            }
        }
    }
}

impl FromStr for TimeOfDay {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (hours, minutes) = text.split_once(':').ok_or(())?;
        let number = |text: &str| match text.len() {
            1 | 2 if text.bytes().all(|b| b.is_ascii_digit()) => text.parse::<u16>().map_err(drop),
            _ => Err(()),
        };
        let minute = number(minutes)?;
        if minutes.len() != 2 || minute > 59 {
            return Err(());
        }
        Self::from_minutes(number(hours)? * 60 + minute).ok_or(())
    }
}

impl FromStr for Weekdays {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let text = text.to_ascii_lowercase();
        if text == "daily" {
            return Ok(Self::ALL);
        }
        let day = |name: &str| DAYS.iter().position(|day| *day == name).ok_or(());
        let mut bits = 0u8;
        for part in text.split(',') {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (day(first)?, day(last)?),
                None => (day(part)?, day(part)?),
            };
            // `sat-mon` goes over the end of the week.
            let count = (last + 7 - first) % 7;
            (0..=count).for_each(|step| bits |= 1 << ((first + step) % 7));
        }
        Self::from_bits(bits).ok_or(())
    }
}

impl fmt::Display for Weekdays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ALL {
            return f.write_str("daily");
        }
        let (mut day, mut first) = (0, true);
        while day < 7 {
            let run = (day..7).take_while(|d| self.contains(*d)).count();
            if run > 0 {
                f.write_str(if first { "" } else { "," })?;
                first = false;
                f.write_str(DAYS[usize::from(day)])?;
            }
            if run > 1 {
                write!(f, "-{}", DAYS[usize::from(day) + run - 1])?;
            }
            day += u8::try_from(run).unwrap_or(7).max(1);
        }
        Ok(())
    }
}

impl FromStr for Window {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let text = text.trim();
        let bad = || ScheduleError::Window(shown(text));
        let words: Vec<&str> = text.split_whitespace().collect();
        let range = |text: &str| -> Option<(TimeOfDay, TimeOfDay)> {
            let (start, end) = text.split_once('-')?;
            Some((start.parse().ok()?, end.parse().ok()?))
        };
        let window = match words.as_slice() {
            [times] => {
                let (start, end) = range(times).ok_or_else(bad)?;
                Window::Weekly { days: Weekdays::ALL, start, end }
            }
            [line @ .., until, end] if until.eq_ignore_ascii_case("until") => {
                let line = line.join(" ");
                CronLine::parse(&line)?;
                Window::Cron { line, end: end.parse().map_err(|()| bad())? }
            }
            [days, times] => {
                let (start, end) = range(times).ok_or_else(bad)?;
                Window::Weekly { days: days.parse().map_err(|()| bad())?, start, end }
            }
            _ => return Err(bad()),
        };
        window.check()?;
        Ok(window)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Window::Weekly { days, start, end } => write!(f, "{days} {start}-{end}"),
            Window::Cron { line, end } => write!(f, "{line} until {end}"),
        }
    }
}

impl Blackout {
    /// Reads a text whose times may also be without an offset, or dates alone: then they are of this zone.
    ///
    /// # Errors
    /// [`ScheduleError`]: not of that shape, or it ends before it begins.
    pub fn parse_in(text: &str, zone: &TimeZone) -> Result<Self, ScheduleError> {
        let text = text.trim();
        let bad = || ScheduleError::Blackout(shown(text));
        let (times, reason) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let (from, until) = times.split_once('/').ok_or_else(bad)?;
        let time = |text: &str| -> Option<LogTime> {
            let time = text.parse::<Timestamp>().ok().or_else(|| {
                let wall: DateTime = text.parse().ok()?;
                zone.to_ambiguous_timestamp(wall).compatible().ok()
            })?;
            u64::try_from(time.as_millisecond()).ok().map(LogTime)
        };
        let (from, until) = (time(from).ok_or_else(bad)?, time(until).ok_or_else(bad)?);
        let blackout = Self { from, until, reason: reason.trim().to_owned() };
        blackout.check()?;
        Ok(blackout)
    }
}

impl FromStr for Blackout {
    type Err = ScheduleError;

    /// Times without an offset are UTC; [`Blackout::parse_in`] takes those of a zone.
    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        Self::parse_in(text, &TimeZone::UTC)
    }
}

pub(super) fn timestamp(time: LogTime) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(time.0).ok()?).ok()
}

impl fmt::Display for Blackout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |time: LogTime| timestamp(time).map_or_else(|| time.0.to_string(), |t| t.to_string());
        write!(f, "{}/{}", time(self.from), time(self.until))?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, " {}", self.reason) }
    }
}
