//! Aggregates: entities whose state is their history, folded.
//!
//! Redis: `es:<Entity>:<id>`, and the hash `snapshot:<Entity>:<id>` (`version`, `shape`, `state`).
//!
//! **Guarantee.** An append happens only on the version that the decision was made on, in one step
//! with everything else of its delivery or command, and so does the snapshot that comes with it. A
//! snapshot only saves reading: one that is missing, of another shape, unreadable, or of a version
//! that the history does not reach is passed over, and the state is folded from the beginning.

use std::fmt::Display;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::Context;
use super::effects::EffectError;
use super::history::{NewEvent, StoredEvent};
use crate::error::HandlerError;

/// An entity whose state is folded from its events.
pub trait Aggregate: Default + Serialize + DeserializeOwned + Send + Sync {
    /// The entity, as its keys name it: `Order` for `es:Order:<id>`.
    const ENTITY: &'static str;
    /// The shape of the state. Raise it when the state's fields or their meaning change:
    /// snapshots of another shape are then passed over and written anew.
    const SHAPE: u32;
    /// After how many events a new snapshot is written.
    const SNAPSHOT_EVERY: u64 = 100;
    /// What can happen to it: an enum with `#[serde(tag = "type", content = "data")]`.
    type Event: Serialize + DeserializeOwned + Send + Sync;

    /// Takes an event in. It has happened, so this cannot fail; and it must be pure, because
    /// histories are folded again and again.
    fn apply(&mut self, event: &Self::Event);
}

/// An aggregate that commands are given to.
pub trait Decide: Aggregate {
    /// What can be asked of it.
    type Command: Send;
    /// Why it will not do that.
    type Refusal: Display;

    /// What happens if this is asked now: a pure decision.
    ///
    /// # Errors
    /// It does not fit the state; nothing happens.
    fn decide(&self, command: Self::Command) -> Result<Vec<Self::Event>, Self::Refusal>;
}

/// An aggregate as it was read, with the version that the next append must find.
#[derive(Debug, Clone, Default)]
pub struct Versioned<A> {
    /// The state.
    pub state: A,
    /// How many events made it; 0 if it does not exist yet.
    pub version: u64,
}

impl<A: Aggregate> Versioned<A> {
    fn take(&mut self, stored: &StoredEvent) -> Result<(), HandlerError> {
        self.state.apply(&stored.as_event()?);
        self.version = stored.version;
        Ok(())
    }
}

impl Context {
    /// An aggregate as it stands; its default at version 0 if nothing happened to it yet.
    pub async fn aggregate<A: Aggregate>(
        &mut self,
        id: &str,
    ) -> Result<Versioned<A>, HandlerError> {
        let snapshot = self.snapshot::<A>(id).await?;
        if let Some(mut read) = snapshot {
            // From the snapshot's own event on: that it is there shows that this is its history.
            let history = self.load(A::ENTITY, id, read.version).await?;
            let mut events = history.events.iter();
            if events.next().is_some_and(|e| e.version == read.version) {
                events.try_for_each(|event| read.take(event))?;
                return Ok(read);
            }
        }
        let mut read = Versioned::default();
        for event in &self.load(A::ENTITY, id, 1).await?.events {
            read.take(event)?;
        }
        Ok(read)
    }

    async fn snapshot<A: Aggregate>(
        &mut self,
        id: &str,
    ) -> Result<Option<Versioned<A>>, HandlerError> {
        let key = self.snapshot_key(A::ENTITY, id)?;
        let mut read = redis::cmd("HMGET");
        read.arg(key).arg(&["version", "shape", "state"]);
        let (version, shape, state): (Option<String>, Option<String>, Option<Vec<u8>>) =
            self.query(&read).await?;
        let usable = || {
            let version = version?.parse().ok().filter(|version| *version > 0)?;
            let shape: u32 = shape?.parse().ok()?;
            let state = serde_json::from_slice(&state?).ok()?;
            (shape == A::SHAPE).then_some(Versioned { state, version })
        };
        Ok(usable())
    }

