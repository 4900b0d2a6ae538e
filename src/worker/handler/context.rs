//! What a handler holds while it works on one delivery: reads, effects, follow-up events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::effects::{EffectError, Effects, quoted};
use super::history::{History, NewEvent, StoredEvent};
use crate::admission;
use crate::error::HandlerError;
use crate::event::Event;
use crate::event_type::EventType;
use crate::routing::Config;
use crate::store::{Entry, Keys, Redis, StoreError, loses_connection};

/// Reads from Redis, and collects effects and follow-up events.
///
/// Effects are applied when the handler has returned `Ok`, in one step with the
/// acknowledgement, in the order asked for; so a read does not see them yet. A value that was
/// read and must not have changed when they are applied is named with [`require`](Self::require).
pub struct Context {
    env: Arc<Environment>,
    event: Arc<Event>,
    config: Arc<Config>,
    attempt: u32,
    heeds_stop: bool,
    pub(crate) effects: Effects,
}

/// What all contexts of one worker share.
pub(crate) struct Environment {
    pub(crate) redis: Redis,
    pub(crate) keys: Keys,
    /// The name in routing.yaml.
    pub(crate) subscriber: Arc<str>,
    /// The group that is read, which is also the prefix of the effects: the subscriber, or in a
    /// rebuild its shadow.
    pub(crate) group: Arc<str>,
    /// Fires when the process stops reading.
    pub(crate) stop: CancellationToken,
}

impl Environment {
    pub(crate) fn is_rebuild(&self) -> bool {
        self.group != self.subscriber
    }
}

impl Context {
    pub(crate) fn new(
        env: Arc<Environment>,
        config: Arc<Config>,
        event: Arc<Event>,
        attempt: u32,
    ) -> Self {
        Self {
            env,
            event,
            config,
            attempt,
            heeds_stop: false,
            effects: Effects::default(),
        }
    }

    /// Which attempt this is, from 1: recorded failures + 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The same for every run for this event and subscriber: give it to outside systems that
    /// can recognise a repeated call.
    pub fn idempotency_key(&self) -> String {
        format!("{}:{}", self.env.subscriber, self.event.id())
    }

    /// Whether this is history that is run again to rebuild a read model (see
    /// [`Handler::READ_MODEL`](super::Handler::READ_MODEL)): whoever cares for events as they
    /// happen was told then.
    pub fn is_rebuild(&self) -> bool {
        self.env.is_rebuild()
    }

    /// Completes when the process stops: a long handler may then return early with an error.
    /// Having asked for this, it is not charged for it; the event is given to another worker.
    pub fn stopping(&mut self) -> impl Future<Output = ()> + Send + use<> {
        self.heeds_stop = true;
        self.env.stop.clone().cancelled_owned()
    }

    /// Whether the handler returned early because the process stops.
    pub(crate) fn gave_way(&self) -> bool {
        self.heeds_stop && self.env.stop.is_cancelled()
    }

    // --- reads -------------------------------------------------------------------------------

    async fn query<T: redis::FromRedisValue>(
        &mut self,
        command: &redis::Cmd,
    ) -> Result<T, HandlerError> {
        // Redis away is nobody's fault: it must not charge an attempt.
        let away = |e: StoreError| HandlerError::redis_away(e);
        // Given back at once: a handler that calls a slow service between two reads must not keep
        // others from reading.
        let mut connection = self.env.redis.pool().await.map_err(away)?;
        command.query_async(&mut connection).await.map_err(|e| {
            let wrong_type = e.code() == Some("WRONGTYPE");
            let lost = loses_connection(&e);
            let e = self.env.redis.error(e);
            if wrong_type {
                // Redis does not say which key it was.
                let key = match command.args_iter().nth(1) {
                    Some(redis::Arg::Simple(key)) => String::from_utf8_lossy(key),
                    _ => "?".into(),
                };
                HandlerError::retry(format_args!("key {key}: {e}"))
            } else if lost {
                away(e)
            } else {
                HandlerError::unavailable(e)
            }
        })
    }

    fn own(&self, key: &str) -> String {
        self.env.keys.effect(&self.env.group, key)
    }

    /// A string.
    pub async fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>, HandlerError> {
        let key = self.own(key);
        self.query(redis::cmd("GET").arg(key)).await
    }

