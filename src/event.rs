//! The event: an immutable fact, and the two ways to read one.
//!
//! The router reads an [`Envelope`] out of parsed JSON and says everything that is wrong with
//! it; workers read an [`Event`], whose `data` stays the text that was sent until a handler
//! asks for it.

mod content;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::error::HandlerError;
use crate::event_type::EventType;
use crate::json::Node;
use crate::text::bounded;

pub use content::content_hash;

/// Follow-up events that caused each other in a row; one more is refused as a loop.
pub const MAX_HOPS: u32 = 32;

/// The longest message about one problem.
const MAX_MESSAGE_BYTES: usize = 300;

/// What the router needs to know of an event before it looks at its schema.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// Identity for deduplication.
    pub event_id: Uuid,
    /// `Order.Created`.
    pub event_type: EventType,
    /// Major version of the schema: 1 for `"1"`.
    pub version: u32,
    /// Not to be delivered before this time.
    pub deliver_at: Option<Timestamp>,
    /// Not worth handling after this time.
    pub expires_at: Option<Timestamp>,
}

/// One thing that is wrong with an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvelopeError {
    /// JSON pointer of the offending value.
    pub pointer: &'static str,
    /// What is wrong and what is expected.
    pub message: String,
}

/// The fields of an event that its envelope is made of.
#[derive(Default)]
struct Found<'e> {
    event_id: Option<&'e Node<'e>>,
    event_type: Option<&'e Node<'e>>,
    version: Option<&'e Node<'e>>,
    timestamp: Option<&'e Node<'e>>,
    correlation_id: Option<&'e Node<'e>>,
    data: Option<&'e Node<'e>>,
    causation_id: Option<&'e Node<'e>>,
    key: Option<&'e Node<'e>>,
    source: Option<&'e Node<'e>>,
    traceparent: Option<&'e Node<'e>>,
    deliver_at: Option<&'e Node<'e>>,
    expires_at: Option<&'e Node<'e>>,
}

impl Envelope {
    /// Reads the envelope of a parsed event; every problem, not the first.
    pub fn read<'e>(event: &'e Node<'_>) -> Result<Self, Vec<EnvelopeError>> {
        let Node::Object(fields) = event else {
            let message = "an event is a JSON object".to_owned();
            return Err(vec![EnvelopeError {
                pointer: "",
                message,
            }]);
        };
        // One walk over the fields instead of a search for each of them.
        let mut found = Found::default();
        for (key, value) in fields.iter() {
            let slot = match key {
                "event_id" => &mut found.event_id,
                "event_type" => &mut found.event_type,
                "version" => &mut found.version,
                "timestamp" => &mut found.timestamp,
                "correlation_id" => &mut found.correlation_id,
                "data" => &mut found.data,
                "causation_id" => &mut found.causation_id,
                "key" => &mut found.key,
                "source" => &mut found.source,
                "traceparent" => &mut found.traceparent,
                "deliver_at" => &mut found.deliver_at,
                "expires_at" => &mut found.expires_at,
                _ => continue,
            };
            *slot = Some(value);
        }
        let mut errors = Vec::new();
        let mut text = |pointer: &'static str, field: Option<&'e Node<'_>>, expected: &str| {
            let message = match field {
                Some(Node::String(text)) => return Some(&**text),
                Some(_) => format!("must be {expected}"),
                None => format!("is missing: {expected}"),
            };
            errors.push(EnvelopeError { pointer, message });
            None
        };
        let event_id = text("/event_id", found.event_id, "a UUID in a string");
        let event_type = text(
            "/event_type",
            found.event_type,
            "a type such as \"Order.Created\"",
        );
        let version = text(
            "/version",
            found.version,
            "a version in a string, such as \"1\"",
        );
        let timestamp = text("/timestamp", found.timestamp, "an RFC 3339 date-time");
        let correlation_id = text(
            "/correlation_id",
            found.correlation_id,
            "a UUID in a string",
        );
        if !matches!(found.data, Some(Node::Object(_))) {
            errors.push(EnvelopeError {
                pointer: "/data",
                message: "must be an object".into(),
            });
        }

        let mut wrong = |pointer, message| errors.push(EnvelopeError { pointer, message });
        let event_id = event_id.and_then(|t| {
            Uuid::try_parse(t)
                .map_err(|e| wrong("/event_id", format!("is not a UUID: {e}")))
                .ok()
        });
        if let Some(Err(e)) = correlation_id.map(Uuid::try_parse) {
            wrong("/correlation_id", format!("is not a UUID: {e}"));
        }
        if let Some(Err(message)) = timestamp.map(read_time) {
            wrong("/timestamp", message);
        }
        let mut optional_time = |pointer, field: Option<&Node<'_>>| {
            let read = match field {
                None | Some(Node::Null) => return None,
                Some(Node::String(text)) => read_time(text),
                Some(_) => Err("must be an RFC 3339 date-time in a string".to_owned()),
            };
            read.map_err(|message| wrong(pointer, message)).ok()
        };
        let deliver_at = optional_time("/deliver_at", found.deliver_at);
        let expires_at = optional_time("/expires_at", found.expires_at);
        if expires_at.is_some() && expires_at <= deliver_at {
            let message = "must be after deliver_at: it could never be handled in time";
            wrong("/expires_at", message.to_owned());
        }
        for (pointer, field) in [
            ("/causation_id", found.causation_id),
            ("/key", found.key),
            ("/source", found.source),
            ("/traceparent", found.traceparent),
        ] {
            match field {
                None | Some(Node::Null) => {}
                Some(Node::String(text))
                    if pointer != "/causation_id" || Uuid::try_parse(text).is_ok() => {}
                Some(_) if pointer == "/causation_id" => {
                    wrong(pointer, "must be a UUID in a string".into())
                }
                Some(_) => wrong(pointer, "must be a string".into()),
            }
        }
        let event_type = event_type.and_then(|t| {
            EventType::parse(t)
                .map_err(|e| wrong("/event_type", e.to_string()))
                .ok()
        });
        let version = version.and_then(|t| {
            // One way to write each number: no sign, no zero in front.
            let number = t
                .parse()
                .ok()
                .filter(|_| t.starts_with(|c| c != '0' && c != '+'));
            if number.is_none() {
                wrong(
                    "/version",
                    "must be a whole number from 1 in a string, such as \"1\"".into(),
                );
            }
            number
        });
        match (event_id, event_type, version) {
            (Some(event_id), Some(event_type), Some(version)) if errors.is_empty() => Ok(Self {
                event_id,
                event_type,
                version,
                deliver_at,
                expires_at,
            }),
            _ => Err(errors),
        }
    }
}