    /// Lets events happen to an aggregate, which must still be at the version that was read;
    /// otherwise nothing is committed and the handler runs again, uncharged. What was read is what
    /// it will be then, so that more can be appended to it.
    pub fn append_to<A: Aggregate>(
        &mut self,
        id: &str,
        read: &mut Versioned<A>,
        events: &[A::Event],
    ) -> Result<(), EffectError> {
        if events.is_empty() {
            return Ok(());
        }
        let new = events
            .iter()
            .map(NewEvent::from_event)
            .collect::<Result<Vec<_>, _>>()?;
        self.append_events(A::ENTITY, id, read.version, &new)?;
        let before = read.version;
        events.iter().for_each(|event| read.state.apply(event));
        read.version += events.len() as u64;
        let every = A::SNAPSHOT_EVERY.max(1);
        if before / every == read.version / every {
            return Ok(());
        }
        let state =
            serde_json::to_vec(&read.state).map_err(|e| EffectError::Json(e.to_string()))?;
        let key = self.snapshot_key(A::ENTITY, id)?;
        let fields = [
            ("version", read.version.to_string().into_bytes()),
            ("shape", A::SHAPE.to_string().into_bytes()),
            ("state", state),
        ];
        let args = fields.into_iter().flat_map(|(n, v)| [n.into(), v]);
        self.effects
            .effect("HSET", &key, Some("hash"), args.collect())
    }

    /// Gives an aggregate a command: reads it, lets it decide, appends what it decided. A command
    /// that it refuses is rejected.
    pub async fn decide<A: Decide>(
        &mut self,
        id: &str,
        command: A::Command,
    ) -> Result<Versioned<A>, HandlerError> {
        let mut read = self.aggregate::<A>(id).await?;
        let events = read.state.decide(command).map_err(HandlerError::reject)?;
        self.append_to(id, &mut read, &events)?;
        Ok(read)
    }
}

/// An event as it is stored: its tag and its content apart.
#[derive(serde::Deserialize)]
struct Tagged {
    #[serde(rename = "type")]
    event_type: String,
    #[serde(default)]
    data: Option<Box<RawValue>>,
}

impl NewEvent {
    fn from_event(event: &impl Serialize) -> Result<Self, EffectError> {
        let json = serde_json::to_string(event).map_err(|e| EffectError::Json(e.to_string()))?;
        let Tagged { event_type, data } = serde_json::from_str(&json).map_err(|e| {
            EffectError::Json(format!(
                "an aggregate's event must be an enum with #[serde(tag = \"type\", content = \"data\")]: {e}"
            ))
        })?;
        let data = data.map_or_else(|| "null".to_owned(), |data| data.get().to_owned());
        Ok(Self { event_type, data })
    }
}

impl StoredEvent {
    /// The event as the aggregate's own type. One that this build cannot read may come from a newer
    /// one, so it is not rejected: an attempt is charged, and an updated worker may take it.
    fn as_event<E: DeserializeOwned>(&self) -> Result<E, HandlerError> {
        #[derive(Serialize)]
        struct Whole<'a> {
            #[serde(rename = "type")]
            event_type: &'a str,
            data: &'a RawValue,
        }
        let whole = Whole {
            event_type: &self.event_type,
            data: &self.data,
        };
        serde_json::to_string(&whole)
            .and_then(|json| serde_json::from_str(&json))
            .map_err(|e| {
                HandlerError::retry(format_args!(
                    "version {} of the history, {}, cannot be read by this build: {e}",
                    self.version, self.event_type
                ))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "type", content = "data")]
    enum Happened {
        #[serde(rename = "Door.Opened")]
        Opened { by: String },
        #[serde(rename = "Door.Closed")]
        Closed,
    }

    #[test]
    fn an_event_survives_being_stored_as_type_and_data() {
        for event in [Happened::Opened { by: "Ann".into() }, Happened::Closed] {
            let new = NewEvent::from_event(&event).unwrap();
            let stored = StoredEvent {
                version: 1,
                event_type: new.event_type,
                data: RawValue::from_string(new.data).unwrap(),
                at: jiff::Timestamp::UNIX_EPOCH,
                cause: None,
            };
            assert_eq!(stored.as_event::<Happened>().unwrap(), event);
        }
    }

    #[test]
    fn what_is_not_a_tagged_enum_is_refused() {
        let error = NewEvent::from_event(&7).unwrap_err();
        assert!(error.to_string().contains("content = \"data\""), "{error}");
    }
}
