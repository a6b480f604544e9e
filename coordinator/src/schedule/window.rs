//! When a cycle may begin and go on: windows without blackouts.

use jiff::ToSpan;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use verger_proto::LogTime;
use verger_proto::schedule::{Blackout, CronLine, ScheduleError, TimeOfDay, WINDOW_MINUTES_MIN, Weekdays, Window};

use super::trigger::{instant, wall};
use super::{DAY, MINUTE};

/// Nothing begins in the last so many milliseconds before an end: no stage fits.
pub const HOLD: u64 = WINDOW_MINUTES_MIN as u64 * MINUTE;

/// Windows that follow each other for longer than this have no end.
const ENDLESS: u64 = 32 * DAY;
/// Windows that are looked at for an opening; blackouts cut off at most a few.
const TRIES_MAX: usize = 1000;
/// Days that are looked at for a weekly window: a zone may skip a day, and with it a week's window.
const WEEKLY_DAYS: i32 = 15;

/// A time in which a cycle may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// First millisecond.
    pub start: LogTime,
    /// First millisecond after it, at least [`HOLD`] later; `None`: no end in sight.
    pub end: Option<LogTime>,
}

/// Windows and blackouts, read.
#[derive(Debug, Clone)]
pub(super) struct Openings {
    zone: TimeZone,
    windows: Vec<Recurring>,
    blackouts: Vec<(LogTime, LogTime)>,
}

#[derive(Debug, Clone)]
enum Recurring {
    Weekly { days: Weekdays, start: TimeOfDay, end: TimeOfDay },
    Cron { line: Box<CronLine>, end: TimeOfDay },
}

impl Openings {
    pub(super) fn new(zone: TimeZone, windows: &[Window], blackouts: &[Blackout]) -> Result<Self, ScheduleError> {
        let read = |window: &Window| {
            Ok(match window {
                Window::Weekly { days, start, end } => Recurring::Weekly { days: *days, start: *start, end: *end },
                Window::Cron { line, end } => Recurring::Cron { line: Box::new(CronLine::parse(line)?), end: *end },
            })
        };
        let windows = windows.iter().map(read).collect::<Result<_, ScheduleError>>()?;
        let blackouts = blackouts.iter().map(|blackout| (blackout.from, blackout.until)).collect();
        Ok(Self { zone, windows, blackouts })
    }

    pub(super) fn ends(&self, now: LogTime) -> Option<LogTime> {
        if self.blackout_end(now).is_some() {
            return Some(now);
        }
        let end = if self.windows.is_empty() {
            None
        } else {
            match self.stretch(now) {
                Some((start, end)) if start <= now => end,
                _ => return Some(now),
            }
        };
        end.into_iter().chain(self.next_blackout(now)).min()
    }

    pub(super) fn opening(&self, from: LogTime) -> Option<Opening> {
        let mut from = from;
        for _ in 0..TRIES_MAX {
            from = self.blackout_end(from).unwrap_or(from);
            let (start, end) = if self.windows.is_empty() { (from, None) } else { self.stretch(from)? };
            let start = start.max(from);
            if self.blackout_end(start).is_some() {
                from = start;
                continue;
            }
            let end = end.into_iter().chain(self.next_blackout(start)).min();
            match end {
                Some(end) if end.since(start) < HOLD => from = end,
                _ => return Some(Opening { start, end }),
            }
        }
        None
    }

    fn blackout_end(&self, time: LogTime) -> Option<LogTime> {
        self.blackouts.iter().filter(|(from, until)| *from <= time && time < *until).map(|(_, until)| *until).max()
    }

    fn next_blackout(&self, time: LogTime) -> Option<LogTime> {
        self.blackouts.iter().map(|(from, _)| *from).filter(|from| *from > time).min()
    }

    /// The windows that `time` lies in, or else the next ones, with all that follow without a break.
    fn stretch(&self, time: LogTime) -> Option<(LogTime, Option<LogTime>)> {
        let spans = |time| self.windows.iter().filter_map(move |window| window.span(&self.zone, time));
        let (start, mut end) = spans(time).min()?;
        loop {
            let further = spans(end).filter(|(start, _)| *start <= end).map(|(_, end)| end).max();
            match further {
                Some(_) if end.since(time) > ENDLESS => return Some((start, None)),
                Some(further) => end = further,
                None => return Some((start, Some(end))),
            }
        }
    }
}

impl Recurring {
    /// The first span that ends after `time`.
    fn span(&self, zone: &TimeZone, time: LogTime) -> Option<(LogTime, LogTime)> {
        let now = wall(zone, time);
        match self {
            Recurring::Weekly { days, start, end } => {
                let is_day = |date: &Date| {
                    days.contains(u8::try_from(date.weekday().to_monday_zero_offset()).unwrap_or_default())
                };
                let dates = (-1..=WEEKLY_DAYS).filter_map(|days| now.date().checked_add(days.days()).ok());
                let spans = dates.filter(is_day).filter_map(|date| span_from(zone, at(date, *start)?, *end));
                spans.filter(|(start, end)| *end > time && end > start).min()
            }
            Recurring::Cron { line, end } => {
                // A span lasts a day at most, on the wall; the rest is for clocks that are turned.
                let before = now.checked_sub(27.hours()).ok()?;
                let starts = std::iter::successors(line.after(before), |wall| line.after(*wall));
                let mut spans = starts.filter_map(|wall| span_from(zone, wall, *end));
                spans.find(|(start, end)| *end > time && end > start)
            }
        }
    }
}

fn span_from(zone: &TimeZone, start: DateTime, end: TimeOfDay) -> Option<(LogTime, LogTime)> {
    let today = at(start.date(), end)?;
    let end = if today > start { today } else { today.checked_add(1.day()).ok()? };
    Some((instant(zone, start)?, instant(zone, end)?))
}

fn at(date: Date, time: TimeOfDay) -> Option<DateTime> {
    date.at(0, 0, 0, 0).checked_add(i64::from(time.minutes()).minutes()).ok()
}
