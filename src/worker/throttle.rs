//! Slowing down while what a handler depends on is unavailable.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::retry::Backoff;

/// Counts deliveries in a row that found their dependency down. While there are any, reading
/// pauses for a growing time and then probes with one delivery; a success ends it.
#[derive(Default)]
pub(crate) struct Throttle(Mutex<State>);

#[derive(Default, Clone, Copy)]
struct State {
    in_a_row: u32,
    until: Option<Instant>,
}

impl Throttle {
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Answers how long to wait before the delivery is tried again.
    pub(crate) fn unavailable(&self, backoff: &Backoff) -> Duration {
        self.with(|state| {
            // Deliveries that were under way together tell of one outage, not of several.
            if state.until.is_none_or(|until| until <= Instant::now()) {
                state.in_a_row += 1;
                state.until = Some(Instant::now() + backoff.delay(state.in_a_row));
            }
            state
                .until
                .map_or(Duration::ZERO, |until| until.duration_since(Instant::now()))
        })
    }

    pub(crate) fn available(&self) {
        self.with(|state| *state = State::default());
    }

    /// When reading may go on, if it must wait.
    pub(crate) fn paused_until(&self) -> Option<Instant> {
        self.with(|state| state.until.filter(|until| *until > Instant::now()))
    }

    /// How many deliveries may be taken when `free` slots are.
    pub(crate) fn allowance(&self, free: usize) -> usize {
        self.with(|state| {
            if state.in_a_row > 0 {
                free.min(1)
            } else {
                free
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_longer_each_time_and_recovers_at_once() {
        let backoff = Backoff {
            jitter: 0.0,
            ..Backoff::default()
        };
        let throttle = Throttle::default();
        assert_eq!(throttle.unavailable(&backoff), Duration::from_secs(1));
        assert_eq!(
            throttle.unavailable(&backoff),
            Duration::from_secs(1),
            "the same outage"
        );
        assert_eq!(throttle.allowance(16), 1);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(throttle.paused_until().is_none());
        assert_eq!(throttle.unavailable(&backoff), Duration::from_secs(2));
        throttle.available();
        assert_eq!(
            (throttle.paused_until(), throttle.allowance(16)),
            (None, 16)
        );
    }
}
