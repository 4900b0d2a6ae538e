//! Asking Redis: one pipeline for everything that must be true of one moment, and its answers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use redis::{FromRedisValue, Pipeline, RedisError, Value};

use super::StoreSize;
use crate::fleet::control::Control;
use crate::fleet::{INBOX, ROUTER};
use crate::routing::Routing;
use crate::store::{Entry, EntryId, GroupPositions, Keys, Link, Position, StoreError, refuses_key};

/// Runs a pipeline whose commands may fail one by one: a stream that is not there has no groups.
pub(crate) async fn ask(link: &Link, mut pipeline: Pipeline) -> Result<Vec<Value>, StoreError> {
    if pipeline.is_empty() {
        return Ok(Vec::new());
    }
    pipeline.ignore_errors();
    link.run(|mut c| async move { pipeline.query_async(&mut c).await })
        .await
}

/// The answers of a pipeline, in order.
pub(crate) struct Answers(pub(crate) std::vec::IntoIter<Value>);

impl Answers {
    /// The next one; nothing if what it asks about does not exist.
    pub(crate) fn take<T: FromRedisValue>(&mut self) -> Result<Option<T>, RedisError> {
        match self.0.next().unwrap_or(Value::Nil) {
            Value::Nil => Ok(None),
            Value::ServerError(error) => match RedisError::from(error) {
                error if error.code() == Some("NOGROUP") => Ok(None),
                error if error.detail().is_some_and(|d| d.contains("no such key")) => Ok(None),
                error => Err(error),
            },
            value => Ok(Some(T::from_redis_value(value)?)),
        }
    }

    pub(super) fn number(&mut self) -> Result<u64, RedisError> {
        Ok(self.take()?.unwrap_or(0))
    }

    pub(super) fn id(&mut self) -> Result<Option<EntryId>, RedisError> {
        let entries: Option<Vec<Entry>> = self.take()?;
        Ok(entries.and_then(|e| e.first().map(|e| e.id)))
    }
}

/// What is asked for.
pub(super) struct Names {
    pub(super) streams: BTreeSet<String>,
    pub(super) subscribers: BTreeSet<String>,
}

/// What was answered.
pub(super) struct Read {
    pub(super) now_ms: u64,
    pub(super) dataset: Option<String>,
    pub(super) generation: Option<u64>,
    pub(super) counters: [u64; 3],
    pub(super) dead_router: u64,
    pub(super) scheduled: u64,
    pub(super) streams: BTreeMap<String, Stream>,
    /// In the order of the names.
    pub(super) subscribers: Vec<Subscriber>,
}

pub(super) struct Subscriber {
    pub(super) dead: u64,
    pub(super) lost: u64,
    pub(super) opened: u64,
    pub(super) closed: u64,
    pub(super) control: Control,
}

impl Read {
    pub(super) fn inbox(&self) -> &Stream {
        self.streams.get(INBOX).unwrap_or(&NO_STREAM)
    }

    pub(super) fn newest(&self, stream: &str) -> EntryId {
        let last = self.streams.get(stream).and_then(|s| s.last);
        last.unwrap_or_default()
    }
}

static NO_STREAM: Stream = Stream {
    length: 0,
    first: None,
    last: None,
    groups: BTreeMap::new(),
};

pub(super) struct Stream {
    pub(super) length: u64,
    pub(super) first: Option<EntryId>,
    pub(super) last: Option<EntryId>,
    pub(super) groups: BTreeMap<String, Position>,
}

impl Names {
    pub(super) fn new(
        routing: &Routing,
        known: &BTreeSet<(String, String)>,
        wanted: &BTreeSet<(String, String)>,
    ) -> Self {
        let pairs = || known.iter().chain(wanted);
        let domain = routing.streams().map(|s| s.name.to_string());
        Self {
            streams: domain.chain(pairs().map(|(s, _)| s.clone())).collect(),
            subscribers: pairs()
                .map(|(_, subscriber)| subscriber.clone())
                .filter(|subscriber| subscriber != ROUTER)
                .collect(),
        }
    }

