//! When to try again: exponential backoff with jitter, for deliveries and for reconnecting.
//!
//! The `backoff` crate is used as a calculator behind this one module: on its own it applies
//! jitter after the cap and gives up after 15 minutes.

use std::time::Duration;

use backoff::SystemClock;
use backoff::backoff::Backoff as _;
use backoff::exponential::ExponentialBackoff;

/// `initial × multiplier^(n-1)`, at most `max`, spread by ± `jitter`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// Delay after the first failure.
    pub initial: Duration,
    /// Growth per further failure, at least 1.
    pub multiplier: f64,
    /// No delay is longer.
    pub max: Duration,
    /// Share of the delay by which it is spread at random, 0 to 1.
    pub jitter: f64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(1),
            multiplier: 2.0,
            max: Duration::from_secs(30),
            jitter: 0.5,
        }
    }
}

/// For everything that waits for Redis to come back: quick at first, never a storm.
pub const RECONNECT: Backoff = Backoff {
    initial: Duration::from_millis(50),
    multiplier: 2.0,
    max: Duration::from_secs(2),
    jitter: 0.5,
};

impl Backoff {
    /// The delay after the `failures`-th failure in a row (counted from 1).
    pub fn delay(&self, failures: u32) -> Duration {
        let mut series: ExponentialBackoff<SystemClock> = ExponentialBackoff {
            current_interval: self.initial.min(self.max),
            initial_interval: self.initial.min(self.max),
            randomization_factor: 0.0,
            multiplier: self.multiplier,
            max_interval: self.max,
            max_elapsed_time: None,
            ..Default::default()
        };
        // The series reaches its cap within a few steps: 64 doublings exceed any duration.
        for _ in 1..failures.min(64) {
            series.next_backoff();
        }
        series.randomization_factor = self.jitter;
        series.next_backoff().unwrap_or(self.max).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_by_the_multiplier_up_to_the_cap() {
        let backoff = Backoff {
            jitter: 0.0,
            max: Duration::from_secs(5),
            ..Backoff::default()
        };
        let delays: Vec<_> = (1..=5).map(|n| backoff.delay(n).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 5, 5]);
        assert_eq!(backoff.delay(u32::MAX), Duration::from_secs(5));
    }

    #[test]
    fn jitter_spreads_but_never_beyond_the_cap() {
        let backoff = Backoff {
            max: Duration::from_secs(4),
            ..Backoff::default()
        };
        let (mut least, mut most) = (f64::MAX, f64::MIN);
        for _ in 0..500 {
            let second = backoff.delay(2).as_secs_f64();
            assert!((1.0..=3.0).contains(&second), "{second}");
            assert!(backoff.delay(9) <= Duration::from_secs(4));
            (least, most) = (least.min(second), most.max(second));
        }
        assert!(least < 1.5 && most > 2.5, "{least} to {most}");
    }
}
