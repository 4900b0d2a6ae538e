//! What is going on: streams, groups, subscribers and the router, as one serialisable snapshot.
//!
//! Redis: reads `inbox`, the domain and redrive streams and their groups, `dead:…`, `stats:…`,
//! `scheduled`, `control:…`, `fleet` and `worker:…`; writes nothing. Lengths and positions are read in one transaction,
//! so that [`Snapshot::drained`] is true of one moment.

mod history;
mod orphans;
mod pending;
mod read;
mod tap;
mod workers;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use redis::RedisError;
use serde::Serialize;

pub use self::history::{Cut, cuts};
pub use self::orphans::{Debt, Orphan, left_behind, orphans};
pub use self::pending::{Holder, Owed, owed};
pub(crate) use self::read::{Answers, ask};
use self::read::{Names, Read, store_sizes};
pub use self::tap::Tap;
use self::workers::{Announced, announced};
pub use self::workers::{State, WorkerStatus, alive, workers};
use crate::fleet::control::Control;
use crate::fleet::{self, Configuration, INBOX, ROUTER};
use crate::routing::Routing;
use crate::store::{ConsumerInfo, EntryId, Held, Keys, Link, Position, StoreError};
use crate::time::from_ms;

/// Everything at one moment. Ages are in milliseconds, by the clock of Redis.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// When it was taken, by the clock of Redis.
    pub at: Timestamp,
    /// The server, without credentials.
    pub server: String,
    /// Identity of the data, once a process has joined.
    pub dataset: Option<String>,
    /// Number of the newest configuration that a process runs.
    pub generation: Option<u64>,
    /// Whether nothing is owed to anybody: the inbox is empty, no group waits, works or retries,
    /// and none was lost. Dead letters do not count, nor do scheduled events.
    pub drained: bool,
    /// The door.
    pub router: RouterStatus,
    /// The domain streams.
    pub streams: Vec<StreamStatus>,
    /// Every stream and subscriber, the inbox and redriven letters included.
    pub groups: Vec<GroupStatus>,
    /// Every subscriber.
    pub subscribers: Vec<SubscriberStatus>,
    /// Every live router and worker.
    pub processes: Vec<ProcessStatus>,
    /// What the event store takes, by kind of entity.
    pub event_store: BTreeMap<String, StoreSize>,
}

/// What was appended to the event store. What somebody deletes by hand still counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StoreSize {
    /// Histories.
    pub entities: u64,
    /// Events in them.
    pub events: u64,
    /// Bytes of their types and data: Redis needs more to keep them.
    pub bytes: u64,
}

/// The inbox and what the routers made of it since the counters began.
#[derive(Clone, Debug, Serialize)]
pub struct RouterStatus {
    /// Events not routed yet.
    pub inbox: u64,
    /// Age of the oldest of them.
    pub oldest_ms: Option<u64>,
    /// Events appended to a domain stream.
    pub routed: u64,
    /// Events refused at the door.
    pub refused: u64,
    /// Events dropped because they were seen before.
    pub duplicates: u64,
    /// Letters in `dead:router`.
    pub dead: u64,
    /// Events that are accepted and not due yet.
    pub scheduled: u64,
    /// Names of the live routers.
    pub workers: Vec<String>,
}

/// One domain stream.
#[derive(Clone, Debug, Serialize)]
pub struct StreamStatus {
    /// Its name, without namespace.
    pub name: String,
    /// Entries in it.
    pub length: u64,
    /// Age of the oldest.
    pub first_ms: Option<u64>,
    /// Age of the newest.
    pub last_ms: Option<u64>,
}

/// One live process.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ProcessStatus {
    /// Its subscriber, or `router`.
    pub subscriber: String,
    /// Its name in the group.
    pub name: String,
    /// The machine it runs on.
    pub host: String,
    /// Its process ID there.
    pub pid: String,
    /// Its version of streamfleet.
    pub version: String,
    /// Its last sign of life, by its own clock.
    pub seen: String,
    /// What it runs.
    #[serde(flatten)]
    pub configuration: Configuration,
}

/// Whether a group is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// As it should be.
    Ok,
    /// routing.yaml wants it, no process has created it yet.
    Absent,
    /// It existed and is gone: the operator must recreate it.
    Lost,
    /// It exists, and routing.yaml routes nothing to it any more: retire it when it owes nothing.
    Unrouted,
    /// routing.yaml says that it is retired: drop it when it owes nothing.
    Retired,
    /// A rebuild made it, which is under way or was killed.
    Shadow,
    /// Somebody else created it; streamfleet does not know it.
    Foreign,
}