fn read_time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|e| {
        // The parser quotes what it did not read, however long.
        let message = format!("is not an RFC 3339 date-time: {e}");
        bounded(message, MAX_MESSAGE_BYTES)
    })
}

/// An event as a handler sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    event_id: Uuid,
    event_type: String,
    version: String,
    timestamp: Timestamp,
    correlation_id: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    causation_id: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deliver_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    data: Box<RawValue>,
}

impl Event {
    /// Reads an event from its JSON text.
    pub fn from_json(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// A new event that starts a flow of its own: random time-ordered id, now, version 1.
    pub fn new(event_type: &EventType, data: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self {
            event_id: Uuid::now_v7(),
            event_type: event_type.as_str().to_owned(),
            version: "1".to_owned(),
            timestamp: Timestamp::now(),
            correlation_id: Uuid::new_v4(),
            causation_id: None,
            key: None,
            source: None,
            traceparent: None,
            deliver_at: None,
            expires_at: None,
            data: serde_json::value::to_raw_value(data)?,
        })
    }

    /// An event as it was, made of what is known of it: see
    /// [`Handler::restore`](crate::worker::Handler::restore). Its flow is not known any more.
    pub fn restored(
        event_id: Uuid,
        event_type: &EventType,
        timestamp: Timestamp,
        data: &impl Serialize,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self {
            event_id,
            timestamp,
            correlation_id: event_id,
            ..Self::new(event_type, data)?
        })
    }

    /// The same under another identity, in another flow.
    pub(crate) fn identified(self, event_id: Uuid, correlation_id: Uuid) -> Self {
        Self {
            event_id,
            correlation_id,
            ..self
        }
    }

    /// The same as part of a flow, about `key`.
    pub(crate) fn within(self, correlation_id: Uuid, key: &str) -> Self {
        Self {
            correlation_id,
            key: Some(key.to_owned()),
            source: Some("streamfleet".to_owned()),
            ..self
        }
    }

    /// The event that `subscriber` publishes as its `index`-th answer to this one. Its id is
    /// the same however often the handler runs, so that a repeated commit repeats nothing.
    pub fn follow_up(
        &self,
        subscriber: &str,
        index: usize,
        event_type: &EventType,
        data: &impl Serialize,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self {
            event_id: Uuid::new_v5(&self.event_id, format!("{subscriber}:{index}").as_bytes()),
            correlation_id: self.correlation_id,
            causation_id: Some(self.event_id),
            source: Some(subscriber.to_owned()),
            traceparent: self.traceparent.clone(),
            ..Self::new(event_type, data)?
        })
    }

    /// The same event, not to be delivered before `at`.
    #[must_use]
    pub fn with_deliver_at(self, at: Timestamp) -> Self {
        let deliver_at = Some(at);
        Self { deliver_at, ..self }
    }

    /// The same event, not worth handling after `at`.
    #[must_use]
    pub fn with_expires_at(self, at: Timestamp) -> Self {
        let expires_at = Some(at);
        Self { expires_at, ..self }
    }

    /// Identity; equal for every copy of this event.
    pub fn id(&self) -> Uuid {
        self.event_id
    }
    /// `Order.Created`, without the version.
    pub fn event_type(&self) -> &str {
        &self.event_type
    }
    /// Major version of the schema, `"1"`.
    pub fn version(&self) -> &str {
        &self.version
    }
    /// Event time: when it happened, not when it arrived.
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }
    /// The business flow that it belongs to.
    pub fn correlation_id(&self) -> Uuid {
        self.correlation_id
    }
    /// The event that caused it, if an event did.
    pub fn causation_id(&self) -> Option<Uuid> {
        self.causation_id
    }
    /// What the event is about, where the producer said so.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }
    /// Who published it, where the producer said so.
    pub fn source(&self) -> Option<&str> {
        self.source.as_deref()
    }
    /// Before when it was not to be delivered, where the producer said so.
    pub fn deliver_at(&self) -> Option<Timestamp> {
        self.deliver_at
    }
    /// After when it is not worth handling, where the producer said so.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }
    /// Whether it is past the time after which it is not worth handling. Of an event without one
    /// the clock is not asked.
    pub(crate) fn has_expired(&self) -> bool {
        self.expires_at.is_some_and(|at| at < Timestamp::now())
    }
    /// `data` as the JSON text that was sent.
    pub fn data_text(&self) -> &str {
        self.data.get()
    }
    /// `data` as a type of yours. A mismatch cannot heal by trying again, so it is a rejection.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T, HandlerError> {
        serde_json::from_str(self.data.get())
            .map_err(|e| HandlerError::reject(format_args!("data of {}: {e}", self.event_type)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(event: &Value) -> Result<Envelope, Vec<EnvelopeError>> {
        Envelope::read(&crate::json::parse(event.to_string().as_bytes(), 8).unwrap())
    }

    fn valid() -> Value {
        json!({"event_id": "0190a8c0-0000-7000-8000-000000000001", "event_type": "Order.Created",
            "version": "1", "timestamp": "2010-12-01T08:26:00Z",
            "correlation_id": "0190a8c0-0000-7000-8000-000000000002", "data": {"a": 1, "b": [2.5]}})
    }

    #[test]
    fn reads_an_envelope_and_reports_every_problem() {
        let envelope = read(&valid()).unwrap();
        assert_eq!(
            (envelope.event_type.as_str(), envelope.version),
            ("Order.Created", 1)
        );

        let bad = json!({"key": 5, "causation_id": "x", "event_id": 7, "event_type": "nope", "version": "01",
            "timestamp": "yesterday", "data": []});
        let pointers: Vec<_> = read(&bad).unwrap_err().iter().map(|e| e.pointer).collect();
        for pointer in [
            "/event_id",
            "/event_type",
            "/version",
            "/timestamp",
            "/correlation_id",
            "/data",
            "/key",
            "/causation_id",
        ] {
            assert!(pointers.contains(&pointer), "{pointer} in {pointers:?}");
        }
        assert_eq!(read(&json!([1])).unwrap_err()[0].pointer, "");

        let mut timed = valid();
        timed["deliver_at"] = json!("2030-01-01T00:00:00Z");
        timed["expires_at"] = Value::Null;
        let envelope = read(&timed).unwrap();
        assert_eq!(
            (envelope.deliver_at, envelope.expires_at),
            ("2030-01-01T00:00:00Z".parse().ok(), None)
        );
        // The same moment, written for another place.
        timed["expires_at"] = json!("2030-01-01T02:00:00+02:00");
        assert_eq!(read(&timed).unwrap_err()[0].pointer, "/expires_at");
        timed["expires_at"] = json!("2030-01-01T00:00:00.001Z");
        assert!(read(&timed).is_ok());
        for field in ["deliver_at", "expires_at"] {
            for bad in [json!("tomorrow"), json!(1_900_000_000), json!(["x"])] {
                let mut event = valid();
                event[field] = bad;
                let errors = read(&event).unwrap_err();
                assert_eq!(errors[0].pointer, format!("/{field}"), "{errors:?}");
            }
        }

        let mut long = valid();
        for field in ["event_id", "event_type", "version", "timestamp"] {
            long[field] = json!(format!("2026-01-01T00:00:00Z{}", "x".repeat(100_000)));
        }
        let errors = read(&long).unwrap_err();
        assert_eq!(errors.len(), 4);
        assert!(errors.iter().all(|e| e.message.len() <= MAX_MESSAGE_BYTES));
    }

    #[test]
    fn a_follow_up_has_one_id_per_parent_subscriber_and_index() {
        let parent = Event::from_json(valid().to_string().as_bytes()).unwrap();
        let reserved = EventType::parse("Inventory.Stock.Reserved").unwrap();
        let one = parent
            .follow_up("inventory-service", 0, &reserved, &json!({}))
            .unwrap();
        let same = parent
            .follow_up("inventory-service", 0, &reserved, &json!({}))
            .unwrap();
        let other = parent
            .follow_up("inventory-service", 1, &reserved, &json!({}))
            .unwrap();
        assert_eq!(one.id(), same.id());
        assert_ne!(one.id(), other.id());
        assert_eq!(one.correlation_id(), parent.correlation_id());
        assert_eq!(one.causation_id(), Some(parent.id()));
    }
}
