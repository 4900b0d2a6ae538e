//! What a handler holds while it works on one delivery: reads, effects, follow-up events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::effects::{EffectError, Effects, quoted};
use crate::admission;
use crate::error::HandlerError;
use crate::event::Event;
use crate::event_type::EventType;
use crate::routing::Config;
use crate::store::{Keys, Redis, StoreError, loses_connection};

/// Reads from Redis, and collects effects and follow-up events.
///
/// Effects are applied when the handler has returned `Ok`, in one step with the
/// acknowledgement, in the order asked for; so a read does not see them yet. A value that was
/// read and must not have changed when they are applied is named with [`require`](Self::require).
pub struct Context {
    pub(super) env: Arc<Environment>,
    pub(super) event: Arc<Event>,
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

    pub(super) async fn query<T: redis::FromRedisValue>(
        &mut self,
        command: &redis::Cmd,
    ) -> Result<T, HandlerError> {
        // Redis away is nobody's fault: it must not charge an attempt.
        let away = |e: StoreError| HandlerError::redis_away(e);
        // A server that refuses new connections goes on with those that read events: only the
        // circuit breaker stops these.
        let unreachable =
            |e: StoreError| match e.redis().is_some_and(|cause| cause.code().is_some()) {
                true => HandlerError::unavailable(e),
                false => away(e),
            };
        // Given back at once: a handler that calls a slow service between two reads must not keep
        // others from reading.
        let mut connection = self.env.redis.pool().await.map_err(unreachable)?;
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
    /// causation are carried on; event time is now. In a rebuild it is left out:
    /// it was published when this event was first handled. Answers its id.
    pub fn publish(
        &mut self,
        event_type: &str,
        data: &impl Serialize,
    ) -> Result<Uuid, EffectError> {
        self.follow_up(event_type, data, None)
    }

    /// The same for an event that is not to be delivered before `at`, such as a deadline: it waits
    /// in `scheduled` (a time that has passed: it does not wait). Answers its id, the same in every
    /// run, to [`cancel_scheduled`](Self::cancel_scheduled) it by.
    pub fn publish_at(
        &mut self,
        event_type: &str,
        data: &impl Serialize,
        at: Timestamp,
    ) -> Result<Uuid, EffectError> {
        self.follow_up(event_type, data, Some(at))
    }

    /// Cancels a scheduled event, whoever published it. It does nothing if the event was delivered
    /// by then, or was not yet accepted by the router; so whoever handles a deadline must find it
    /// harmless when it arrives all the same: look whether it still matters.
    pub fn cancel_scheduled(&mut self, id: Uuid) -> Result<(), EffectError> {
        if self.is_rebuild() {
            return Ok(()); // it was cancelled when this event was first handled
        }
        let keys = &self.env.keys;
        let (due_times, events) = (keys.scheduled(), keys.scheduled_events());
        let id = id.to_string().into_bytes();
        self.effects
            .effect("ZREM", &due_times, Some("zset"), vec![id.clone()])?;
        self.effects.effect("HDEL", &events, Some("hash"), vec![id])
    }

    fn follow_up(
        &mut self,
        event_type: &str,
        data: &impl Serialize,
        at: Option<Timestamp>,
    ) -> Result<Uuid, EffectError> {
        let refused = |reason: String| EffectError::FollowUp {
            event_type: quoted(event_type),
            reason,
        };
        let name = EventType::parse(event_type).map_err(|e| refused(e.to_string()))?;
        let index = self.effects.follow_up_count();
        let unwritable = |e: serde_json::Error| EffectError::Json(e.to_string());
        let mut event = self
            .event
            .follow_up(&self.env.subscriber, index, &name, data)
            .map_err(unwritable)?;
        if let Some(at) = at {
            event = event.with_deliver_at(at);
        }
        if self.is_rebuild() {
            return Ok(event.id());
        }
        let json = serde_json::to_vec(&event).map_err(unwritable)?;
        // A chain that is too long is the router's to refuse: there it leaves a trace.
        admission::admit(&json, 0, &self.config).map_err(|e| refused(e.to_string()))?;
        self.effects.follow_up(json)?;
        Ok(event.id())
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