/// What one subscriber owes on one stream.
#[derive(Clone, Debug, Serialize)]
pub struct GroupStatus {
    /// The stream, without namespace.
    pub stream: String,
    /// The subscriber.
    pub subscriber: String,
    /// Whether the group is as it should be.
    pub condition: Condition,
    /// Entries it has not read yet; unknown where Redis cannot tell.
    pub waiting: Option<u64>,
    /// Age of the oldest of them.
    pub oldest_waiting_ms: Option<u64>,
    /// Deliveries that a worker has.
    pub in_flight: u64,
    /// Deliveries that wait for their next attempt.
    pub retrying: u64,
    /// Deliveries that a worker gave back unstarted.
    pub released: u64,
}

impl GroupStatus {
    /// Deliveries that were handed out and not settled.
    pub fn pending(&self) -> u64 {
        self.in_flight + self.retrying + self.released
    }

    /// What it has not settled; unknown where Redis cannot tell.
    pub fn owes(&self) -> Option<u64> {
        Some(self.waiting? + self.pending())
    }
}

/// One subscriber.
#[derive(Clone, Debug, Serialize)]
pub struct SubscriberStatus {
    /// Its name.
    pub name: String,
    /// Whether routing.yaml routes to it.
    pub routed: bool,
    /// Its dead letters.
    pub dead: u64,
    /// Deliveries whose entry was deleted under it.
    pub lost: u64,
    /// How often its circuit breaker opened.
    pub opened: u64,
    /// How often it closed.
    pub closed: u64,
    /// Whether its workers may read.
    #[serde(flatten)]
    pub control: Control,
    /// Names of its live workers.
    pub workers: Vec<String>,
}

/// Takes a snapshot.
///
/// # Errors
/// Redis could not be asked, or a key is not of the type that it should be.
pub async fn collect(link: &Link, keys: &Keys, routing: &Routing) -> Result<Snapshot, StoreError> {
    let known: BTreeSet<(String, String)> = fleet::group_records(link, keys)
        .await?
        .into_keys()
        .collect();
    let wanted: BTreeSet<(String, String)> = fleet::wanted_groups(routing, None)
        .into_iter()
        .map(|group| (group.stream, group.subscriber))
        .collect();
    let processes = processes(link, keys).await?;
    let mut workers: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for process in &processes {
        let names = workers.entry(&process.subscriber).or_default();
        names.push(process.name.clone());
    }
    let names = Names::new(routing, &known, &wanted);

    let first = ask(link, names.pipeline(keys)).await?;
    let read = names.read(Answers(first.into_iter()));
    let read = read.map_err(|e| link.redis().error(e))?;

    let mut groups = Vec::new();
    for (stream, found) in &read.streams {
        for (group, at) in &found.groups {
            let pair = (stream.clone(), group.clone());
            let condition = match (wanted.contains(&pair), known.contains(&pair)) {
                (true, _) => Condition::Ok,
                (false, true) if Keys::shadow_of(group).is_some() => Condition::Shadow,
                (false, true) if routing.retired().any(|s| *s.name == **group) => {
                    Condition::Retired
                }
                (false, true) => Condition::Unrouted,
                (false, false) => Condition::Foreign,
            };
            groups.push((pair, condition, Some(*at)));
        }
    }
    let present: BTreeSet<_> = groups.iter().map(|(pair, ..)| pair.clone()).collect();
    for pair in known.union(&wanted).filter(|pair| !present.contains(*pair)) {
        let lost = known.contains(pair);
        let condition = if lost {
            Condition::Lost
        } else {
            Condition::Absent
        };
        groups.push((pair.clone(), condition, None));
    }
    groups.sort_by(|a, b| a.0.cmp(&b.0));

    let mut drained = read.inbox().length == 0;
    for ((stream, _), condition, at) in &groups {
        let owes = at.is_some_and(|at| at.pending > 0 || read.newest(stream) > at.delivered);
        drained &= match condition {
            Condition::Ok | Condition::Unrouted | Condition::Retired => !owes,
            Condition::Lost => false,
            // (What a rebuild has yet to read is owed to nobody.)
            Condition::Absent | Condition::Foreign | Condition::Shadow => true,
        };
    }
    let details = details(link, keys, &read, groups).await?;
    let subscribers = names.subscribers.iter().zip(&read.subscribers);
    let subscribers = subscribers.map(|(name, found)| SubscriberStatus {
        name: name.clone(),
        routed: routing.subscriber(name).is_some(),
        dead: found.dead,
        lost: found.lost,
        opened: found.opened,
        closed: found.closed,
        control: found.control.clone(),
        workers: workers.remove(name.as_str()).unwrap_or_default(),
    });
    let subscribers = subscribers.collect();
    let age = |id: Option<EntryId>| id.map(|id| read.now_ms.saturating_sub(id.ms));
    let streams = read.streams.iter();
    let streams = streams.filter(|(name, _)| *name != INBOX && !name.contains(':'));
    Ok(Snapshot {
        at: from_ms(read.now_ms).unwrap_or_else(Timestamp::now),
        server: link.redis().server().to_owned(),
        dataset: read.dataset.clone(),
        generation: read.generation,
        drained,
        router: RouterStatus {
            inbox: read.inbox().length,
            oldest_ms: age(read.inbox().first),
            routed: read.counters[0],
            refused: read.counters[1],
            duplicates: read.counters[2],
            dead: read.dead_router,
            scheduled: read.scheduled,
            workers: workers.remove(ROUTER).unwrap_or_default(),
        },
        streams: streams
            .map(|(name, stream)| StreamStatus {
                name: name.clone(),
                length: stream.length,
                first_ms: age(stream.first),
                last_ms: age(stream.last),
            })
            .collect(),
        groups: details,
        subscribers,
        processes,
        event_store: store_sizes(link, keys).await?,
    })
}

