//! Cron lines on the clock of a wall: no zone, no offset, no jumps. Names croner, alone in the workspace.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::{DateTime, date};
use jiff::tz::{TimeZone, TimeZoneDatabase};

use super::check::ScheduleError;

const FIELDS: usize = 5;
/// Longest line that is looked at, in bytes.
const LINE_BYTES_MAX: usize = 256;
/// No line is looked for beyond this many years; the widest gap of a leap day is eight.
const YEARS_MAX: i16 = 100;

/// Nicknames and what they stand for.
const NICKNAMES: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// A line that was read and that fires.
#[derive(Clone, Debug)]
pub struct CronLine {
    cron: Cron,
}

impl CronLine {
    /// Reads a line.
    ///
    /// # Errors
    /// [`ScheduleError`]: not five fields nor a known nickname, a field that is wrong, or a line that never fires.
    pub fn parse(line: &str) -> Result<Self, ScheduleError> {
        let bad = |why: String| ScheduleError::Cron { line: super::text::shown(line), why };
        if line.len() > LINE_BYTES_MAX {
            return Err(bad(format!("it is longer than {LINE_BYTES_MAX} bytes")));
        }
        let fields = expand(line.trim()).map_err(bad)?;
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(&fields).map_err(|error| bad(error.to_string()))?;
        let line_read = Self { cron };
        match line_read.after(date(2000, 1, 1).at(0, 0, 0, 0)) {
            Some(_) => Ok(line_read),
            None => Err(ScheduleError::NeverFires { line: line.trim().to_owned() }),
        }
    }

    /// The first time after `wall` that the line names, by the clock on the wall.
    #[must_use]
    pub fn after(&self, wall: DateTime) -> Option<DateTime> {
        let found = self.cron.find_next_occurrence(&wall, false).ok()?;
        (found.year().checked_sub(wall.year())? <= YEARS_MAX).then_some(found)
    }
}

fn expand(line: &str) -> Result<String, String> {
    if line.starts_with('@') {
        let known = NICKNAMES.iter().find(|(name, _)| line.eq_ignore_ascii_case(name));
        let names = || NICKNAMES.map(|(name, _)| name).join(", ");
        return known.map(|(_, fields)| (*fields).to_owned()).ok_or_else(|| format!("the nicknames are {}", names()));
    }
    let fields: Vec<&str> = line.split_whitespace().collect();
    match fields.len() {
        FIELDS if line.contains('@') => Err("a nickname stands alone".to_owned()),
        FIELDS => Ok(fields.join(" ")),
        6 => {
            Err("it has 6 fields; seconds are not supported: minute, hour, day of month, month, day of week".to_owned())
        }
        7 => {
            Err("it has 7 fields; seconds and years are not supported: minute, hour, day of month, month, day of week"
                .to_owned())
        }
        n => Err(format!("it has {n} fields instead of 5: minute, hour, day of month, month, day of week")),
    }
}

/// The time zone of this IANA name, from the data in the program: the same on every machine, whatever is installed there.
///
/// # Errors
/// [`ScheduleError::Zone`].
pub fn zone(name: &str) -> Result<TimeZone, ScheduleError> {
    if name.eq_ignore_ascii_case("UTC") {
        return Ok(TimeZone::UTC);
    }
    TimeZoneDatabase::bundled().get(name).map_err(|_| ScheduleError::Zone(super::text::shown(name)))
}
