//! Admission: what may pass the door. A pure decision about the bytes of one event, used by
//! the router for everything in the inbox, by publishers before they send, and for follow-up
//! events before their parent commits, so that all three agree.

use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::event::{Envelope, MAX_HOPS, content_hash};
use crate::json::{self, JsonError, Node};
use crate::routing::{Config, Redacted, STARS};
use crate::schemas::{SchemaRefusal, Violation};

/// How far ahead an event may be scheduled: what is later is most likely a slip.
const MAX_YEARS_AHEAD: i64 = 10;

/// Why an event was refused at the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Not JSON.
    InvalidJson,
    /// Not UTF-8.
    InvalidUtf8,
    /// Longer than `limits.event_bytes`.
    TooLarge,
    /// Nested deeper than `limits.depth`.
    TooDeep,
    /// An object names a key twice.
    DuplicateKey,
    /// A required part of the envelope is missing or malformed, or the entry has no `event`.
    BadEnvelope,
    /// No schema or no stream knows the type.
    UnknownType,
    /// The type is known, this version of it is not.
    UnknownVersion,
    /// The schema refuses it.
    SchemaViolation,
    /// The same event ID was accepted with another type, version or data.
    EventIdConflict,
    /// A chain of follow-ups that is too long: most likely a loop.
    TooManyHops,
    /// Its `expires_at` has passed.
    Expired,
}

