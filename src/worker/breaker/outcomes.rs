//! What this process saw of what its handlers depend on: counters that cost a success next to
//! nothing, and the pure decision when they call for an open breaker.
//!
//! Failures in a row are counted per process: of several workers, the first that sees enough of them
//! opens the breaker for all. (One count for all would cost each delivery a trip to Redis. It would
//! not know more either: what one process cannot reach, because its own network is at fault, another
//! one's successes would hide.)

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Failure, HandlerError};
use crate::retry::Backoff;
use crate::routing::BreakerSettings;

/// What the outcomes come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Deliveries in a row that found something unavailable.
    pub(super) in_a_row: u32,
    /// Within the window: those, and those to be tried again.
    pub(super) failed: u64,
    /// Within the window.
    pub(super) all: u64,
}

/// Whether they call for an open breaker.
pub(super) fn should_open(counts: &Counts, settings: &BreakerSettings) -> bool {
    let rate = |most: f64| {
        counts.all >= u64::from(settings.min_outcomes)
            && counts.failed as f64 >= most * counts.all as f64
    };
    settings.enabled
        && (counts.in_a_row >= settings.consecutive || settings.failure_rate.is_some_and(rate))
}

/// Whether a failure speaks against what the handler depends on, or against its event alone.
pub(super) fn is_down(failure: Failure, settings: &BreakerSettings) -> bool {
    match failure {
        Failure::Unavailable => true,
        Failure::Retry => settings.failure_rate.is_some(),
        Failure::Reject => false,
    }
}

/// Counts outcomes.
#[derive(Default)]
pub(crate) struct Outcomes {
    in_a_row: AtomicU32,
    passed: AtomicU64,
    failed: AtomicU64,
    past: Mutex<VecDeque<Sample>>,
    outage: Mutex<Outage>,
}

/// The counters as they were.
#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    passed: u64,
    failed: u64,
}

/// How long deliveries that found something unavailable wait.
#[derive(Clone, Copy, Default)]
struct Outage {
    in_a_row: u32,
    until: Option<Instant>,
}

impl Outcomes {
    /// So many were handled.
    pub(crate) fn passed(&self, deliveries: usize) {
        self.passed.fetch_add(deliveries as u64, Relaxed);
        self.end_row();
    }

    /// One was not. Redis away is none of it: that stops reading by itself.
    pub(super) fn failed(&self, failure: &HandlerError) {
        if failure.is_redis_away() {
            return;
        }
        match failure.kind() {
            Failure::Unavailable => {
                self.in_a_row.fetch_add(1, Relaxed);
                self.failed.fetch_add(1, Relaxed);
            }
            Failure::Retry => {
                self.failed.fetch_add(1, Relaxed);
                self.end_row();
            }
            Failure::Reject => self.passed(1),
        }
    }

    fn end_row(&self) {
        if self.in_a_row.load(Relaxed) > 0 {
            self.in_a_row.store(0, Relaxed);
            *self.outage() = Outage::default();
        }
    }

    /// How long a delivery that found something unavailable waits: longer with each outage in a
    /// row. Those that were under way together tell of one outage, not of several.
    pub(super) fn wait(&self, backoff: &Backoff) -> Duration {
        let (now, mut outage) = (Instant::now(), self.outage());
        if outage.until.is_none_or(|until| until <= now) {
            outage.in_a_row += 1;
            outage.until = Some(now + backoff.delay(outage.in_a_row));
        }
        outage.until.map_or(Duration::ZERO, |until| until - now)
    }

    /// Forgets what was: it was answered.
    pub(super) fn forget(&self) {
        self.in_a_row.store(0, Relaxed);
        let mut past = self.past();
        past.clear();
        past.push_back(self.sample(Instant::now()));
    }

