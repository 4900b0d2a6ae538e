//! Who is at work: every process that gives signs of life, and every consumer that holds
//! deliveries without giving any.
//!
//! Redis: reads `worker:…`, `fleet` and the consumers of all groups; writes nothing.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::read::{Answers, ask};
use crate::fleet::{self, WORKER_TTL};
use crate::store::{ConsumerInfo, Keys, Link, RELEASED, RETRY, StoreError};

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It reads and works.
    Alive,
    /// It was told to stop, and finishes what it started.
    Draining,
    /// It gives no sign of life, and deliveries are in its name. Whoever is alive claims them
    /// after their lease.
    Ghost,
}

/// A process of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkerStatus {
    /// Its group: a subscriber, or `router`.
    pub subscriber: String,
    /// Its name, stable across restarts.
    pub name: String,
    /// Its consumer: the name, and what tells this life from others.
    pub consumer: String,
    /// What it does.
    pub state: State,
    /// The machine.
    pub host: Option<String>,
    /// The process.
    pub pid: Option<u64>,
    /// Its release.
    pub version: Option<String>,
    /// The configuration that it runs.
    pub generation: Option<u64>,
    /// When it started, by its own clock.
    pub started: Option<String>,
    /// Age of its last sign of life, ms; of a ghost, of the last sign that Redis saw of its
    /// consumer.
    pub heartbeat_ms: Option<u64>,
    /// Deliveries that it holds.
    pub in_flight: u64,
    /// The streams that they are from.
    pub streams: Vec<String>,
}

/// What one consumer of a group has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Holds {
    deliveries: u64,
    idle_ms: u64,
    streams: Vec<String>,
}

/// Every process, by subscriber and name; ghosts last.
///
/// # Errors
/// Redis could not be asked.
pub async fn workers(
    link: &Link,
    keys: &Keys,
    subscriber: Option<&str>,
) -> Result<Vec<WorkerStatus>, StoreError> {
    let live = announced(link, keys, subscriber).await?;
    let held = held(link, keys, subscriber).await?;
    Ok(matched(live.iter().map(WorkerStatus::of).collect(), held))
}

/// How many of these are at work for a subscriber; one that drains is not there for what comes.
pub fn alive(found: &[WorkerStatus], subscriber: &str) -> usize {
    let of = found.iter().filter(|one| one.subscriber == subscriber);
    of.filter(|one| one.state == State::Alive).count()
}

/// A process that gives signs of life.
pub(super) struct Announced {
    pub(super) subscriber: String,
    pub(super) name: String,
    /// What it says of itself.
    pub(super) fields: HashMap<String, String>,
    /// How long it is believed without another sign, ms.
    left_ms: Option<u64>,
}

/// Those that give signs of life, sorted by subscriber and name.
pub(super) async fn announced(
    link: &Link,
    keys: &Keys,
    only: Option<&str>,
) -> Result<Vec<Announced>, StoreError> {
    let mut found = fleet::announced(link, keys).await?;
    found.retain(|(subscriber, _)| only.is_none_or(|only| only == subscriber));
    let mut pipeline = redis::pipe();
    for (subscriber, name) in &found {
        let key = keys.worker(subscriber, name);
        pipeline.cmd("HGETALL").arg(&key);
        pipeline.cmd("PTTL").arg(&key);
    }
    let mut answers = Answers(ask(link, pipeline).await?.into_iter());
    let mut live = Vec::new();
    for (subscriber, name) in found {
        let error = |e| link.redis().error(e);
        let fields: HashMap<String, String> = answers.take().map_err(error)?.unwrap_or_default();
        let left: i64 = answers.take().map_err(error)?.unwrap_or(-2);
        // It may have ended since.
        if fields.contains_key("nonce") {
            live.push(Announced {
                subscriber,
                name,
                fields,
                left_ms: left.try_into().ok(),
            });
        }
    }
    Ok(live)
}

impl WorkerStatus {
    fn of(one: &Announced) -> Self {
        let text = |field: &str| one.fields.get(field).cloned();
        let number = |field: &str| one.fields.get(field)?.parse().ok();
        let ttl = u64::try_from(WORKER_TTL.as_millis()).unwrap_or(u64::MAX);
        Self {
            consumer: format!("{}.{}", one.name, text("nonce").unwrap_or_default()),
            subscriber: one.subscriber.clone(),
            name: one.name.clone(),
            state: match one.fields.get("draining").map(String::as_str) {
                Some("1") => State::Draining,
                _ => State::Alive,
            },
            host: text("host"),
            pid: number("pid"),
            version: text("version"),
            generation: number("generation"),
            started: text("started"),
            heartbeat_ms: one.left_ms.map(|left| ttl.saturating_sub(left)),
            in_flight: 0,
            streams: Vec::new(),
        }
    }
}

