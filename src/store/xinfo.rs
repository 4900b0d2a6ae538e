//! What XINFO says of streams, groups and consumers.

use std::collections::{BTreeMap, HashMap};

use redis::{FromRedisValue, ParsingError, Value};

use super::codec::{Entry, EntryId};
use super::scripts::{RELEASED, RETRY};

/// XINFO STREAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamInfo {
    /// Entries in it.
    pub length: u64,
    /// Entries that were ever added.
    pub added: u64,
    /// The newest ID, whether its entry is still there or not.
    pub last: EntryId,
    /// The oldest entry.
    pub first: Option<EntryId>,
}

/// XINFO GROUPS: how far each group has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupPositions(pub BTreeMap<String, Position>);

/// How far a group has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// What it was handed and has not settled.
    pub pending: u64,
    /// The last that it was handed.
    pub delivered: EntryId,
    /// What it has not read; unknown where Redis cannot tell.
    pub lag: Option<u64>,
}

/// XINFO CONSUMERS: one consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerInfo {
    /// Its name.
    pub name: String,
    /// What is in its name.
    pub pending: u64,
    /// Since it was last heard of, ms.
    pub idle_ms: u64,
}

/// What the consumers of a group have in their names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Workers have it.
    pub in_flight: u64,
    /// It waits for its next attempt.
    pub retrying: u64,
    /// It was given back unstarted.
    pub released: u64,
}

impl Held {
    /// Of all consumers of a group together.
    pub fn by(consumers: &[ConsumerInfo]) -> Self {
        let mut held = Self::default();
        for consumer in consumers {
            let of = match consumer.name.as_str() {
                RETRY => &mut held.retrying,
                RELEASED => &mut held.released,
                _ => &mut held.in_flight,
            };
            *of += consumer.pending;
        }
        held
    }
}

/// The fields of an answer, by name; later servers have more of them.
struct Named(HashMap<String, Value>);

impl Named {
    fn read(value: Value) -> Result<Self, ParsingError> {
        HashMap::from_redis_value(value).map(Self)
    }

    fn take<T: FromRedisValue>(&mut self, name: &str) -> Result<T, ParsingError> {
        T::from_redis_value(self.0.remove(name).unwrap_or(Value::Nil))
    }
}

impl FromRedisValue for StreamInfo {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let mut info = Named::read(value)?;
        let first: Option<Entry> = info.take("first-entry")?;
        Ok(Self {
            length: info.take("length")?,
            added: info.take("entries-added")?,
            last: info.take("last-generated-id")?,
            first: first.map(|entry| entry.id),
        })
    }
}

impl FromRedisValue for GroupPositions {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let groups = Vec::<Value>::from_redis_value(value)?;
        let position = |group| {
            let mut group = Named::read(group)?;
            let position = Position {
                pending: group.take("pending")?,
                delivered: group.take("last-delivered-id")?,
                lag: group.take("lag")?,
            };
            Ok((group.take("name")?, position))
        };
        groups
            .into_iter()
            .map(position)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl FromRedisValue for ConsumerInfo {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let mut consumer = Named::read(value)?;
        Ok(Self {
            name: consumer.take("name")?,
            pending: consumer.take("pending")?,
            idle_ms: consumer.take("idle")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn a_lag_that_redis_does_not_know_stays_unknown() {
        let group = |lag: Value| {
            Value::Array(vec![
                bulk("name"),
                bulk("a-service"),
                bulk("pending"),
                Value::Int(2),
                bulk("last-delivered-id"),
                bulk("7-1"),
                bulk("lag"),
                lag,
            ])
        };
        let read = |lag| {
            let reply = Value::Array(vec![group(lag)]);
            GroupPositions::from_redis_value(reply).unwrap().0["a-service"]
        };
        let at = read(Value::Nil);
        assert_eq!((at.pending, at.lag), (2, None));
        assert_eq!(at.delivered, EntryId { ms: 7, seq: 1 });
        assert_eq!(read(Value::Int(0)).lag, Some(0));
    }

    #[test]
    fn what_waits_is_told_from_what_is_worked_on() {
        let one = |name: &str, pending| ConsumerInfo {
            name: name.to_owned(),
            pending,
            idle_ms: 0,
        };
        let held = Held::by(&[
            one("a.1", 3),
            one(RETRY, 2),
            one(RELEASED, 1),
            one("b.1", 4),
        ]);
        let expected = Held {
            in_flight: 7,
            retrying: 2,
            released: 1,
        };
        assert_eq!(held, expected);
    }
}
