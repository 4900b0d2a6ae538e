//! One hop: what happened to one event at one place.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::Event;
use crate::store::{Entry, EntryId, Fields, StreamField};
use crate::text::bounded;

/// Bytes of an error that are kept.
const MAX_ERROR: usize = 500;

/// Which event it is about, and the flow that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Flow {
    /// The event.
    #[serde(rename = "event_id")]
    pub event: Uuid,
    /// Its type.
    pub event_type: String,
    /// The flow.
    #[serde(rename = "correlation_id")]
    pub correlation: Uuid,
    /// The event that caused it, if one did.
    #[serde(default, rename = "causation_id")]
    pub cause: Option<Uuid>,
}

impl Flow {
    /// Of an event as it was sent; nothing where these bytes do not say.
    pub fn of_json(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    /// Of an event.
    pub fn of(event: &Event) -> Self {
        Self {
            event: event.id(),
            event_type: event.event_type().to_owned(),
            correlation: event.correlation_id(),
            cause: event.causation_id(),
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "lowercase")]
pub enum What {
    /// The router appended it to a stream.
    Routed {
        /// The stream.
        stream: String,
        /// Whom it is for, separated by commas.
        to: String,
    },
    /// The router keeps it until it is due.
    Scheduled {
        /// When that is, milliseconds since 1970.
        due_ms: u64,
    },
    /// The router refused it.
    Refused {
        /// Reason code.
        reason: String,
        /// What was wrong.
        error: String,
    },
    /// A subscriber handled it.
    Handled {
        /// Who.
        subscriber: String,
        /// Which attempt it was, from 1.
        attempt: u32,
        /// How long the handler took, microseconds.
        took_us: u64,
    },
    /// An attempt of a subscriber failed.
    Failed {
        /// Who.
        subscriber: String,
        /// Which attempt it was, from 1.
        attempt: u32,
        /// What it said.
        error: String,
        /// When it is tried again, milliseconds from then.
        again_ms: u64,
    },
    /// A subscriber gave it up.
    Dead {
        /// Who.
        subscriber: String,
        /// Reason code.
        reason: String,
        /// What its last attempt said.
        error: String,
    },
}

/// A hop as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// When it was told, by the clock of Redis.
    pub at: EntryId,
    /// Which event it is about.
    pub event: Uuid,
    /// Its type.
    pub event_type: String,
    /// The event that caused it.
    pub cause: Option<Uuid>,
    /// What happened.
    pub what: What,
}

const WHAT: &str = "what";
const CAUSE: &str = "cause";
const SUBSCRIBER: &str = "subscriber";
const ATTEMPT: &str = "attempt";
const REASON: &str = "reason";
const ERROR: &str = "error";
const DUE: &str = "due_ms";

/// The fields of a hop, as they are written.
pub(super) fn fields(flow: &Flow, what: &What) -> Vec<(&'static str, String)> {
    let mut fields = vec![
        (StreamField::ID, flow.event.to_string()),
        (
            StreamField::TYPE,
            bounded(flow.event_type.clone(), MAX_ERROR),
        ),
    ];
    fields.extend(flow.cause.map(|cause| (CAUSE, cause.to_string())));
    let error = |error: &String| (ERROR, bounded(error.clone(), MAX_ERROR));
    fields.extend(match what.clone() {
        What::Routed { stream, to } => vec![
            (WHAT, "routed".into()),
            (StreamField::STREAM, stream),
            (StreamField::TO, to),
        ],
        What::Scheduled { due_ms } => {
            vec![(WHAT, "scheduled".into()), (DUE, due_ms.to_string())]
        }
        What::Refused { reason, error: e } => {
            vec![(WHAT, "refused".into()), (REASON, reason), error(&e)]
        }
        What::Handled {
            subscriber,
            attempt,
            took_us,
        } => vec![
            (WHAT, "handled".into()),
            (SUBSCRIBER, subscriber),
            (ATTEMPT, attempt.to_string()),
            ("took_us", took_us.to_string()),
        ],
        What::Failed {
            subscriber,
            attempt,
            error: e,
            again_ms,
        } => vec![
            (WHAT, "failed".into()),
            (SUBSCRIBER, subscriber),
            (ATTEMPT, attempt.to_string()),
            error(&e),
            ("again_ms", again_ms.to_string()),
        ],
        What::Dead {
            subscriber,
            reason,
            error: e,
        } => vec![
            (WHAT, "dead".into()),
            (SUBSCRIBER, subscriber),
            (REASON, reason),
            error(&e),
        ],
    });
    fields
}

impl Hop {
    /// As it is read; nothing if it was not written by us.
    pub(super) fn from_entry(entry: &Entry) -> Option<Self> {
        let fields: &Fields = &entry.fields;
        let text = |name: &str| fields.text(name).map(str::to_owned);
        let number = |name: &str| fields.number(name);
        let attempt = || number(ATTEMPT).and_then(|n| u32::try_from(n).ok());
        let subscriber = text(SUBSCRIBER);
        let what = match fields.text(WHAT)? {
            "routed" => What::Routed {
                stream: text(StreamField::STREAM)?,
                to: text(StreamField::TO)?,
            },
            "scheduled" => What::Scheduled {
                due_ms: number(DUE)?,
            },
            "refused" => What::Refused {
                reason: text(REASON)?,
                error: text(ERROR)?,
            },
            "handled" => What::Handled {
                subscriber: subscriber?,
                attempt: attempt()?,
                took_us: number("took_us")?,
            },
            "failed" => What::Failed {
                subscriber: subscriber?,
                attempt: attempt()?,
                error: text(ERROR)?,
                again_ms: number("again_ms")?,
            },
            "dead" => What::Dead {
                subscriber: subscriber?,
                reason: text(REASON)?,
                error: text(ERROR)?,
            },
            _ => return None,
        };
        let id = |name: &str| {
            fields
                .text(name)
                .and_then(|text| Uuid::try_parse(text).ok())
        };
        Some(Self {
            at: entry.id,
            event: id(StreamField::ID)?,
            event_type: text(StreamField::TYPE)?,
            cause: id(CAUSE),
            what,
        })
    }
}

/// A time in milliseconds, as a hop keeps it.
pub(crate) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hop_survives_the_round_trip() {
        let s = String::from;
        let flow = Flow {
            event: Uuid::from_u128(1),
            event_type: s("Order.Created"),
            correlation: Uuid::from_u128(2),
            cause: Some(Uuid::from_u128(3)),
        };
        let whats = [
            What::Routed {
                stream: s("order-events"),
                to: s("a,b"),
            },
            What::Scheduled { due_ms: 1 },
            What::Refused {
                reason: s("schema_violation"),
                error: s("no"),
            },
            What::Handled {
                subscriber: s("a"),
                attempt: 2,
                took_us: 3,
            },
            What::Failed {
                subscriber: s("a"),
                attempt: 1,
                error: s("é"),
                again_ms: 1_000,
            },
            What::Dead {
                subscriber: s("a"),
                reason: s("exhausted"),
                error: s(""),
            },
        ];
        for what in whats {
            let pair = |(name, value): (&str, String)| (name.into(), value.into_bytes());
            let entry = Entry {
                id: EntryId { ms: 7, seq: 1 },
                fields: Fields(fields(&flow, &what).into_iter().map(pair).collect()),
            };
            let hop = Hop::from_entry(&entry).unwrap();
            assert_eq!(hop.what, what);
            assert_eq!((hop.event, hop.cause), (flow.event, flow.cause));
        }
        let long = What::Dead {
            subscriber: s("a"),
            reason: s("r"),
            error: "x".repeat(9_000),
        };
        let kept = fields(&flow, &long);
        assert!(kept.iter().all(|(_, value)| value.len() <= MAX_ERROR));
    }

    #[test]
    fn what_is_no_event_belongs_to_no_flow() {
        for json in ["", "{}", "[]", r#"{"event_id":"x"}"#] {
            assert_eq!(Flow::of_json(json.as_bytes()), None, "{json}");
        }
    }
}
