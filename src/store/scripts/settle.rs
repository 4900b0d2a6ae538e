//! What ends a delivery. Each call is fenced: on a delivery that is another's it changes no byte.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, ParsingError, RedisError, Value};

use super::super::codec::Fields;
use super::call::{Call, Script};
use super::{
    ACK, BEYOND_ANY_LEASE_MS, COMMIT, DEAD_LETTER, Fence, Holder, PARK, RELEASED, RETRY, flag,
    push_fields,
};

/// What became of an attempt to settle a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It was ours and is settled now.
    Done,
    /// It is not pending any more. After a resend: the first send did it.
    Gone,
    /// It belongs to another consumer by now; nothing was written.
    Fenced,
    /// Its entry was deleted under us.
    Lost,
}

impl FromRedisValue for Settled {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let text = String::from_redis_value(value)?;
        Self::parse(&text)
            .ok_or_else(|| format!("unknown answer {text:?} of a settle script").into())
    }
}

impl Settled {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "HELD" => Self::Done,
            "GONE" => Self::Gone,
            "FENCED" => Self::Fenced,
            "LOST" => Self::Lost,
            _ => return None,
        })
    }
}

/// What became of a commit with effects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    /// As for every settle.
    Settled(Settled),
    /// A condition no longer held; nothing was written.
    Conflict,
    /// An effect could not be applied; nothing was written. Why.
    Invalid(String),
    /// Redis would not run it (an ACL, a key of ours with the wrong type): to be sent again.
    Refused(String),
}

/// A commit with effects, of one delivery.
#[derive(Clone, Debug)]
pub struct CommitRequest {
    /// Which delivery.
    pub fence: Fence,
    /// Whether it has a record in `attempts`.
    pub troubled: bool,
    /// What is to happen with it.
    pub asked: Asked,
}

/// What a handler asked for, as `commit.lua` reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// How many conditions there are.
    pub conditions: usize,
    /// How many effects there are.
    pub effects: usize,
    /// How many follow-ups there are.
    pub follow_ups: usize,
    /// Whether a history of the event store is appended to.
    pub appends: bool,
    /// The key of each condition, then of each effect.
    pub keys: Vec<String>,
    /// The values of the conditions, of the effects, of the follow-ups.
    pub values: Vec<Vec<u8>>,
}

/// What became of a batch of acknowledgements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AckCounts {
    /// Settled by this call.
    pub done: usize,
    /// Settled before.
    pub gone: usize,
    /// Another consumer's by now; nothing was written.
    pub fenced: usize,
}

impl FromRedisValue for Committed {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let words = match value {
            Value::Array(words) => Vec::from_redis_value(Value::Array(words))?,
            word => vec![String::from_redis_value(word)?],
        };
        let mut words = words.into_iter();
        let word = words.next().unwrap_or_default();
        match (word.as_str(), Settled::parse(&word)) {
            (_, Some(settled)) => Ok(Self::Settled(settled)),
            ("CONFLICT", _) => Ok(Self::Conflict),
            ("INVALID", _) => Ok(Self::Invalid(words.next().unwrap_or_default())),
            ("ERROR", _) => Ok(Self::Refused(words.next().unwrap_or_default())),
            _ => Err(format!("unknown answer {word:?} of the commit script").into()),
        }
    }
}

/// A delivery that is to be tried again later.
#[derive(Clone, Debug)]
pub struct Parked {
    /// Which delivery.
    pub fence: Fence,
    /// After how many milliseconds.
    pub delay_ms: u64,
    /// The log of recorded failures; empty leaves what is there.
    pub log: String,
    /// The marked starts before this run, which had an outcome; `None` leaves what is there.
    pub starts: Option<u32>,
}

impl Holder {
    /// A script on this group's stream and its record of troubled deliveries.
    pub(super) fn settle<'a>(&'a self, script: &'a Script) -> Call<'a> {
        let mut call = script.key(&self.stream);
        call.key(&self.attempts);
        call
    }

