// SPDX-License-Identifier: GPL-2.0-only
//! What the user sees while something takes its time: a bar on a terminal, a line
//! every few seconds elsewhere. All of it goes to stderr.

use std::{
    fmt,
    io::{stderr, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

/// Between two lines where there is no terminal.
const EVERY: Duration = Duration::from_secs(10);

/// A line on stderr. That nobody reads it any more is no reason to stop.
pub(crate) fn line(line: fmt::Arguments<'_>) {
    let _ = writeln!(stderr(), "{line}");
}

/// Says what is done now, in cargo's layout.
pub(crate) fn say(verb: &str, what: impl AsRef<str>) {
    let what = what.as_ref();
    if stderr().is_terminal() {
        line(format_args!("\x1b[1;32m{verb:>12}\x1b[0m {what}"));
    } else {
        line(format_args!("{verb:>12} {what}"));
    }
}

/// On a terminal, something that moves while a guest boots and runs, with room for a
/// message. Nothing elsewhere.
pub(crate) fn spinner(verb: &'static str) -> Option<ProgressBar> {
    stderr().is_terminal().then(|| {
        let bar = ProgressBar::new_spinner();
        let style =
            ProgressStyle::with_template("{prefix:>12.bold.green} {spinner} {elapsed} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
        bar.set_style(style);
        bar.set_prefix(verb);
        bar.set_message("booting");
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    })
}

/// What a bar counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Bytes of a download.
    Bytes,
    /// Anything else, by its name in the plural.
    Things(&'static str),
}

/// Progress of one step.
pub(crate) struct Bar {
    bar: Option<ProgressBar>,
    verb: String,
    what: String,
    unit: Unit,
    total: Option<u64>,
    done: u64,
    began: Instant,
    spoke: Instant,
}

impl Bar {
    /// Starts a step. `total` is in `unit`s; without it there is a count but no end.
    pub(crate) fn new(verb: &str, what: &str, unit: Unit, total: Option<u64>) -> Self {
        let now = Instant::now();
        let bar = stderr()
            .is_terminal()
            .then(|| Self::on_terminal(verb, what, unit, total));
        if bar.is_none() {
            say(verb, what);
        }
        Self {
            bar,
            verb: verb.to_owned(),
            what: what.to_owned(),
            unit,
            total,
            done: 0,
            began: now,
            spoke: now,
        }
    }

    fn on_terminal(verb: &str, what: &str, unit: Unit, total: Option<u64>) -> ProgressBar {
        let bar = match total {
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::no_length(),
        };
        let gauge = if total.is_some() {
            "[{bar:30}] "
        } else {
            "{spinner} "
        };
        let count = match (unit, total) {
            (Unit::Bytes, Some(_)) => "{bytes}/{total_bytes} {bytes_per_sec} {eta}".to_owned(),
            (Unit::Bytes, None) => "{bytes} {bytes_per_sec}".to_owned(),
            (Unit::Things(unit), Some(_)) => format!("{{pos}}/{{len}} {unit} {{eta}}"),
            (Unit::Things(unit), None) => format!("{{pos}} {unit} {{elapsed}}"),
        };
        // Text of our own in a template is not parsed: it could hold a brace.
        let template = format!("{{prefix:>12.bold.green}} {{msg}} {gauge}{count}");
        let style = ProgressStyle::with_template(&template)
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("=> "));
        bar.set_prefix(verb.to_owned());
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }

    /// Sets how much is done, in units.
    pub(crate) fn set(&mut self, done: u64) {
        self.done = done;
        match &self.bar {
            Some(bar) => {
                // A total that was only expected must not be overrun.
                if self.total.is_some_and(|total| done > total) {
                    bar.set_length(done);
                }
                bar.set_position(done);
            }
            None => {
                if self.spoke.elapsed() >= EVERY {
                    self.spoke = Instant::now();
                    line(format_args!(
                        "{:>12} {}: {}",
                        self.verb,
                        self.what,
                        self.state()
                    ));
                }
            }
        }
    }

    /// One more unit is done.
    pub(crate) fn inc(&mut self) {
        self.set(self.done + 1);
    }

    /// Says something while the step goes on.
    pub(crate) fn say(&self, verb: &str, what: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(verb, what)),
            None => say(verb, what),
        }
    }

    /// How far it is, in words.
    fn state(&self) -> String {
        let seconds = self.began.elapsed().as_secs_f64().max(0.001);
        let percent = self
            .total
            .filter(|&total| total > 0)
            .map(|total| format!(" ({}%)", (self.done * 100 / total).min(100)))
            .unwrap_or_default();
        match self.unit {
            Unit::Bytes => {
                let rate = u64::try_from((u128::from(self.done) * 1000) / elapsed_ms(seconds))
                    .unwrap_or(u64::MAX);
                let total = self
                    .total
                    .map(|total| format!(" of {}", HumanBytes(total)))
                    .unwrap_or_default();
                format!(
                    "{}{total}{percent}, {}/s",
                    HumanBytes(self.done),
                    HumanBytes(rate)
                )
            }
            Unit::Things(unit) => {
                let total = self
                    .total
                    .map(|total| format!(" of {total}"))
                    .unwrap_or_default();
                format!("{}{total} {unit}{percent}, {seconds:.0} s", self.done)
            }
        }
    }

    /// Takes the bar away and leaves a line that says what was done.
    pub(crate) fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            say(
                &self.verb,
                format!("{} ({} s)", self.what, self.began.elapsed().as_secs()),
            );
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        // On the way out with an error: no bar below the message.
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn elapsed_ms(seconds: f64) -> u128 {
    Duration::from_secs_f64(seconds).as_millis().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_line_names_count_and_share() {
        let mut bar = Bar::new("Testing", "it", Unit::Things("files"), Some(8));
        bar.set(2);
        assert!(
            bar.state().starts_with("2 of 8 files (25%)"),
            "{}",
            bar.state()
        );
        bar.set(20);
        assert!(bar.state().contains("(100%)"), "{}", bar.state());
    }

    #[test]
    fn bytes_have_a_rate() {
        let mut bar = Bar::new("Testing", "it", Unit::Bytes, None);
        bar.set(4096);
        assert!(bar.state().starts_with("4.00 KiB, ") && bar.state().ends_with("/s"));
    }
}