/// What each consumer holds, by group and consumer, on all streams together.
async fn held(
    link: &Link,
    keys: &Keys,
    subscriber: Option<&str>,
) -> Result<BTreeMap<(String, String), Holds>, StoreError> {
    let groups = fleet::group_records(link, keys).await?.into_keys();
    let groups: Vec<_> = groups
        .filter(|(_, group)| subscriber.is_none_or(|name| name == group))
        .collect();
    let mut pipeline = redis::pipe();
    for (stream, group) in &groups {
        pipeline.cmd("XINFO").arg("CONSUMERS");
        pipeline.arg(keys.stream(stream)).arg(group);
    }
    let mut answers = Answers(ask(link, pipeline).await?.into_iter());
    let mut held: BTreeMap<_, Holds> = BTreeMap::new();
    let mut read = |stream: &str, group: &str| {
        let consumers: Option<Vec<ConsumerInfo>> = answers.take()?;
        for consumer in consumers.unwrap_or_default() {
            let ConsumerInfo {
                name,
                pending: deliveries,
                idle_ms,
            } = consumer;
            if name != RETRY && name != RELEASED {
                let one = held.entry((group.to_owned(), name)).or_insert(Holds {
                    idle_ms,
                    ..Holds::default()
                });
                if deliveries > 0 {
                    one.streams.push(stream.to_owned());
                }
                one.deliveries += deliveries;
                one.idle_ms = one.idle_ms.min(idle_ms);
            }
        }
        Ok::<_, redis::RedisError>(())
    };
    for (stream, group) in &groups {
        read(stream, group).map_err(|e| link.redis().error(e))?;
    }
    Ok(held)
}

/// Puts both together: who lives, with what it holds; and what is held by nobody alive.
fn matched(
    mut live: Vec<WorkerStatus>,
    mut held: BTreeMap<(String, String), Holds>,
) -> Vec<WorkerStatus> {
    for one in &mut live {
        let key = (one.subscriber.clone(), one.consumer.clone());
        let holds = held.remove(&key).unwrap_or_default();
        one.in_flight = holds.deliveries;
        one.streams = holds.streams;
    }
    live.sort_by(|a, b| (&a.subscriber, &a.name).cmp(&(&b.subscriber, &b.name)));
    // Without deliveries it is the trace of a process that ended, which the janitor sweeps.
    let ghosts = held.into_iter().filter(|(_, holds)| holds.deliveries > 0);
    live.extend(ghosts.map(|((subscriber, consumer), holds)| {
        WorkerStatus {
            name: consumer
                .rsplit_once('.')
                .map_or(consumer.as_str(), |(name, _)| name)
                .to_owned(),
            subscriber,
            consumer,
            state: State::Ghost,
            host: None,
            pid: None,
            version: None,
            generation: None,
            started: None,
            heartbeat_ms: Some(holds.idle_ms),
            in_flight: holds.deliveries,
            streams: holds.streams,
        }
    }));
    live
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(subscriber: &str, name: &str, nonce: &str) -> WorkerStatus {
        WorkerStatus {
            subscriber: subscriber.into(),
            name: name.into(),
            consumer: format!("{name}.{nonce}"),
            state: State::Alive,
            host: None,
            pid: None,
            version: None,
            generation: None,
            started: None,
            heartbeat_ms: None,
            in_flight: 0,
            streams: Vec::new(),
        }
    }

    #[test]
    fn an_earlier_life_of_a_name_is_a_ghost_while_it_holds_something() {
        let held = |subscriber: &str, consumer: &str, deliveries| {
            let holds = Holds {
                deliveries,
                idle_ms: 5,
                ..Holds::default()
            };
            ((subscriber.to_owned(), consumer.to_owned()), holds)
        };
        let all = matched(
            vec![live("b", "w", "2"), live("a", "w", "9")],
            BTreeMap::from([
                held("b", "w.1", 3),
                held("b", "w.2", 4),
                held("b", "w.0", 0),
                held("a", "w.2", 1),
            ]),
        );
        let told: Vec<_> = all
            .iter()
            .map(|w| {
                (
                    w.subscriber.as_str(),
                    w.consumer.as_str(),
                    w.state,
                    w.in_flight,
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                ("a", "w.9", State::Alive, 0),
                ("b", "w.2", State::Alive, 4),
                ("a", "w.2", State::Ghost, 1),
                ("b", "w.1", State::Ghost, 3),
            ]
        );
        assert_eq!(all[3].name, "w");
    }
}
