//! A delivery, and the pure decisions about it: what a claimed entry calls for, and what a
//! failure leads to.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::breaker::Probe;
use super::core::Source;
use super::held::HeldGuard;
use crate::error::Failure;
use crate::event::Event;
use crate::retry::Backoff;
use crate::store::{Fence, Fields, StreamField};

/// Bytes of an error's text that are kept.
const MAX_ERROR: usize = 2_000;

/// One entry in our hands.
pub(crate) struct Delivery {
    /// The stream that it is from.
    pub(crate) source: Arc<Source>,
    pub(crate) fence: Fence,
    pub(crate) fields: Fields,
    /// `None` unless it lost its worker before; then its marked starts without an outcome.
    pub(crate) starts: Option<u32>,
    pub(crate) log: AttemptLog,
    /// Whether `attempts` has a record of it.
    pub(crate) troubled: bool,
    /// The right to run it, while the circuit breaker is half-open.
    pub(crate) probe: Option<Probe>,
    /// While it exists, the lease is renewed.
    pub(crate) guard: HeldGuard,
}

/// A delivery in its slot; while it exists, a stop waits for it.
pub(crate) struct Slotted {
    pub(crate) delivery: Delivery,
    pub(crate) slot: OwnedSemaphorePermit,
    pub(crate) tracked: TaskTrackerToken,
}

/// A delivery whose event was read: its handler runs, or has run.
pub(crate) struct InHand {
    pub(crate) delivery: Delivery,
    pub(crate) event: Arc<Event>,
    pub(crate) slot: OwnedSemaphorePermit,
    pub(crate) tracked: TaskTrackerToken,
    /// When its handler was called last.
    pub(crate) began: Instant,
}

impl Delivery {
    /// Attempts charged before this one, in this life: a redriven letter starts anew.
    pub(crate) fn failures(&self) -> u32 {
        self.log.0.len() as u32
    }

    /// Whether nothing is known of it but that it is there: never claimed, never tried, and no more
    /// depends on it than itself.
    pub(crate) fn is_fresh(&self) -> bool {
        self.starts.is_none() && !self.troubled && self.probe.is_none()
    }

    /// Reads its event; otherwise says what it is instead of one.
    pub(crate) fn read_event(&self) -> Result<Event, String> {
        let json = self
            .fields
            .get(StreamField::EVENT)
            .ok_or("the entry has no field `event`")?;
        if self.fields.get(StreamField::TO).is_none() {
            return Err("the entry has no field `to`: it was not written by the router".to_owned());
        }
        Event::from_json(json).map_err(|e| format!("`event` is not an event: {e}"))
    }

    /// Length of the chain of follow-ups that led to it.
    pub(crate) fn hops(&self) -> u32 {
        self.fields
            .number(StreamField::HOPS)
            .and_then(|n| n.try_into().ok())
            .unwrap_or(0)
    }
}

/// Whether a delivery may run, and with whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Beside others.
    Together,
    /// With nothing else in this process: it may be what kills it.
    Alone,
    /// Not again.
    Crashed,
}

impl Start {
    /// Decides by the marked starts without an outcome. The first start of all is never marked,
    /// so a delivery that kills its process does so three times: unmarked, beside others, alone.
    pub(crate) fn after(starts: Option<u32>) -> Self {
        match starts {
            None | Some(0) => Self::Together,
            Some(1) => Self::Alone,
            Some(_) => Self::Crashed,
        }
    }
}

/// The recorded failures of a delivery, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptLog(pub Vec<Attempt>);

/// One recorded failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// When it failed.
    pub at: Timestamp,
    /// Consumer that ran it.
    pub worker: String,
    /// What it said.
    pub error: String,
}

impl AttemptLog {
    /// Reads a log; one that cannot be read counts as empty, because losing the history of an
    /// event is better than losing the event.
    pub fn parse(text: &[u8]) -> Self {
        serde_json::from_slice(text).unwrap_or_default()
    }

    /// As it is kept in Redis.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| "[]".to_owned())
    }

    /// Records a failure.
    pub(crate) fn record(&mut self, worker: &str, error: &str) {
        self.0.push(Attempt {
            attempt: self.0.len() as u32 + 1,
            at: Timestamp::now(),
            worker: worker.to_owned(),
            error: truncate(error, MAX_ERROR).to_owned(),
        });
    }
}

/// The first `max` bytes, cut at a character.
pub(crate) fn truncate(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// Why a subscriber's delivery was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GivenUp {
    /// All attempts failed.
    Exhausted,
    /// The handler said never again.
    Rejected,
    /// It lost its process each time it was started.
    Crashed,
    /// The entry is not an event.
    Undecodable,
    /// The event's `expires_at` had passed before its handler was to start.
    Expired,
}

impl GivenUp {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Rejected => "rejected",
            Self::Crashed => "crashed",
            Self::Undecodable => "undecodable",
            Self::Expired => "expired",
        }
    }
}

/// What a failure leads to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Next {
    /// Charged; again after this delay.
    Retry(Duration),
    /// Charged; to the dead letters.
    GiveUp(GivenUp),
    /// Not charged; again after a while.
    Wait,
}

impl fmt::Display for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retry(delay) => write!(f, "again in {} ms", delay.as_millis()),
            Self::GiveUp(_) => f.write_str("to the dead letters"),
            Self::Wait => f.write_str("waits"),
        }
    }
}

/// Decides about a failure; `failures` counts it.
pub(crate) fn after_failure(
    kind: Failure,
    failures: u32,
    max_attempts: u32,
    backoff: &Backoff,
) -> Next {
    match kind {
        Failure::Unavailable => Next::Wait,
        Failure::Reject => Next::GiveUp(GivenUp::Rejected),
        Failure::Retry if failures >= max_attempts => Next::GiveUp(GivenUp::Exhausted),
        Failure::Retry => Next::Retry(backoff.delay(failures)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspect_runs_alone_once_and_then_never() {
        let starts = [None, Some(0), Some(1), Some(2), Some(9)].map(Start::after);
        let expected = [
            Start::Together,
            Start::Together,
            Start::Alone,
            Start::Crashed,
            Start::Crashed,
        ];
        assert_eq!(starts, expected);
    }

    #[test]
    fn three_attempts_in_all_and_infrastructure_charges_nobody() {
        let backoff = Backoff {
            jitter: 0.0,
            ..Backoff::default()
        };
        let next = |kind, failures| after_failure(kind, failures, 3, &backoff);
        assert_eq!(next(Failure::Retry, 1), Next::Retry(Duration::from_secs(1)));
        assert_eq!(next(Failure::Retry, 2), Next::Retry(Duration::from_secs(2)));
        assert_eq!(next(Failure::Retry, 3), Next::GiveUp(GivenUp::Exhausted));
        assert_eq!(next(Failure::Reject, 1), Next::GiveUp(GivenUp::Rejected));
        assert_eq!(next(Failure::Unavailable, 3), Next::Wait);
    }

    #[test]
    fn the_log_is_bounded_and_survives_the_round_trip() {
        let mut log = AttemptLog::default();
        log.record("w.1", &"é".repeat(5_000));
        assert!(log.0[0].error.len() <= MAX_ERROR);
        assert_eq!(AttemptLog::parse(log.to_json().as_bytes()), log);
        assert_eq!(AttemptLog::parse(b"nonsense"), AttemptLog::default());
    }
}
