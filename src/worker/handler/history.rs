//! The event store as a handler sees it: histories of entities, and events to append to them.

use std::time::Instant;

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::Context;
use super::effects::{EffectError, Stored, quoted};
use crate::error::HandlerError;
use crate::fleet::figures::LOADS;
use crate::metrics;
use crate::store::Entry;

/// An event to append to an entity's history.
#[derive(Debug, Clone)]
pub struct NewEvent {
    pub(super) event_type: String,
    pub(super) data: String,
}

impl NewEvent {
    /// A fact about an entity, such as `StockReserved`, with its data.
    pub fn new(event_type: &str, data: &impl Serialize) -> Result<Self, EffectError> {
        let data = serde_json::to_string(data).map_err(|e| EffectError::Json(e.to_string()))?;
        Ok(Self {
            event_type: event_type.to_owned(),
            data,
        })
    }
}

/// An event of an entity's history.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    /// Its position in the history, from 1.
    pub version: u64,
    /// What kind of fact it is.
    pub event_type: String,
    /// Its data as JSON text.
    pub data: Box<RawValue>,
    /// Event time.
    pub at: Timestamp,
    /// The event, or the command, that it was appended for.
    pub cause: Option<Uuid>,
}

impl StoredEvent {
    /// `data` as a type of yours. A mismatch cannot heal by trying again, so it is a rejection.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T, HandlerError> {
        serde_json::from_str(self.data.get())
            .map_err(|e| HandlerError::reject(format_args!("stored {}: {e}", self.event_type)))
    }

    pub(crate) fn from_entry(key: &str, entry: &Entry) -> Result<Self, HandlerError> {
        let read = || {
            let text = |name| entry.fields.text(name).map(str::to_owned);
            Some(Self {
                version: entry.id.ms,
                event_type: text("type")?,
                data: RawValue::from_string(text("data")?).ok()?,
                at: text("at")?.parse().ok()?,
                cause: text("event").and_then(|id| id.parse().ok()),
            })
        };
        read().ok_or_else(|| {
            HandlerError::reject(format_args!(
                "entry {} of {key} is not a stored event",
                entry.id
            ))
        })
    }
}

/// An entity's history.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Version of the newest event; 0 if there is none.
    pub version: u64,
    /// The events asked for, oldest first.
    pub events: Vec<StoredEvent>,
}

impl Context {
    /// An entity's history from a version on (1 for all of it).
    pub async fn load(
        &mut self,
        entity: &str,
        id: &str,
        from_version: u64,
    ) -> Result<History, HandlerError> {
        let key = self.entity_key(entity, id)?;
        let asked = Instant::now();
        let entries: Vec<Entry> = self
            .query(redis::cmd("XRANGE").arg(&key).arg(from_version).arg("+"))
            .await?;
        LOADS.took(1, asked.elapsed());
        if metrics::on() {
            metrics::LOADED.observe(entries.len() as u64, 1);
        }
        let events = entries
            .iter()
            .map(|e| StoredEvent::from_entry(&key, e))
            .collect::<Result<Vec<_>, _>>()?;
        let version = match events.last() {
            Some(newest) => newest.version,
            None if from_version <= 1 => 0,
            None => self
                .last(entity, id)
                .await?
                .map_or(0, |newest| newest.version),
        };
        Ok(History { version, events })
    }

    /// The newest event of an entity.
    pub async fn last(
        &mut self,
        entity: &str,
        id: &str,
    ) -> Result<Option<StoredEvent>, HandlerError> {
        let key = self.entity_key(entity, id)?;
        let entries: Vec<Entry> = self
            .query(
                redis::cmd("XREVRANGE")
                    .arg(&key)
                    .arg("+")
                    .arg("-")
                    .arg("COUNT")
                    .arg(1),
            )
            .await?;
        entries
            .first()
            .map(|e| StoredEvent::from_entry(&key, e))
            .transpose()
    }

    /// Appends events to an entity's history, which must be at `expected_version` (0: it does
    /// not exist yet); otherwise nothing is committed and the handler runs again, uncharged.
    pub fn append_events(
        &mut self,
        entity: &str,
        id: &str,
        expected_version: u64,
        events: &[NewEvent],
    ) -> Result<(), EffectError> {
        if events.is_empty() {
            return Err(EffectError::Empty);
        }
        // The entity has these events: they were appended when this event was first handled.
        if self.is_rebuild() {
            return Err(EffectError::InRebuild);
        }
        let key = self.entity_key(entity, id)?;
        let at = self.event.timestamp().to_string();
        let cause = self.event.id().to_string();
        let bytes = events.iter().map(|e| e.event_type.len() + e.data.len());
        let stored = Stored {
            entities: u64::from(expected_version == 0),
            events: events.len() as u64,
            bytes: bytes.sum::<usize>() as u64,
        };
        let events = events
            .iter()
            .map(|event| {
                let fields = [
                    ("type", &event.event_type),
                    ("data", &event.data),
                    ("at", &at),
                    ("event", &cause),
                ];
                fields
                    .iter()
                    .flat_map(|(name, value)| [name.as_bytes().to_vec(), value.as_bytes().to_vec()])
                    .collect()
            })
            .collect();
        self.effects.append(&key, expected_version, events)?;
        let sizes = self.env.keys.entities();
        self.effects.count_stored(&sizes, entity, &key, stored);
        Ok(())
    }

    fn entity_key(&self, entity: &str, id: &str) -> Result<String, EffectError> {
        named(entity, id)?;
        Ok(self.env.keys.entity(entity, id))
    }

    pub(super) fn snapshot_key(&self, entity: &str, id: &str) -> Result<String, EffectError> {
        named(entity, id)?;
        Ok(self.env.keys.snapshot(entity, id))
    }
}

/// Refuses names that would break a key apart.
fn named(entity: &str, id: &str) -> Result<(), EffectError> {
    let plain = |t: &str| {
        !t.is_empty()
            && t.bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
    };
    match plain(entity) && plain(id) {
        true => Ok(()),
        false => Err(EffectError::BadEntity(quoted(&format!("{entity}:{id}")))),
    }
}