    pub(super) fn pipeline(&self, keys: &Keys) -> Pipeline {
        let mut p = redis::pipe();
        p.atomic();
        p.cmd("TIME");
        p.cmd("HMGET").arg(keys.fleet());
        p.arg("dataset").arg("generation");
        p.cmd("HMGET").arg(keys.stats(ROUTER));
        p.arg("routed").arg("refused").arg("duplicates");
        p.cmd("XLEN").arg(keys.dead(ROUTER));
        p.cmd("ZCARD").arg(keys.scheduled());
        for name in &self.streams {
            let key = keys.stream(name);
            p.cmd("XLEN").arg(&key);
            p.cmd("XRANGE").arg(&key).arg("-").arg("+");
            p.arg("COUNT").arg(1);
            p.cmd("XREVRANGE").arg(&key).arg("+").arg("-");
            p.arg("COUNT").arg(1);
            p.cmd("XINFO").arg("GROUPS").arg(&key);
        }
        for name in &self.subscribers {
            p.cmd("XLEN").arg(keys.dead(name));
            p.cmd("HMGET").arg(keys.stats(name));
            p.arg("lost").arg("opened").arg("closed");
            p.cmd("HMGET").arg(keys.control(name));
            p.arg(Control::FIELDS.as_slice());
        }
        p
    }

    pub(super) fn read(&self, mut answers: Answers) -> Result<Read, RedisError> {
        let (seconds, micros): (u64, u64) = answers.take()?.unwrap_or_default();
        let now_ms = seconds * 1_000 + micros / 1_000;
        let (dataset, generation) = answers.take()?.unwrap_or_default();
        let counters: [Option<u64>; 3] = answers.take()?.unwrap_or_default();
        let dead_router = answers.number()?;
        let scheduled = answers.number()?;
        let mut stream = || -> Result<Stream, RedisError> {
            Ok(Stream {
                length: answers.number()?,
                first: answers.id()?,
                last: answers.id()?,
                groups: answers.take::<GroupPositions>()?.unwrap_or_default().0,
            })
        };
        let mut streams = BTreeMap::new();
        for name in &self.streams {
            streams.insert(name.clone(), stream()?);
        }
        let mut subscribers = Vec::new();
        for _ in &self.subscribers {
            let dead = answers.number()?;
            let counted: [Option<u64>; 3] = answers.take()?.unwrap_or_default();
            let [lost, opened, closed] = counted.map(Option::unwrap_or_default);
            let control = answers.take()?.unwrap_or_default();
            subscribers.push(Subscriber {
                dead,
                lost,
                opened,
                closed,
                control: Control::read(now_ms, control),
            });
        }
        Ok(Read {
            now_ms,
            dataset,
            generation,
            counters: counters.map(Option::unwrap_or_default),
            dead_router,
            scheduled,
            streams,
            subscribers,
        })
    }
}

/// What the event store takes. Asked for apart: what stands against these numbers does not stand against the rest.
pub(super) async fn store_sizes(
    link: &Link,
    keys: &Keys,
) -> Result<BTreeMap<String, StoreSize>, StoreError> {
    let key = keys.entities();
    let asked = link.run(|mut c| async move {
        let mut query = redis::cmd("HGETALL");
        query.arg(key).query_async(&mut c).await
    });
    match asked.await {
        Ok(fields) => Ok(sizes(&fields)),
        Err(error) if error.redis().is_some_and(refuses_key) => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}

fn sizes(fields: &HashMap<String, String>) -> BTreeMap<String, StoreSize> {
    let mut sizes: BTreeMap<String, StoreSize> = BTreeMap::new();
    for (field, number) in fields {
        let (Some((entity, what)), Ok(number)) = (field.rsplit_once(':'), number.parse()) else {
            continue;
        };
        let size = sizes.entry(entity.to_owned()).or_default();
        match what {
            "entities" => size.entities = number,
            "events" => size.events = number,
            "bytes" => size.bytes = number,
            _ => {}
        }
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_exist_reads_as_nothing() {
        let mut answers =
            Answers(vec![Value::Nil, Value::Int(3), Value::Array(vec![])].into_iter());
        assert_eq!(answers.number().unwrap(), 0);
        assert_eq!(answers.number().unwrap(), 3);
        assert_eq!(answers.id().unwrap(), None);
        assert_eq!(answers.number().unwrap(), 0, "past the end");
    }
}
