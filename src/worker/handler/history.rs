//! The event store as a handler sees it: histories of entities, and events to append to them.

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::effects::EffectError;
use crate::error::HandlerError;
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
}

impl StoredEvent {
    /// `data` as a type of yours. A mismatch cannot heal by trying again, so it is a rejection.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T, HandlerError> {
        serde_json::from_str(self.data.get())
            .map_err(|e| HandlerError::reject(format_args!("stored {}: {e}", self.event_type)))
    }

    pub(super) fn from_entry(key: &str, entry: &Entry) -> Result<Self, HandlerError> {
        let read = || {
            let text = |name| entry.fields.text(name).map(str::to_owned);
            Some(Self {
                version: entry.id.ms,
                event_type: text("type")?,
                data: RawValue::from_string(text("data")?).ok()?,
                at: text("at")?.parse().ok()?,
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