impl Refusal {
    /// The reason code, as dead letters carry it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::TooLarge => "too_large",
            Self::TooDeep => "too_deep",
            Self::DuplicateKey => "duplicate_key",
            Self::BadEnvelope => "bad_envelope",
            Self::UnknownType => "unknown_type",
            Self::UnknownVersion => "unknown_version",
            Self::SchemaViolation => "schema_violation",
            Self::EventIdConflict => "event_id_conflict",
            Self::TooManyHops => "too_many_hops",
            Self::Expired => "expired",
        }
    }

    /// Whether a newer routing.yaml or schema could change the answer.
    pub fn depends_on_config(self) -> bool {
        matches!(
            self,
            Self::UnknownType | Self::UnknownVersion | Self::SchemaViolation
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refused event: why, in one sentence and in detail.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{code}: {error}")]
pub struct Rejection {
    /// The reason code.
    pub code: Refusal,
    /// One sentence.
    pub error: String,
    /// What is wrong where, by JSON pointer.
    pub details: Vec<Violation>,
    /// The event's ID, as far as it could be read.
    pub event_id: Option<String>,
    /// The event's type, as far as it could be read.
    pub event_type: Option<String>,
    /// Who published it, where the event says so.
    pub published_by: Option<Box<str>>,
}

/// An event that may pass, and where it goes.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// Identity, type and version.
    pub envelope: Envelope,
    /// Equal for equal content; see [`content_hash`].
    pub content: String,
    /// The domain stream, without namespace.
    pub stream: Arc<str>,
    /// Comma-separated subscribers; empty if nobody wants it.
    pub to: Arc<str>,
    /// When it is to be delivered, if that is yet to come.
    pub due: Option<Timestamp>,
    /// Who published it, if that is audited and the event says so.
    pub published_by: Option<String>,
}

/// Decides about one event. `hops` is the length of the chain of follow-ups that led to it. The
/// clock is read only for an event that names a time.
pub fn admit(event: &[u8], hops: u32, config: &Config) -> Result<Admitted, Rejection> {
    decide(event, hops, config).map_err(|rejection| {
        let redact = config.routing.redact();
        match redact.look(rejection.event_type.as_deref(), event) {
            Some(redacted) => rejection.discreet(&redacted),
            None => rejection,
        }
    })
}

impl Rejection {
    /// The same without what routing.yaml hides of the event.
    fn discreet(mut self, redacted: &Redacted) -> Self {
        if self.details.is_empty() {
            self.error = redacted.text(&self.error);
        } else {
            for detail in &mut self.details {
                detail.message = match redacted.covers(&detail.pointer) {
                    true => STARS.to_owned(),
                    false => redacted.text(&detail.message),
                };
            }
            self.error = summary(&self.details);
        }
        self
    }
}

fn decide(event: &[u8], hops: u32, config: &Config) -> Result<Admitted, Rejection> {
    let refuse = |code, error: String| Rejection {
        code,
        error,
        details: Vec::new(),
        event_id: None,
        event_type: None,
        published_by: None,
    };
    let limits = config.routing.limits();
    if event.len() > limits.event_bytes {
        let error = format!(
            "{} bytes, limits.event_bytes allows {}",
            event.len(),
            limits.event_bytes
        );
        return Err(refuse(Refusal::TooLarge, error));
    }
    let value = json::parse(event, limits.depth).map_err(|e| {
        let code = match e {
            JsonError::InvalidUtf8 { .. } => Refusal::InvalidUtf8,
            JsonError::Invalid(_) => Refusal::InvalidJson,
            JsonError::TooDeep { .. } => Refusal::TooDeep,
            JsonError::DuplicateKey(_) => Refusal::DuplicateKey,
        };
        refuse(code, e.to_string())
    })?;
    let envelope = Envelope::read(&value).map_err(|errors| {
        let details: Vec<_> = errors
            .into_iter()
            .map(|e| Violation {
                pointer: e.pointer.to_owned(),
                message: e.message,
            })
            .collect();
        Rejection {
            code: Refusal::BadEnvelope,
            error: summary(&details),
            details,
            event_id: readable(&value, "event_id"),
            event_type: readable(&value, "event_type"),
            published_by: readable(&value, "source").map(String::into_boxed_str),
        }
    })?;
    let refuse = |code, error: String, details| {
        Err(Rejection {
            code,
            error,
            details,
            event_id: Some(envelope.event_id.to_string()),
            event_type: Some(envelope.event_type.to_string()),
            published_by: readable(&value, "source").map(String::into_boxed_str),
        })
    };
    match config
        .schemas
        .validate(envelope.event_type.as_str(), envelope.version, &value)
    {
        Ok(()) => {}
        Err(SchemaRefusal::Violations(details)) => {
            return refuse(Refusal::SchemaViolation, summary(&details), details);
        }
        Err(unknown @ SchemaRefusal::UnknownType) => {
            let error = format!("{}: {unknown}", envelope.event_type);
            return refuse(Refusal::UnknownType, error, Vec::new());
        }
        Err(unknown @ SchemaRefusal::UnknownVersion { .. }) => {
            let error = format!(
                "{} version {}: {unknown}",
                envelope.event_type, envelope.version
            );
            return refuse(Refusal::UnknownVersion, error, Vec::new());
        }
    }
    let Some(route) = config.routing.route(envelope.event_type.as_str()) else {
        let error = format!("no stream in routing.yaml takes {}", envelope.event_type);
        return refuse(Refusal::UnknownType, error, Vec::new());
    };
    if hops > MAX_HOPS {
        let error =
            format!("{hops} follow-ups in a row, at most {MAX_HOPS}: the routes probably loop");
        return refuse(Refusal::TooManyHops, error, Vec::new());
    }
    let due = if envelope.deliver_at.is_some() || envelope.expires_at.is_some() {
        match due(&envelope, Timestamp::now()) {
            Ok(due) => due,
            Err((code, violation)) => {
                let error = summary(std::slice::from_ref(&violation));
                return refuse(code, error, vec![violation]);
            }
        }
    } else {
        None
    };
    let content = content_hash(&envelope, &value);
    let audit = config.routing.audit();
    let published_by = audit.and_then(|_| readable(&value, "source"));
    Ok(Admitted {
        due,
        published_by,
        envelope,
        content,
        stream: route.stream.clone(),
        to: route.to_joined.clone(),
    })
}

/// When an event is to be delivered, if that is yet to come; or what is wrong with its times.
fn due(envelope: &Envelope, now: Timestamp) -> Result<Option<Timestamp>, (Refusal, Violation)> {
    let wrong = |code, pointer: &str, message| {
        let pointer = pointer.to_owned();
        Err((code, Violation { pointer, message }))
    };
    if let Some(at) = envelope.expires_at.filter(|at| *at < now) {
        let message = format!("has passed: it was not to be handled after {at}");
        return wrong(Refusal::Expired, "/expires_at", message);
    }
    let due = envelope.deliver_at.filter(|at| *at > now);
    let most = SignedDuration::from_hours(MAX_YEARS_AHEAD * 366 * 24);
    if due.is_some_and(|at| at.duration_since(now) > most) {
        let message = format!("is more than {MAX_YEARS_AHEAD} years ahead");
        return wrong(Refusal::BadEnvelope, "/deliver_at", message);
    }
    Ok(due)
}

/// A text of a bad envelope, short enough to be shown.
fn readable(event: &Node<'_>, field: &str) -> Option<String> {
    let text = event.get(field)?.as_str()?;
    Some(text.chars().take(128).collect())
}

fn summary(details: &[Violation]) -> String {
    let Some(first) = details.first() else {
        return String::new();
    };
    let place = if first.pointer.is_empty() {
        "the event"
    } else {
        &first.pointer
    };
    match details.len() {
        1 => format!("{place}: {}", first.message),
        n => format!("{place}: {} (and {} more)", first.message, n - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_type::EventType;

    #[test]
    fn an_event_is_due_later_expired_or_too_far_ahead() {
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        let now = at("2026-01-01T00:00:00Z").unwrap();
        let judge = |deliver_at, expires_at| {
            let envelope = Envelope {
                event_id: uuid::Uuid::nil(),
                event_type: EventType::parse("Order.Created").unwrap(),
                version: 1,
                deliver_at,
                expires_at,
            };
            due(&envelope, now).map_err(|(code, violation)| (code, violation.pointer))
        };
        let (before, later) = (at("2025-12-31T23:59:59Z"), at("2026-01-01T00:00:01Z"));
        assert_eq!(judge(later, None), Ok(later));
        assert_eq!(judge(later, at("2026-01-01T00:00:02Z")), Ok(later));
        for none in [before, Some(now), None] {
            assert_eq!(judge(none, later), Ok(None), "at once");
        }
        assert_eq!(judge(None, Some(now)), Ok(None), "its last moment");
        let expired = Err((Refusal::Expired, "/expires_at".to_owned()));
        assert_eq!(judge(None, before), expired);
        assert_eq!(judge(at("2025-01-01T00:00:00Z"), before), expired);
        assert_eq!(
            judge(at("2035-12-31T00:00:00Z"), None),
            Ok(at("2035-12-31T00:00:00Z"))
        );
        let far = Err((Refusal::BadEnvelope, "/deliver_at".to_owned()));
        assert_eq!(judge(at("2037-01-01T00:00:00Z"), None), far);
    }
}
