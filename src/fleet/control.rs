//! What stops all workers of one subscriber: a pause, which an operator ends, and the circuit
//! breaker, which they open and close themselves.
//!
//! Redis: `control:<subscriber>`; the moments in it are those of the server's clock.
//! Guarantee: it outlives the processes. Workers learn of a change within [`POLL`]; they finish what
//! they hold, and what they have not read stays where it is.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::store::{self, Keys, Link, StoreError};
use crate::text::bounded;
use crate::time::from_ms;

/// How often a worker looks whether something changed.
pub const POLL: Duration = Duration::from_millis(500);
/// Bytes that are kept of who and why.
pub(crate) const MAX_TEXT: usize = 500;

/// Whether the workers of a subscriber may read, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Control {
    /// Not, because it is paused.
    pub paused: Option<Pause>,
    /// Whether its circuit breaker lets them.
    pub breaker: Breaker,
}

/// A pause that is not over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pause {
    /// Its end; until it is resumed if there is none.
    pub until: Option<Timestamp>,
    /// Who asked for it.
    pub by: String,
    /// What for.
    pub why: String,
}

/// What a circuit breaker lets through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerState {
    /// Everything.
    #[default]
    Closed,
    /// Nothing.
    Open,
    /// A few probes: its time is over.
    HalfOpen,
}

/// A circuit breaker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Breaker {
    /// What it lets through.
    pub state: BreakerState,
    /// Since when it is open, or tried with probes.
    pub since: Option<Timestamp>,
    /// When it is tried with probes.
    pub until: Option<Timestamp>,
    /// How often it has opened without closing in between.
    pub opened: u32,
    /// What the last handler said before it opened.
    pub why: String,
}

impl Control {
    /// What to ask for.
    pub(crate) const FIELDS: [&str; 8] = [
        "paused_until",
        "paused_by",
        "paused_why",
        "breaker",
        "since",
        "until",
        "opened",
        "why",
    ];

    /// Reads the answer of [`FIELDS`](Self::FIELDS), as it is at that moment of the server's clock.
    pub(crate) fn read(now_ms: u64, fields: [Option<String>; 8]) -> Self {
        let [
            paused_until,
            by,
            paused_why,
            state,
            since,
            until,
            opened,
            why,
        ] = fields;
        let ms = |text: Option<String>| text.and_then(|text| text.parse::<u64>().ok());
        let paused = paused_until.and_then(|text| {
            let until = text.parse::<u64>().ok();
            // What is no moment has no end: who made it so is to end it.
            until.is_none_or(|until| until > now_ms).then(|| Pause {
                until: until.and_then(from_ms),
                by: by.unwrap_or_default(),
                why: paused_why.unwrap_or_default(),
            })
        });
        let Some(state) = state else {
            let breaker = Breaker::default();
            return Self { paused, breaker };
        };
        let (since, until) = (ms(since).unwrap_or(0), ms(until).unwrap_or(0));
        // Opened in the future: the clock was set back, and must not keep it open for longer.
        let over = now_ms >= until || now_ms < since;
        let breaker = Breaker {
            state: match state == "open" && !over {
                true => BreakerState::Open,
                false => BreakerState::HalfOpen,
            },
            since: from_ms(since),
            until: from_ms(until),
            opened: opened.and_then(|n| n.parse().ok()).unwrap_or(1),
            why: why.unwrap_or_default(),
        };
        Self { paused, breaker }
    }
}

/// Pauses a subscriber until that moment of the server's clock, or until it is resumed; a pause
/// that was there is replaced.
///
/// # Errors
/// Redis could not be asked, or the key is not of the type that it should be.
pub async fn pause(
    link: &Link,
    keys: &Keys,
    subscriber: &str,
    until: Option<Timestamp>,
    by: &str,
    why: &str,
) -> Result<(), StoreError> {
    let key = keys.control(subscriber);
    let until_ms = until.map(Timestamp::as_millisecond);
    let [by, why] = [by, why].map(|text| bounded(text.to_owned(), MAX_TEXT));
    link.run(|mut c| async move { store::pause(&mut c, &key, until_ms, &by, &why).await })
        .await
}

/// Ends a pause; answers whether there was one. The circuit breaker stays as it is.
///
/// # Errors
/// As [`pause`].
pub async fn resume(link: &Link, keys: &Keys, subscriber: &str) -> Result<bool, StoreError> {
    let key = keys.control(subscriber);
    link.run(|mut c| async move { store::resume(&mut c, &key).await })
        .await
}

/// What is in force now.
///
/// # Errors
/// As [`pause`].
pub async fn read(link: &Link, keys: &Keys, subscriber: &str) -> Result<Control, StoreError> {
    let key = keys.control(subscriber);
    let (now_ms, fields) = link
        .run(|mut c| async move { store::read_control(&mut c, &key, &Control::FIELDS).await })
        .await?;
    Ok(Control::read(now_ms, fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(now_ms: u64, fields: [&str; 8]) -> Control {
        Control::read(
            now_ms,
            fields.map(|f| (!f.is_empty()).then(|| f.to_owned())),
        )
    }

    #[test]
    fn a_pause_ends_at_its_moment_or_when_it_is_resumed() {
        let at = |now, until| read(now, [until, "me", "why", "", "", "", "", ""]).paused;
        assert_eq!(at(1_000, "1000"), None);
        let pause = at(999, "1000").unwrap();
        assert_eq!((pause.by.as_str(), pause.why.as_str()), ("me", "why"));
        assert_eq!(pause.until, from_ms(1_000));
        assert_eq!(at(u64::MAX, "resumed").unwrap().until, None);
        assert_eq!(read(0, [""; 8]), Control::default());
    }

    #[test]
    fn an_open_breaker_is_tried_when_its_time_is_over_or_the_clock_was_set_back() {
        let at = |now, state| read(now, ["", "", "", state, "500", "900", "2", "down"]).breaker;
        assert_eq!(at(500, "open").state, BreakerState::Open);
        assert_eq!(at(899, "open").state, BreakerState::Open);
        for (now, state) in [(900, "open"), (499, "open"), (600, "half-open")] {
            assert_eq!(
                at(now, state).state,
                BreakerState::HalfOpen,
                "{now} {state}"
            );
        }
        let breaker = at(500, "open");
        assert_eq!((breaker.opened, breaker.why.as_str()), (2, "down"));
        assert_eq!((breaker.since, breaker.until), (from_ms(500), from_ms(900)));
    }
}