/// Who is alive, sorted by subscriber and name. (What ended while it was asked for is left out.)
///
/// # Errors
/// Redis could not be asked.
pub async fn processes(link: &Link, keys: &Keys) -> Result<Vec<ProcessStatus>, StoreError> {
    let found = announced(link, keys, None).await?;
    Ok(found.into_iter().map(ProcessStatus::of).collect())
}

impl ProcessStatus {
    fn of(mut announced: Announced) -> Self {
        let mut text = |field: &str| announced.fields.remove(field);
        Self {
            host: text("host").unwrap_or_default(),
            pid: text("pid").unwrap_or_default(),
            version: text("version").unwrap_or_default(),
            seen: text("seen").unwrap_or_default(),
            configuration: Configuration::read(Configuration::FIELDS.map(text)),
            subscriber: announced.subscriber,
            name: announced.name,
        }
    }
}

type Found = ((String, String), Condition, Option<Position>);

/// Who holds what is pending, and since when the oldest waits.
async fn details(
    link: &Link,
    keys: &Keys,
    read: &Read,
    groups: Vec<Found>,
) -> Result<Vec<GroupStatus>, StoreError> {
    let mut pipeline = redis::pipe();
    for ((stream, subscriber), _, at) in &groups {
        if let Some(at) = at {
            let key = keys.stream(stream);
            pipeline.cmd("XINFO").arg("CONSUMERS");
            pipeline.arg(&key).arg(subscriber);
            let after = format!("({}", at.delivered);
            pipeline.cmd("XRANGE").arg(&key).arg(after).arg("+");
            pipeline.arg("COUNT").arg(1);
        }
    }
    let answers = ask(link, pipeline).await?;
    let mut answers = Answers(answers.into_iter());
    let status = groups
        .into_iter()
        .map(|((stream, subscriber), condition, at)| {
            let mut status = GroupStatus {
                condition,
                waiting: None,
                oldest_waiting_ms: None,
                in_flight: 0,
                retrying: 0,
                released: 0,
                stream,
                subscriber,
            };
            if let Some(at) = at {
                let consumers: Vec<ConsumerInfo> = answers.take()?.unwrap_or_default();
                let held = Held::by(&consumers);
                status.in_flight = held.in_flight;
                status.retrying = held.retrying;
                status.released = held.released;
                let oldest = answers.id()?;
                status.oldest_waiting_ms = oldest.map(|id| read.now_ms.saturating_sub(id.ms));
                status.waiting = match oldest {
                    None => Some(0),
                    Some(_) if deletes_settled(&status.stream, &status.subscriber) => {
                        let length = read.streams.get(&status.stream).map_or(0, |s| s.length);
                        Some(length.saturating_sub(at.pending))
                    }
                    Some(_) => at.lag,
                };
            }
            Ok(status)
        });
    let status: Result<_, RedisError> = status.collect();
    status.map_err(|e| link.redis().error(e))
}

/// Whether entries leave the stream when they are settled: what is not pending was not read.
pub(crate) fn deletes_settled(stream: &str, subscriber: &str) -> bool {
    stream == INBOX || stream == Keys::redrive_name(subscriber)
}