    /// Remembers how many there were by now, for as long as the window is.
    pub(super) fn remember(&self, window: Duration) {
        let sample = self.sample(Instant::now());
        let mut past = self.past();
        past.push_back(sample);
        // The newest of those that are as old as the window is where it begins.
        while past
            .get(1)
            .is_some_and(|next| sample.at - next.at >= window)
        {
            past.pop_front();
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let now = self.sample(Instant::now());
        let then = self.past().front().copied();
        let (passed, failed) = then.map_or((0, 0), |then| (then.passed, then.failed));
        // Counters are read one after the other, while others count.
        let failed = now.failed.saturating_sub(failed);
        Counts {
            in_a_row: self.in_a_row.load(Relaxed),
            failed,
            all: failed + now.passed.saturating_sub(passed),
        }
    }

    fn sample(&self, at: Instant) -> Sample {
        Sample {
            at,
            passed: self.passed.load(Relaxed),
            failed: self.failed.load(Relaxed),
        }
    }

    fn past(&self) -> MutexGuard<'_, VecDeque<Sample>> {
        // Nothing under this lock can panic half-way; nor under the other.
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outage(&self) -> MutexGuard<'_, Outage> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: BreakerSettings = BreakerSettings {
        enabled: true,
        consecutive: 3,
        failure_rate: Some(0.5),
        window: Duration::from_secs(10),
        min_outcomes: 4,
        open: Duration::from_secs(5),
        max_open: Duration::from_secs(60),
        probes: 3,
    };

    fn row(in_a_row: u32) -> Counts {
        Counts {
            in_a_row,
            ..Counts::default()
        }
    }

    #[test]
    fn it_opens_after_enough_in_a_row() {
        assert!(!should_open(&row(2), &SETTINGS));
        assert!(should_open(&row(3), &SETTINGS));
        assert!(should_open(&row(9), &SETTINGS));
        let off = BreakerSettings {
            enabled: false,
            ..SETTINGS
        };
        assert!(!should_open(&row(9), &off));
    }

    #[test]
    fn it_opens_when_the_rate_is_reached_by_enough() {
        let counts = |failed, all| Counts {
            in_a_row: 0,
            failed,
            all,
        };
        assert!(!should_open(&counts(3, 3), &SETTINGS), "too few");
        assert!(!should_open(&counts(1, 4), &SETTINGS));
        assert!(should_open(&counts(2, 4), &SETTINGS));
        let no_rate = BreakerSettings {
            failure_rate: None,
            ..SETTINGS
        };
        assert!(!should_open(&counts(100, 100), &no_rate));
    }

    #[test]
    fn bad_events_speak_against_themselves_unless_a_rate_is_set() {
        let no_rate = BreakerSettings {
            failure_rate: None,
            ..SETTINGS
        };
        assert!(is_down(Failure::Unavailable, &no_rate));
        assert!(!is_down(Failure::Retry, &no_rate));
        assert!(is_down(Failure::Retry, &SETTINGS));
        assert!(!is_down(Failure::Reject, &SETTINGS));
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_is_not_unavailable_ends_a_row() {
        let outcomes = Outcomes::default();
        let down = HandlerError::unavailable("down");
        let others: [&dyn Fn(); 3] = [
            &|| outcomes.passed(1),
            &|| outcomes.failed(&HandlerError::retry("x")),
            &|| outcomes.failed(&HandlerError::reject("x")),
        ];
        for other in others {
            outcomes.failed(&down);
            outcomes.failed(&down);
            outcomes.failed(&HandlerError::redis_away("does not count"));
            assert_eq!(outcomes.counts().in_a_row, 2);
            other();
            assert_eq!(outcomes.counts().in_a_row, 0);
        }
        let (failed, all) = (outcomes.counts().failed, outcomes.counts().all);
        assert_eq!((failed, all), (7, 9));
    }

    #[tokio::test(start_paused = true)]
    async fn the_window_slides_and_is_forgotten_when_the_breaker_has_answered() {
        let (outcomes, second) = (Outcomes::default(), Duration::from_secs(1));
        let window = 10 * second;
        outcomes.forget();
        for n in 0..30 {
            outcomes.failed(&HandlerError::retry("x"));
            outcomes.passed(usize::from(n >= 20));
            tokio::time::advance(second).await;
            outcomes.remember(window);
        }
        let counts = outcomes.counts();
        assert_eq!((counts.failed, counts.all), (10, 20));
        outcomes.forget();
        assert_eq!(outcomes.counts(), Counts::default());
    }

    #[tokio::test(start_paused = true)]
    async fn what_found_it_unavailable_waits_longer_each_time_and_recovers_at_once() {
        let backoff = Backoff {
            jitter: 0.0,
            ..Backoff::default()
        };
        let outcomes = Outcomes::default();
        let wait = || {
            outcomes.failed(&HandlerError::unavailable("down"));
            outcomes.wait(&backoff)
        };
        assert_eq!(wait(), Duration::from_secs(1));
        assert_eq!(wait(), Duration::from_secs(1), "the same outage");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(wait(), Duration::from_secs(2));
        outcomes.passed(1);
        assert_eq!(wait(), Duration::from_secs(1));
    }
}
