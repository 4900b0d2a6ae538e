//! What is owed: every delivery that a group has not settled, who holds it, and how it fared.
//!
//! Redis: reads the groups' pending lists, `attempts:…` and the entries themselves; writes nothing,
//! and bumps no delivery count.

use jiff::Timestamp;
use redis::{FromRedisValue, Value};
use serde::Serialize;

use super::read::{Answers, ask};
use crate::fleet;
use crate::store::{Entry, EntryId, Keys, Link, RELEASED, RETRY, StoreError, StreamField};
use crate::time::from_ms;
use crate::worker::AttemptLog;

/// Who has a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Holder {
    /// A process, by the name of its consumer; it may be dead.
    Worker(String),
    /// Nobody: it waits for its next attempt.
    Retry,
    /// Nobody: a process gave it back unstarted, and anyone takes it at once.
    Released,
}

/// A delivery that is owed.
#[derive(Clone, Debug, Serialize)]
pub struct Owed {
    /// The stream, without namespace.
    pub stream: String,
    /// To whom.
    pub subscriber: String,
    /// Its entry ID.
    pub entry: String,
    /// Its event ID; nothing if the entry is gone.
    pub event_id: Option<String>,
    /// Its event type.
    pub event_type: Option<String>,
    /// Who has it.
    pub holder: Holder,
    /// Since when it is in the stream.
    pub since: Timestamp,
    /// How long ago its holder took it or gave a sign of life, ms; nothing while nobody holds it.
    pub idle_ms: Option<u64>,
    /// The attempt that runs, or comes next.
    pub attempt: u64,
    /// Starts that were never heard of again: a process died, or this event killed it.
    pub starts: u64,
    /// When the next attempt is due, if it waits for one.
    pub due: Option<Timestamp>,
    /// When the last attempt failed.
    pub failed_at: Option<Timestamp>,
    /// What it said.
    pub error: Option<String>,
}

/// One row of XPENDING.
struct Row {
    id: EntryId,
    consumer: String,
    idle_ms: u64,
}

/// The oldest deliveries that are owed, of one subscriber or of all, `limit` at most; and whether
/// there are more.
///
/// # Errors
/// Redis could not be asked.
pub async fn owed(
    link: &Link,
    keys: &Keys,
    subscriber: Option<&str>,
    limit: usize,
) -> Result<(Vec<Owed>, bool), StoreError> {
    let groups = fleet::group_records(link, keys).await?.into_keys();
    let mut groups: Vec<_> = groups
        .filter(|(_, group)| subscriber.is_none_or(|name| name == group))
        .collect();
    groups.sort();
    let mut pipeline = redis::pipe();
    for (stream, group) in &groups {
        pipeline.cmd("XPENDING").arg(keys.stream(stream)).arg(group);
        pipeline.arg("-").arg("+").arg(limit.saturating_add(1));
    }
    let mut answers = Answers(ask(link, pipeline).await?.into_iter());
    let mut rows = Vec::new();
    for (stream, group) in &groups {
        let found: Option<Vec<(EntryId, String, u64, u64)>> =
            answers.take().map_err(|e| link.redis().error(e))?;
        let found = found.unwrap_or_default().into_iter();
        rows.extend(found.map(|(id, consumer, idle_ms, _)| {
            let row = Row {
                id,
                consumer,
                idle_ms,
            };
            (stream, group, row)
        }));
    }
    rows.sort_by(|a, b| (a.2.id, a.0, a.1).cmp(&(b.2.id, b.0, b.1)));
    let more = rows.len() > limit;
    rows.truncate(limit);

    let mut pipeline = redis::pipe();
    for (stream, group, Row { id, .. }) in &rows {
        pipeline.cmd("HMGET").arg(keys.attempts(stream, group));
        pipeline.arg(id.to_string());
        pipeline
            .arg(format!("{id}:due"))
            .arg(format!("{id}:starts"));
        pipeline
            .cmd("XRANGE")
            .arg(keys.stream(stream))
            .arg(id)
            .arg(id);
    }
    let mut answers = Answers(ask(link, pipeline).await?.into_iter());
    let mut owed = Vec::with_capacity(rows.len());
    for (stream, group, row) in rows {
        let one = describe(stream, group, row, &mut answers);
        owed.push(one.map_err(|e| link.redis().error(e))?);
    }
    Ok((owed, more))
}

fn describe(
    stream: &str,
    subscriber: &str,
    row: Row,
    answers: &mut Answers,
) -> Result<Owed, redis::RedisError> {
    let [log, due, starts]: [Option<Value>; 3] = answers.take()?.unwrap_or_default();
    let entry: Option<Vec<Entry>> = answers.take()?;
    let entry = entry.and_then(|entries| entries.into_iter().next());
    let bytes = |value: Value| Vec::<u8>::from_redis_value(value).unwrap_or_default();
    let number = |value: Option<Value>| value.and_then(|v| u64::from_redis_value(v).ok());
    let log = log.map(|log| AttemptLog::parse(&bytes(log)));
    let failures = log.unwrap_or_default().0;
    let last = failures.last();
    let text = |name| {
        let entry = entry.as_ref()?;
        entry.fields.text(name).map(str::to_owned)
    };
    let holder = match row.consumer.as_str() {
        RETRY => Holder::Retry,
        RELEASED => Holder::Released,
        _ => Holder::Worker(row.consumer),
    };
    Ok(Owed {
        stream: stream.to_owned(),
        subscriber: subscriber.to_owned(),
        entry: row.id.to_string(),
        event_id: text(StreamField::ID),
        event_type: text(StreamField::TYPE),
        since: from_ms(row.id.ms).unwrap_or_default(),
        idle_ms: matches!(holder, Holder::Worker(_)).then_some(row.idle_ms),
        attempt: failures.len() as u64 + 1,
        starts: number(starts).unwrap_or(0),
        due: number(due)
            .filter(|_| holder == Holder::Retry)
            .and_then(from_ms),
        failed_at: last.map(|attempt| attempt.at),
        error: last.map(|attempt| attempt.error.clone()),
        holder,
    })
}