    /// Acknowledges deliveries without effects, in the order of their IDs; with each, whether it
    /// has a record in `attempts`.
    pub async fn ack(
        &self,
        connection: &mut MultiplexedConnection,
        deliveries: &[(Fence, bool)],
    ) -> Result<AckCounts, RedisError> {
        let mut call = self.settle(&ACK);
        call.reserve(4 + deliveries.len(), 32 * deliveries.len());
        call.arg(&self.group)
            .arg(&self.consumer)
            .arg(flag(self.delete_settled));
        // A script pays for each argument: of what is as ever, the ID is enough.
        let plain = |&&(fence, troubled): &&(Fence, bool)| fence.count == 1 && !troubled;
        let other = |delivery: &&(Fence, bool)| !plain(delivery);
        call.arg(deliveries.iter().filter(other).count());
        for (fence, _) in deliveries.iter().filter(other) {
            call.arg(fence.id).arg(fence.count);
        }
        for (fence, _) in deliveries.iter().filter(plain) {
            call.arg(fence.id);
        }
        let (done, gone, fenced) = call.invoke_async(connection).await?;
        Ok(AckCounts { done, gone, fenced })
    }

    /// Commits deliveries with their effects, in the order of their IDs: each by itself, wholly
    /// or not at all.
    pub async fn commit(
        &self,
        connection: &mut MultiplexedConnection,
        inbox: &str,
        commits: &[Arc<CommitRequest>],
    ) -> Result<Vec<Committed>, RedisError> {
        let mut call = self.settle(&COMMIT);
        call.key(inbox);
        for commit in commits {
            call.key(&commit.asked.keys);
        }
        call.arg(&self.group)
            .arg(&self.consumer)
            .arg(flag(self.delete_settled));
        for commit in commits {
            let Asked {
                conditions,
                effects,
                follow_ups,
                values,
                ..
            } = &commit.asked;
            let shape = format!(
                "{} {} {conditions} {effects} {follow_ups} {}",
                commit.fence.count,
                flag(commit.troubled),
                values.len()
            );
            call.arg(commit.fence.id).arg(shape).arg(values);
        }
        call.invoke_async(connection).await
    }

    /// Hands deliveries to the consumer [`RETRY`], from which they come back after their delay.
    pub async fn retry_later(
        &self,
        connection: &mut MultiplexedConnection,
        lease_ms: u64,
        deliveries: &[Parked],
    ) -> Result<Vec<Settled>, RedisError> {
        self.park(connection, RETRY, lease_ms, deliveries).await
    }

    /// Hands deliveries to the consumer [`RELEASED`], from which anyone may claim them at once.
    /// With the marked starts before this run, as in [`Parked`].
    pub async fn release(
        &self,
        connection: &mut MultiplexedConnection,
        deliveries: &[(Fence, Option<u32>)],
    ) -> Result<Vec<Settled>, RedisError> {
        let parked: Vec<_> = deliveries
            .iter()
            .map(|&(fence, starts)| Parked {
                fence,
                delay_ms: 0,
                log: String::new(),
                starts,
            })
            .collect();
        self.park(connection, RELEASED, BEYOND_ANY_LEASE_MS, &parked)
            .await
    }

    async fn park(
        &self,
        connection: &mut MultiplexedConnection,
        target: &str,
        lease_ms: u64,
        deliveries: &[Parked],
    ) -> Result<Vec<Settled>, RedisError> {
        let mut call = self.settle(&PARK);
        call.key(&self.stats)
            .arg(&self.group)
            .arg(&self.consumer)
            .arg(target)
            .arg(lease_ms);
        for parked in deliveries {
            call.arg(parked.fence.id).arg(parked.fence.count);
            call.arg(parked.delay_ms)
                .arg(&parked.log)
                .arg(parked.starts.map(|n| n.to_string()).unwrap_or_default());
        }
        call.invoke_async(connection).await
    }

    /// Gives a delivery up; `letter` are the fields of the dead letter.
    pub async fn dead_letter(
        &self,
        connection: &mut MultiplexedConnection,
        fence: Fence,
        dead: &str,
        letter: &Fields,
    ) -> Result<Settled, RedisError> {
        let mut call = self.settle(&DEAD_LETTER);
        call.key(dead);
        call.arg(&self.group)
            .arg(&self.consumer)
            .arg(fence.id)
            .arg(fence.count);
        call.arg(flag(self.delete_settled));
        push_fields(&mut call, letter);
        call.invoke_async(connection).await
    }
}
