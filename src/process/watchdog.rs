//! What the service manager is told again and again: that this process is alive, and what it is
//! doing. Pure: what there is to say at a time.

use std::time::{Duration, Instant};

use crate::progress::Progress;
use crate::text::{bounded, escape};

/// How often it is looked what the process is doing.
const TICK: Duration = Duration::from_secs(1);
/// How often the status line is renewed that changes in nothing but its numbers.
const NUMBERS: Duration = Duration::from_secs(10);
/// Bytes of the longest status line; what says more is in the log.
const STATUS: usize = 300;

/// After what time of silence the manager ends this process, if it does.
pub(super) fn patience(variable: impl Fn(&str) -> Option<String>) -> Option<Duration> {
    let me = std::process::id();
    if variable("WATCHDOG_PID").is_some_and(|pid| pid.parse() != Ok(me)) {
        return None; // it was meant for who started us
    }
    let us = variable("WATCHDOG_USEC")?
        .parse()
        .ok()
        .filter(|us| *us > 0)?;
    Some(Duration::from_micros(us))
}

/// What was said so far.
pub(super) struct Watchdog {
    progress: Progress,
    /// After what time without food the manager ends this process, if it does.
    patience: Option<Duration>,
    fed: Option<Instant>,
    /// What was told last: what it is doing, the line, and when.
    told: Option<(String, String, Instant)>,
    stalled: bool,
}

impl Watchdog {
    pub(super) fn new(progress: Progress, patience: Option<Duration>) -> Self {
        Self {
            progress,
            patience,
            fed: None,
            told: None,
            stalled: false,
        }
    }

    /// How long to wait for the next look.
    pub(super) fn tick(&self) -> Duration {
        self.pace().unwrap_or(TICK).min(TICK)
    }

    /// How often the watchdog is fed: several may be late.
    fn pace(&self) -> Option<Duration> {
        self.patience.map(|patience| patience / 4)
    }

    /// What there is to tell the manager.
    pub(super) fn words(&mut self, reload: Option<&str>, now: Instant) -> Vec<String> {
        let stalled = self.progress.stalled();
        if let Some(loop_) = stalled.filter(|_| !self.stalled) {
            let (name, seconds) = (loop_.name, loop_.silent.as_secs());
            tracing::error!(
                "STUCK: {name} has not moved for {seconds} s; the watchdog is fed no more"
            );
        }
        self.stalled = stalled.is_some();
        let doing = match stalled {
            Some(loop_) => format!("STUCK: {} does not get on", loop_.name),
            None => self.progress.doing().to_string(),
        };
        let fed = self.feed(now).then(|| "WATCHDOG=1".to_owned());
        fed.into_iter()
            .chain(self.news(&doing, reload, now))
            .collect()
    }

    /// Whether the watchdog is hungry, and may be fed.
    fn feed(&mut self, now: Instant) -> bool {
        let hungry = self
            .pace()
            .is_some_and(|pace| self.fed.is_none_or(|fed| now - fed >= pace));
        let feed = hungry && !self.stalled;
        if feed {
            self.fed = Some(now);
        }
        feed
    }

    /// The status line, if it says something new.
    fn news(&mut self, doing: &str, reload: Option<&str>, now: Instant) -> Option<String> {
        let reload = reload.map(|text| format!("; {text}")).unwrap_or_default();
        let kind = format!("{doing}{reload}");
        let events = match self.progress.events() {
            1 => "1 event".to_owned(),
            n => format!("{n} events"),
        };
        let line = escape(&format!("{doing}; {events} taken since the start{reload}"));
        let is_news = self.told.as_ref().is_none_or(|(before, text, at)| {
            *before != kind || (*text != line && now - *at >= NUMBERS)
        });
        if !is_news {
            return None;
        }
        self.told = Some((kind, line.clone(), now));
        Some(format!("STATUS={}", bounded(line, STATUS)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Doing;

    #[test]
    fn the_watchdog_is_ours_unless_it_was_meant_for_another_process() {
        let with = |usec: Option<&str>, pid: Option<String>| {
            patience(|name| match name {
                "WATCHDOG_USEC" => usec.map(str::to_owned),
                _ => pid.clone(),
            })
        };
        let me = Some(std::process::id().to_string());
        assert_eq!(with(Some("30000000"), me), Some(Duration::from_secs(30)));
        assert_eq!(with(Some("30000000"), None), Some(Duration::from_secs(30)));
        assert_eq!(with(Some("30000000"), Some("1".into())), None);
        for none in [None, Some("0"), Some("x")] {
            assert_eq!(with(none, None), None, "{none:?}");
        }
    }

    #[test]
    fn the_watchdog_is_fed_while_all_loops_get_on_and_the_line_is_told_when_it_changes() {
        let progress = Progress::default();
        let start = Instant::now();
        let mut watch = Watchdog::new(progress.clone(), Some(Duration::from_secs(8)));
        let after = |s: u64| start + Duration::from_secs(s);
        assert_eq!(watch.tick(), Duration::from_secs(1));
        let first = watch.words(None, after(0));
        assert_eq!(
            first,
            [
                "WATCHDOG=1",
                "STATUS=starting; 0 events taken since the start"
            ]
        );
        assert!(watch.words(None, after(1)).is_empty());
        assert_eq!(watch.words(None, after(2)), ["WATCHDOG=1"]);
        progress.now(Doing::Degraded("away\nREADY=1".to_owned()));
        let degraded =
            "STATUS=degraded, trying again: away\\nREADY=1; 0 events taken since the start";
        assert_eq!(
            watch.words(None, after(3)),
            [degraded],
            "no line of its own"
        );
        progress.took(5);
        assert_eq!(
            watch.words(None, after(4)),
            ["WATCHDOG=1"],
            "numbers can wait"
        );
        assert_eq!(watch.words(None, after(13)).len(), 2, "but not for ever");
        assert_eq!(
            watch.words(Some("refused"), after(14)).len(),
            1,
            "a refusal cannot"
        );
        let beat = progress.of("reading", Duration::ZERO);
        beat.touch();
        std::thread::sleep(Duration::from_millis(5));
        let stuck = watch.words(Some("refused"), after(30));
        assert_eq!(stuck.len(), 1, "{stuck:?}");
        assert!(
            stuck
                .concat()
                .starts_with("STATUS=STUCK: reading does not get on")
        );
        beat.rest();
        assert_eq!(
            watch.words(None, after(40)).first().map(String::as_str),
            Some("WATCHDOG=1")
        );
    }
}
