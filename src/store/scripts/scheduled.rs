//! Events that are to be delivered later: what is due, and moving it on.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, ParsingError, RedisError, Value};

use super::super::codec::Fields;
use super::{CANCEL_SCHEDULED, DELIVER, DUE, REFUSE_DUE, push_fields};

/// What is due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DueEvents {
    /// The time by the clock of Redis, milliseconds since 1970.
    pub now_ms: u64,
    /// When the next one that is not among them is due; perhaps it is already.
    pub next_ms: Option<u64>,
    /// The oldest of them.
    pub events: Vec<Due>,
}

/// A due event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its event ID.
    pub id: Vec<u8>,
    /// The length of the chain of follow-ups and the bytes as received; nothing if somebody
    /// deleted it by hand.
    pub kept: Option<(u32, Vec<u8>)>,
}

/// A due event that goes to a domain stream.
#[derive(Clone, Debug)]
pub struct Deliver {
    /// Its event ID.
    pub id: Vec<u8>,
    /// Its type.
    pub event_type: String,
    /// Comma-separated subscribers.
    pub to: Arc<str>,
    /// Length of the chain of follow-ups.
    pub hops: u32,
    /// The bytes as received.
    pub event: Vec<u8>,
    /// Who published it, if that is audited and known.
    pub source: Option<String>,
}

/// A due event that is refused.
#[derive(Clone, Debug)]
pub struct RefuseDue {
    /// Its event ID.
    pub id: Vec<u8>,
    /// The fields of the dead letter.
    pub letter: Fields,
    /// Who published it, if that is known.
    pub source: Option<String>,
}

/// Keys of the scheduled events and of what the scripts that move them write beside them.
#[derive(Clone, Copy, Debug)]
pub struct ScheduledKeys<'a> {
    /// When each is due, and what it is.
    pub scheduled: [&'a str; 2],
    /// The counters.
    pub stats: &'a str,
    /// The audit, if there is to be one.
    pub audit: Option<&'a str>,
    /// Now, RFC 3339.
    pub now: &'a str,
}

impl FromRedisValue for DueEvents {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let mut answer = Vec::<Value>::from_redis_value(value)?.into_iter();
        let mut next = || answer.next().unwrap_or(Value::Nil);
        let now_ms = u64::from_redis_value(next())?;
        let next_ms = String::from_redis_value(next())?;
        let mut events = Vec::new();
        while let (Some(id), Some(kept)) = (answer.next(), answer.next()) {
            let kept = Option::<Vec<u8>>::from_redis_value(kept)?;
            events.push(Due {
                id: Vec::from_redis_value(id)?,
                kept: kept.map(unpack),
            });
        }
        Ok(Self {
            now_ms,
            next_ms: next_ms.parse().ok().map(|ms: f64| ms as u64),
            events,
        })
    }
}

/// Takes `<hops> <content hash> <JSON>` apart, as `route.lua` writes it. What was written by
/// somebody else is an event as it is: then it is refused as one, and kept.
fn unpack(mut kept: Vec<u8>) -> (u32, Vec<u8>) {
    let mut words = kept.splitn(3, |byte| *byte == b' ');
    let (hops, hash, event) = (words.next(), words.next(), words.next());
    let number = hops.and_then(|hops| std::str::from_utf8(hops).ok()?.parse().ok());
    match (number, hash, event) {
        (Some(hops), Some(_), Some(event)) => {
            let start = kept.len() - event.len();
            (hops, kept.split_off(start))
        }
        _ => (0, kept),
    }
}

/// The oldest due events, of at most so many bytes.
pub async fn due_events(
    connection: &mut MultiplexedConnection,
    scheduled: [&str; 2],
    most: usize,
    bytes: usize,
) -> Result<DueEvents, RedisError> {
    let mut call = DUE.key(&scheduled[..]);
    call.arg(most).arg(bytes).invoke_async(connection).await
}

/// Moves due events to a stream. Answers how many were still there.
pub async fn deliver(
    connection: &mut MultiplexedConnection,
    keys: ScheduledKeys<'_>,
    stream: &str,
    events: &[Deliver],
) -> Result<u64, RedisError> {
    let mut call = DELIVER.key(&keys.scheduled[..]);
    call.key(keys.stats).key(stream).key(keys.audit);
    call.arg(keys.now);
    for event in events {
        call.arg(event.id.as_slice()).arg(&event.event_type);
        call.arg(&*event.to).arg(event.hops);
        call.arg(event.event.as_slice());
        call.arg(event.source.as_deref().unwrap_or_default());
    }
    call.invoke_async(connection).await
}

/// Moves due events to the dead letters. Answers how many were still there. `seen`: the buckets
/// that may remember them.
pub async fn refuse_due(
    connection: &mut MultiplexedConnection,
    keys: ScheduledKeys<'_>,
    dead: &str,
    seen: &[String],
    events: &[RefuseDue],
) -> Result<u64, RedisError> {
    let mut call = REFUSE_DUE.key(&keys.scheduled[..]);
    call.key(keys.stats).key(dead).key(seen).key(keys.audit);
    call.arg(keys.now).arg(seen.len());
    for RefuseDue { id, letter, source } in events {
        call.arg(id.as_slice());
        call.arg(source.as_deref().unwrap_or_default());
        call.arg(letter.0.len() * 2);
        push_fields(&mut call, letter);
    }
    call.invoke_async(connection).await
}

/// Cancels scheduled events; answers for each whether it was scheduled.
pub async fn cancel_scheduled(
    connection: &mut MultiplexedConnection,
    scheduled: [&str; 2],
    ids: &[Vec<u8>],
) -> Result<Vec<bool>, RedisError> {
    let mut call = CANCEL_SCHEDULED.key(&scheduled[..]);
    for id in ids {
        call.arg(id.as_slice());
    }
    call.invoke_async(connection).await
}

/// Scheduled events by rank, the one that is due first being the first; with each, when it is due
/// (milliseconds since 1970).
pub async fn list_scheduled(
    connection: &mut MultiplexedConnection,
    scheduled: [&str; 2],
    from: usize,
    most: usize,
) -> Result<Vec<(Due, u64)>, RedisError> {
    let [due_times, events] = scheduled;
    let mut range = redis::cmd("ZRANGE");
    range.arg(due_times).arg(from);
    range.arg(from + most.saturating_sub(1)).arg("WITHSCORES");
    let ids: Vec<(Vec<u8>, f64)> = range.query_async(connection).await?;
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut get = redis::cmd("HMGET");
    get.arg(events);
    for (id, _) in &ids {
        get.arg(id.as_slice());
    }
    let kept: Vec<Option<Vec<u8>>> = get.query_async(connection).await?;
    let listed = ids.into_iter().zip(kept).map(|((id, due_ms), kept)| {
        let kept = kept.map(unpack);
        (Due { id, kept }, due_ms as u64)
    });
    Ok(listed.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_taken_apart_and_what_is_foreign_stays_whole() {
        let unpack = |text: &str| {
            let (hops, event) = unpack(text.as_bytes().to_vec());
            (hops, String::from_utf8(event).unwrap())
        };
        assert_eq!(unpack("3 abc {\"a\": 1 }"), (3, "{\"a\": 1 }".into()));
        for foreign in ["{\"a\": 1, \"b\": 2}", "", "x y z", "3 abc", "-1 a b"] {
            assert_eq!(unpack(foreign), (0, foreign.into()));
        }
    }
}
