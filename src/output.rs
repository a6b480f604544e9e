//! Standard output and standard error: one document for programs, text for people.
//!
//! With `--json`, standard output is exactly one document; everything else goes to standard error, whose last line is the message.
//!
//! Whoever reads may have read enough (`verger … | head`): that is no failure, and the exit code is that of what was done.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::{IsTerminal, Write};

use serde::Serialize;
use verger_kopia::{Error, ErrorKind, Result};

/// Where results go and in which form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// One JSON document instead of text.
    pub json: bool,
    /// No progress, no notes: only results and errors.
    pub quiet: bool,
}

impl Output {
    /// Prints one JSON document.
    ///
    /// # Errors
    /// `Internal` if standard output cannot be written to.
    pub(crate) fn document<T: Serialize>(self, value: &T) -> Result<()> {
        let mut out = std::io::stdout().lock();
        let result = serde_json::to_writer_pretty(&mut out, value).map_err(std::io::Error::from);
        heard(result.and_then(|()| writeln!(out)).and_then(|()| out.flush())).map(drop)
    }

    /// Prints a JSON array, an element a line, as they come: a big list is never held as text.
    ///
    /// # Errors
    /// `Internal` if standard output cannot be written to; what an element's making gives.
    pub(crate) fn list<T: Serialize>(self, items: impl IntoIterator<Item = Result<T>>) -> Result<()> {
        let mut out = std::io::BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
        let mut separator: &[u8] = b"[\n ";
        for item in items {
            let item = item?;
            let written = out.write_all(separator);
            let written = written.and_then(|()| serde_json::to_writer(&mut out, &item).map_err(std::io::Error::from));
            if !heard(written)? {
                return Ok(());
            }
            separator = b",\n ";
        }
        let end: &[u8] = if separator == b"[\n " { b"[]\n" } else { b"\n]\n" };
        heard(out.write_all(end).and_then(|()| out.flush())).map(drop)
    }

    /// Prints lines of a result for people, as they come.
    ///
    /// # Errors
    /// `Internal` if standard output cannot be written to.
    pub(crate) fn lines(self, lines: impl IntoIterator<Item = String>) -> Result<()> {
        let mut out = std::io::BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
        for line in lines {
            if !heard(writeln!(out, "{line}"))? {
                return Ok(());
            }
        }
        heard(out.flush()).map(drop)
    }

    /// Prints a line of a result for people.
    ///
    /// # Errors
    /// `Internal` if standard output cannot be written to.
    pub(crate) fn line(self, text: impl AsRef<str>) -> Result<()> {
        self.next_line(text).map(drop)
    }

    /// Prints the next line of many, and says whether anybody reads on.
    ///
    /// # Errors
    /// `Internal` if standard output cannot be written to.
    pub(crate) fn next_line(self, text: impl AsRef<str>) -> Result<bool> {
        heard(writeln!(std::io::stdout().lock(), "{}", text.as_ref()))
    }

    /// Prints raw bytes of a result, and says whether anybody reads on.
    ///
    /// # Errors
    /// `Internal` if standard output cannot be written to.
    pub(crate) fn bytes(self, data: &[u8]) -> Result<bool> {
        let mut out = std::io::stdout().lock();
        heard(out.write_all(data).and_then(|()| out.flush()))
    }

    /// Prints a note for people on standard error.
    pub(crate) fn note(self, text: impl AsRef<str>) {
        if !self.quiet {
            eprintln!("{}", text.as_ref());
        }
    }
}

/// Whether anybody reads on.
fn heard(written: std::io::Result<()>) -> Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::new(ErrorKind::Internal, "write to standard output").with_source(error)),
    }
}

/// Prints a failure as the last line of standard error: what, why, and the fix.
pub(crate) fn failure(error: &Error) {
    // One line, whatever the texts of its causes are: scripts read the last one.
    let chain = error.chain().split_whitespace().collect::<Vec<_>>().join(" ");
    match error.fix() {
        Some(fix) => eprintln!("verger: {}. {}", chain.trim_end_matches('.'), capital(fix)),
        None => eprintln!("verger: {chain}"),
    }
}

/// The text with a capital letter first.
#[must_use]
pub(crate) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// Asks something at the terminal; the answer is read elsewhere.
pub(crate) fn ask(question: &str) {
    eprint!("{question}");
}

/// Says that a signal was heard.
pub(crate) fn interrupting() {
    eprintln!("Stopping after the step at work; the next run continues. Once more stops at once.");
}

/// Whether standard error is a terminal.
#[must_use]
pub(crate) fn is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// Bytes as Kopia prints them: decimal units with one decimal, the next unit from 0.9 of it on.
#[must_use]
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KB", "MB", "GB", "TB", "PB"];
    #[allow(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 900.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let text = if unit == 0 { format!("{value:.0}") } else { format!("{value:.1}") };
    format!("{} {}", text.trim_end_matches(".0"), UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_switch_units_where_kopia_does() {
        for (count, text) in [
            (0, "0 B"),
            (899, "899 B"),
            (900, "0.9 KB"),
            (899_999, "900 KB"),
            (900_000, "0.9 MB"),
            (20_971_520, "21 MB"),
            (1_500_000, "1.5 MB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}
