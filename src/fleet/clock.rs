//! The server's clock, by which idle times and leases are measured: what to do when it was set
//! back.
//!
//! Redis: the pending entries of one group, through `restart_idle.lua`.
//! Guarantee: what is pending comes back within a lease, however far the clock was set back,
//! as long as a process of the group runs or is started.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::{Holder, Link, StoreError};

/// Set back by less, it only makes leases a little longer.
const TOLERANCE: Duration = Duration::from_millis(500);
/// What was parked at this very moment shows the same idle time as what waits for the clock, none:
/// after so long it shows more.
const MOMENT: Duration = Duration::from_millis(5);
/// Entries that one call looks over: it must not hold Redis up.
const STEP: usize = 256;

/// What the server's clock said, and when.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ServerClock(Option<(u64, Instant)>);

impl ServerClock {
    /// Takes in what the clock said in answer to a question asked at `asked`. Answers whether it
    /// may have been set back before: it is behind what it must be by now, or nothing is known
    /// of the time before.
    pub(crate) fn may_be_set_back(&mut self, asked: Instant, said_ms: u64) -> bool {
        let last = self.0.replace((said_ms, Instant::now()));
        let Some((before_ms, at)) = last else {
            return true;
        };
        // It said the one before `at` and the other after `asked`: at least this has passed.
        let passed = asked.saturating_duration_since(at);
        let behind_ms = (before_ms + passed.as_millis() as u64).saturating_sub(said_ms);
        // Two clocks may drift apart by a thousandth.
        let set_back = behind_ms > (TOLERANCE + passed / 1000).as_millis() as u64;
        if set_back {
            tracing::warn!(behind_ms, "the clock of Redis was set back");
        }
        set_back
    }
}

/// Restarts the idle times that a clock set back has spoilt. Does nothing to others.
pub(crate) async fn restart_idle(
    link: &Link,
    holder: &Holder,
    lease: Duration,
) -> Result<(), StoreError> {
    let lease_ms = lease.as_millis() as u64;
    tokio::time::sleep(MOMENT).await;
    let (mut all, mut from) = (0, None);
    loop {
        let after = from.as_deref();
        let (restarted, last) = link
            .run(|mut c| async move { holder.restart_idle(&mut c, lease_ms, after, STEP).await })
            .await?;
        all += restarted;
        from = last;
        if from.is_none() {
            break;
        }
    }
    tracing::debug!(
        stream = holder.stream,
        deliveries = all,
        "idle times restarted"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_clock_behind_what_must_have_passed_was_set_back() {
        let mut clock = ServerClock::default();
        assert!(
            clock.may_be_set_back(Instant::now(), 100_000),
            "who knows what was before"
        );
        let asked = Instant::now() + Duration::from_secs(1);
        tokio::time::advance(Duration::from_secs(9)).await;
        // The answer took 8 s; the clock was read right after the question.
        assert!(!clock.may_be_set_back(asked, 101_000));
        let asked = Instant::now() + Duration::from_secs(1);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!clock.may_be_set_back(asked, 3_701_000), "set forward");
        let asked = Instant::now() + Duration::from_secs(1);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(clock.may_be_set_back(asked, 3_701_000), "it stood still");
        assert!(!clock.may_be_set_back(Instant::now(), 3_701_000));
    }
}
