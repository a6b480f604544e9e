//! Progress: bars with rate and time left on a terminal, a plain line now and then elsewhere.

#![allow(clippy::print_stderr)]

use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::{self, Output};

/// At most one plain line a stage in this time.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Shows how far the stage at work is.
pub(crate) struct Progress {
    state: Mutex<State>,
    quiet: bool,
    terminal: bool,
}

#[derive(Default)]
struct State {
    stage: String,
    bar: Option<ProgressBar>,
    began: Option<Instant>,
    last_line: Option<Instant>,
}

impl Progress {
    /// Bars if standard error is a terminal, lines otherwise, nothing if `output` is quiet.
    #[must_use]
    pub(crate) fn new(output: Output) -> Self {
        Self { state: Mutex::default(), quiet: output.quiet, terminal: output::is_terminal() }
    }

    /// Notes `done` of `total` units of `stage`. A `total` of 0 is not known yet.
    pub(crate) fn update(&self, stage: &str, done: u64, total: u64, unit: &str) {
        if self.quiet {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if state.stage != stage {
            state.finish();
            *state = State { stage: stage.to_owned(), began: Some(Instant::now()), ..State::default() };
            if self.terminal {
                state.bar = Some(bar(stage, unit));
            }
        }
        match &state.bar {
            Some(bar) => {
                bar.set_length(total.max(done));
                bar.set_position(done);
            }
            None => state.line(done, total, unit),
        }
    }

    /// Prints a line above the bar.
    pub(crate) fn note(&self, text: &str) {
        let state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match &state.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None if self.quiet => {}
            None => eprintln!("{text}"),
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner).finish();
    }
}

impl State {
    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn line(&mut self, done: u64, total: u64, unit: &str) {
        let now = Instant::now();
        // A stage that ends within the interval says nothing: small repositories stay readable.
        let since = self.last_line.or(self.began).map_or(Duration::ZERO, |last| now - last);
        if since < LINE_INTERVAL || done == 0 {
            return;
        }
        self.last_line = Some(now);
        let elapsed = self.began.map_or(0.0, |began| (now - began).as_secs_f64());
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        let rate = done as f64 / elapsed.max(0.001);
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        let left = total.saturating_sub(done) as f64 / rate.max(0.001);
        eprintln!("{}: {done} of {total} {unit}, {rate:.0}/s, {left:.0} s left", self.stage);
    }
}

fn bar(stage: &str, unit: &str) -> ProgressBar {
    let template = "{msg:>10} [{bar:30}] {human_pos}/{human_len} {prefix} {per_sec} {eta} left";
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(stage.to_owned());
    bar.set_prefix(unit.to_owned());
    bar
}

impl verger_worker::progress::Progress for Progress {
    fn step(&self, step: verger_worker::progress::Step) {
        use verger_worker::progress::Unit;
        let unit = match step.unit {
            Unit::Blobs => "blobs",
            Unit::Contents => "contents",
            Unit::Bytes => "bytes",
            Unit::Objects => "objects",
        };
        self.update(step.stage, step.done, step.total.unwrap_or(0), unit);
    }
}