    /// One field of a hash.
    pub async fn hash_get(
        &mut self,
        key: &str,
        field: &str,
    ) -> Result<Option<Vec<u8>>, HandlerError> {
        let key = self.own(key);
        self.query(redis::cmd("HGET").arg(key).arg(field)).await
    }

    /// All fields of a hash.
    pub async fn hash_get_all(
        &mut self,
        key: &str,
    ) -> Result<BTreeMap<String, Vec<u8>>, HandlerError> {
        let key = self.own(key);
        self.query(redis::cmd("HGETALL").arg(key)).await
    }

    /// The value that [`set_if_newer`](Self::set_if_newer) keeps.
    pub async fn newest(&mut self, key: &str) -> Result<Option<Vec<u8>>, HandlerError> {
        self.hash_get(key, "value").await
    }

    /// Whether a set has a member.
    pub async fn is_member(
        &mut self,
        key: &str,
        member: impl AsRef<[u8]>,
    ) -> Result<bool, HandlerError> {
        let key = self.own(key);
        self.query(redis::cmd("SISMEMBER").arg(key).arg(member.as_ref()))
            .await
    }

    /// An entity's history from a version on (1 for all of it).
    pub async fn load(
        &mut self,
        entity: &str,
        id: &str,
        from_version: u64,
    ) -> Result<History, HandlerError> {
        let key = self.entity_key(entity, id)?;
        let entries: Vec<Entry> = self
            .query(redis::cmd("XRANGE").arg(&key).arg(from_version).arg("+"))
            .await?;
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

    // --- effects -----------------------------------------------------------------------------

    fn effect(
        &mut self,
        command: &'static str,
        key: &str,
        kind: Option<&'static str>,
        args: impl IntoIterator<Item = Vec<u8>>,
    ) -> Result<(), EffectError> {
        if key.is_empty() {
            return Err(EffectError::BadKey(String::new()));
        }
        let key = self.own(key);
        self.effects
            .effect(command, &key, kind, args.into_iter().collect())
    }

    /// Sets a string.
    pub fn set(&mut self, key: &str, value: impl Into<Vec<u8>>) -> Result<(), EffectError> {
        self.effect("SET", key, Some("string"), [value.into()])
    }

    /// Deletes a key of any type.
    pub fn delete(&mut self, key: &str) -> Result<(), EffectError> {
        self.effect("DEL", key, None, [])
    }

    /// Lets a key expire.
    pub fn expire(&mut self, key: &str, after: Duration) -> Result<(), EffectError> {
        const CENTURY_MS: u128 = 100 * 366 * 24 * 3600 * 1000;
        let ms = after.as_millis();
        if ms == 0 || ms > CENTURY_MS {
            return Err(EffectError::BadExpiry);
        }
        self.effect("PEXPIRE", key, None, [ms.to_string().into_bytes()])
    }

    /// Sets one field of a hash.
    pub fn hash_set(
        &mut self,
        key: &str,
        field: &str,
        value: impl Into<Vec<u8>>,
    ) -> Result<(), EffectError> {
        self.effect("HSET", key, Some("hash"), [field.into(), value.into()])
    }

    /// Adds to an integer field of a hash.
    pub fn hash_increment(&mut self, key: &str, field: &str, by: i64) -> Result<(), EffectError> {
        let by = integer(by)?;
        self.effect("HINCRBY", key, Some("hash"), [field.into(), by])
    }

    /// Deletes one field of a hash.
    pub fn hash_delete(&mut self, key: &str, field: &str) -> Result<(), EffectError> {
        self.effect("HDEL", key, Some("hash"), [field.into()])
    }

    /// Adds a member to a set.
    pub fn set_add(&mut self, key: &str, member: impl AsRef<[u8]>) -> Result<(), EffectError> {
        self.effect("SADD", key, Some("set"), [member.as_ref().to_vec()])
    }

    /// Removes a member from a set.
    pub fn set_remove(&mut self, key: &str, member: impl AsRef<[u8]>) -> Result<(), EffectError> {
        self.effect("SREM", key, Some("set"), [member.as_ref().to_vec()])
    }

    /// Gives a member of a sorted set a score.
    pub fn sorted_set_add(
        &mut self,
        key: &str,
        member: impl AsRef<[u8]>,
        score: f64,
    ) -> Result<(), EffectError> {
        let score = finite(score)?;
        self.effect("ZADD", key, Some("zset"), [score, member.as_ref().to_vec()])
    }

    /// Adds to the score of a member of a sorted set.
    pub fn sorted_set_increment(
        &mut self,
        key: &str,
        member: impl AsRef<[u8]>,
        by: f64,
    ) -> Result<(), EffectError> {
        let by = finite(by)?;
        self.effect("ZINCRBY", key, Some("zset"), [by, member.as_ref().to_vec()])
    }

    /// Adds to a counter.
    pub fn increment(&mut self, key: &str, by: i64) -> Result<(), EffectError> {
        let by = integer(by)?;
        self.effect("INCRBY", key, Some("string"), [by])
    }

    /// Appends an entry to a stream of one's own.
    pub fn append(
        &mut self,
        key: &str,
        fields: &[(&str, impl AsRef<[u8]>)],
    ) -> Result<(), EffectError> {
        if fields.is_empty() {
            return Err(EffectError::Empty);
        }
        let pairs = fields
            .iter()
            .flat_map(|(name, value)| [name.as_bytes().to_vec(), value.as_ref().to_vec()]);
        self.effect(
            "XADD",
            key,
            Some("stream"),
            std::iter::once(b"*".to_vec()).chain(pairs),
        )
    }

    /// Keeps the value with the newest event time, whatever the order in which events arrive;
    /// of two with the same time, the one whose event has the greater ID. Read it with
    /// [`newest`](Self::newest); in Redis it is the field `value` of a hash.
    pub fn set_if_newer(
        &mut self,
        key: &str,
        event_time: Timestamp,
        value: impl Into<Vec<u8>>,
    ) -> Result<(), EffectError> {
        let at = event_time.as_microsecond().to_string().into_bytes();
        let by = self.event.id().to_string().into_bytes();
        self.effect("NEWER", key, Some("hash"), [value.into(), at, by])
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
        self.effects.append(&key, expected_version, events)
    }

    /// Commits only if the string still has the value that was read (`None`: it is absent);
    /// otherwise the handler runs again, uncharged.
    pub fn require(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), EffectError> {
        let key = self.own(key);
        self.effects.require(&key, value)
    }

    /// The same for one field of a hash.
    pub fn require_hash(
        &mut self,
        key: &str,
        field: &str,
        value: Option<&[u8]>,
    ) -> Result<(), EffectError> {
        let key = self.own(key);
        self.effects.require_field(&key, field, value)
    }

    /// Publishes a follow-up event: it exists if and only if this delivery is committed. Its
    /// id is derived from this event, so that it is the same in every run; correlation and
    /// causation are carried on; event time is now. In a rebuild it is checked, and then left out:
    /// it was published when this event was first handled.
    pub fn publish(&mut self, event_type: &str, data: &impl Serialize) -> Result<(), EffectError> {
        let refused = |reason: String| EffectError::FollowUp {
            event_type: quoted(event_type),
            reason,
        };
        let name = EventType::parse(event_type).map_err(|e| refused(e.to_string()))?;
        let index = self.effects.follow_up_count();
        let json = self
            .event
            .follow_up(&self.env.subscriber, index, &name, data)
            .and_then(|event| serde_json::to_vec(&event))
            .map_err(|e| EffectError::Json(e.to_string()))?;
        // A chain that is too long is the router's to refuse: there it leaves a trace.
        admission::admit(&json, 0, &self.config).map_err(|e| refused(e.to_string()))?;
        if self.is_rebuild() {
            return Ok(());
        }
        self.effects.follow_up(json)
    }

    fn entity_key(&self, entity: &str, id: &str) -> Result<String, EffectError> {
        let plain = |t: &str| {
            !t.is_empty()
                && t.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        match plain(entity) && plain(id) {
            true => Ok(self.env.keys.entity(entity, id)),
            false => Err(EffectError::BadEntity(quoted(&format!("{entity}:{id}")))),
        }
    }
}

fn integer(by: i64) -> Result<Vec<u8>, EffectError> {
    const MAX: u64 = 1 << 53;
    if by.unsigned_abs() >= MAX {
        Err(EffectError::BadInteger(by))
    } else {
        Ok(by.to_string().into_bytes())
    }
}

fn finite(score: f64) -> Result<Vec<u8>, EffectError> {
    if score.is_finite() {
        Ok(score.to_string().into_bytes())
    } else {
        Err(EffectError::BadScore(score.to_string()))
    }
}
