//! What a rebuild shows: a bar on a terminal and plain lines elsewhere, and what came of it.

use std::io::{IsTerminal, stderr};
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::time::Instant;

use super::drive::Done;
use crate::operator::text::{count, human};
use crate::rebuild::{Positions, Shadow};

/// How often a line says how far it is, where no bar does.
const EVERY: Duration = Duration::from_secs(10);

/// How far it is, on standard error.
pub(super) struct Progress {
    bar: ProgressBar,
    /// When the last line said so.
    said: Mutex<Instant>,
}

impl Progress {
    pub(super) fn new() -> Self {
        let bar = match stderr().is_terminal() {
            true => ProgressBar::new(0),
            false => ProgressBar::hidden(),
        };
        let style = ProgressStyle::with_template("{bar:32} {percent:>3}%  {msg}");
        Self {
            bar: match style {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            },
            said: Mutex::new(Instant::now()),
        }
    }

    /// A line.
    pub(super) fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    /// How far the shadow has come.
    pub(super) fn show(&self, at: &Positions) {
        let (done, all) = at.progress();
        let behind = at.behind().map_or("?".to_owned(), |n| n.to_string());
        let line = match all {
            Some(all) => format!("{done} of {all} entries, {behind} behind the live one"),
            None => format!("{done} entries, {behind} behind the live one"),
        };
        self.bar.set_length(all.unwrap_or(0));
        self.bar.set_position(done);
        if self.bar.is_hidden()
            && let Ok(mut said) = self.said.lock()
            && said.elapsed() >= EVERY
        {
            *said = Instant::now();
            eprintln!("{line}");
        }
        self.bar.set_message(line);
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// What came of a rebuild.
#[derive(Serialize)]
pub(super) struct Summary<'a> {
    subscriber: &'a str,
    number: u64,
    /// Entries that were run again.
    entries: u64,
    /// Entries of its streams that were gone.
    missing: u64,
    /// Events that the event store brought back.
    restored: u64,
    /// Whether all that was gone, and is for it, was brought back.
    complete: bool,
    keys: usize,
    keys_before: usize,
    dead: u64,
    dead_before: u64,
    /// Of the old model, because their entries were no part of the history.
    dead_kept: usize,
    took_ms: u64,
    /// For how long the live subscriber was kept from reading.
    paused_ms: u64,
    /// How long the switch itself took.
    switch_ms: u64,
    /// How often a moment for it was looked for.
    tries: u32,
}

impl<'a> Summary<'a> {
    pub(super) fn new(
        shadow: &'a Shadow,
        done: &Done,
        allow_incomplete: bool,
        took: Duration,
    ) -> Self {
        let ms = |d: Duration| d.as_millis() as u64;
        Self {
            subscriber: &shadow.subscriber,
            number: shadow.number,
            entries: done.replaced.entries,
            missing: shadow.history.gaps.iter().map(|gap| gap.missing).sum(),
            restored: done.restored,
            complete: shadow.history.gaps.is_empty() || !allow_incomplete,
            keys: done.replaced.keys,
            keys_before: done.replaced.old_keys,
            dead: done.dead,
            dead_before: done.dead_before,
            dead_kept: done.replaced.kept_letters,
            took_ms: ms(took),
            paused_ms: ms(done.paused),
            switch_ms: ms(done.replaced.took),
            tries: done.tries,
        }
    }

    pub(super) fn text(&self) -> String {
        let span = |ms| human(Duration::from_millis(ms));
        let mut text = format!(
            "rebuilt {} from {} in {}\n",
            self.subscriber,
            entries(self.entries),
            span(self.took_ms)
        );
        text += &format!(
            "  keys          {} instead of {}\n  dead letters  {} instead of {}\n",
            self.keys, self.keys_before, self.dead, self.dead_before
        );
        text += &format!(
            "  switch        {}; the live one read nothing for {}\n",
            span(self.switch_ms),
            span(self.paused_ms)
        );
        if self.missing > 0 {
            text += &format!(
                "  event store   {} brought back, of {} that its streams lacked, whomever they were for\n",
                count(self.restored, "event"),
                entries(self.missing)
            );
        }
        if !self.complete {
            text += &format!(
                "  INCOMPLETE    what was not brought back is not in the model; {} of it stayed\n",
                count(self.dead_kept as u64, "dead letter")
            );
        }
        text
    }
}

/// `1 entry`, `2 entries`.
fn entries(n: u64) -> String {
    match n {
        1 => "1 entry".to_owned(),
        n => format!("{n} entries"),
    }
}
