//! What a real Redis holds, shown as [`show::model`] shows the model.

use std::collections::{BTreeMap, HashMap};

use ::redis::{FromRedisValue, Value};
use streamfleet::store::EntryId;

use super::super::store::{Due, Id, Queue, Reason, Record, Stats};
use super::real::{self, LEASE, Real};
use super::show::{self, Shown};
use super::{QUEUES, SUBSCRIBERS};

/// The dead-letter streams, and whose they are.
const DEAD: [(Option<u8>, &str); 3] = [
    (None, real::DEAD_ROUTER),
    (Some(0), "dead:0-service"),
    (Some(1), "dead:1-service"),
];
const STATS: [&str; 3] = ["stats:router", "stats:0-service", "stats:1-service"];

type StreamEntry = (EntryId, BTreeMap<String, String>);

fn range(key: &str) -> String {
    format!("XRANGE {key} - +")
}

fn hash(key: &str) -> String {
    format!("HGETALL {key}")
}

fn groups(queue: Queue) -> String {
    format!("XINFO GROUPS {}", real::stream(queue))
}

fn pending(queue: Queue) -> String {
    let (stream, group) = (real::stream(queue), real::group(queue));
    format!("XPENDING {stream} {group} - + 1000")
}

fn attempts(queue: Queue) -> String {
    hash(&real::holder(queue, 0).attempts)
}

fn effects(of: u8) -> String {
    hash(&format!("{of}-service:effects"))
}

/// The answers to commands that were sent together.
struct Snapshot(HashMap<String, Value>);

impl Snapshot {
    async fn take(real: &mut Real) -> Self {
        let of_queue = |queue| {
            let entries = range(&real::stream(queue));
            [entries, groups(queue), pending(queue), attempts(queue)]
        };
        let mut lines: Vec<String> = QUEUES.into_iter().flat_map(of_queue).collect();
        lines.extend(DEAD.map(|(_, key)| range(key)));
        lines.extend(STATS.map(hash));
        lines.extend((0..SUBSCRIBERS).map(effects));
        lines.extend([hash(real::SEEN), "TIME".to_owned()]);
        let mut together = ::redis::pipe();
        for line in &lines {
            together.add_command(real::command(line));
        }
        let answers: Vec<Value> = together.query_async(&mut real.redis).await.unwrap();
        Self(lines.into_iter().zip(answers).collect())
    }

    fn get<T: FromRedisValue>(&self, line: &str) -> T {
        T::from_redis_value(self.0[line].clone()).unwrap()
    }
}

impl Real {
    /// Everything that the model knows of.
    pub(super) async fn observe(&mut self) -> Shown {
        let there = Snapshot::take(self).await;
        let mut shown = Shown::new();
        for queue in QUEUES {
            self.show_queue(queue, &there, &mut shown);
        }
        for (of, key) in DEAD {
            let letters: Vec<StreamEntry> = there.get(&range(key));
            // A letter of any stream takes the next number of all letters.
            for (id, _) in &letters {
                let letter = (key.to_owned(), *id);
                if !self.letters.contains(&letter) {
                    self.letters.push(letter);
                }
            }
            let rows = letters.iter().map(|(_, fields)| show_letter(fields));
            shown.insert(format!("dead {of:?}"), rows.collect());
        }
        let seen: BTreeMap<u8, String> = there.get(&hash(real::SEEN));
        let rows = seen
            .iter()
            .map(|(event, content)| format!("{event} {content}"));
        shown.insert("seen".into(), rows.collect());
        let rows = (0..SUBSCRIBERS).flat_map(|of| {
            let times: BTreeMap<u8, u8> = there.get(&effects(of));
            times
                .into_iter()
                .map(move |(event, times)| format!("{of}: {event} x{times}"))
        });
        shown.insert("effects".into(), rows.collect());
        shown.insert("stats".into(), vec![format!("{:?}", stats(&there))]);
        shown
    }

    fn show_queue(&mut self, queue: Queue, there: &Snapshot, shown: &mut Shown) {
        let (stream, group) = (real::stream(queue), real::group(queue));
        let entries: Vec<StreamEntry> = there.get(&range(&stream));
        let ids = self.ids.entry(stream.clone()).or_default();
        let known = ids.last().copied();
        ids.extend(
            entries
                .iter()
                .map(|(id, _)| *id)
                .filter(|id| Some(*id) > known),
        );
        let row = |(id, fields): &StreamEntry| {
            let (event, content) = real::read_event(&fields["event"]);
            show::entry(self.model_id(&stream, *id), event, content)
        };
        shown.insert(show::name(queue), entries.iter().map(row).collect());

        let groups: Vec<BTreeMap<String, Value>> = there.get(&groups(queue));
        let text = |value: &Value| String::from_redis_value(value.clone()).unwrap();
        let info = groups
            .iter()
            .find(|info| text(&info["name"]) == group)
            .unwrap();
        let last = text(&info["last-delivered-id"]).parse().unwrap();
        let last = self.model_id(&stream, last).to_string();
        shown.insert(format!("{queue:?} read"), vec![last]);

        let rows: Vec<(EntryId, String, u64, u8)> = there.get(&pending(queue));
        let row = |(id, owner, idle, count): &(EntryId, String, u64, u8)| {
            let (id, owner) = (self.model_id(&stream, *id), real::owner_of(owner));
            show::pending(id, owner, *count, *idle >= LEASE)
        };
        shown.insert(format!("{queue:?} pending"), rows.iter().map(row).collect());

        let rows = self.records(queue, there).into_iter();
        let rows = rows.map(|(id, record)| show::record(id, record));
        shown.insert(format!("{queue:?} attempts"), rows.collect());
    }

    /// The hash of troubled deliveries, a record per entry.
    fn records(&self, queue: Queue, there: &Snapshot) -> BTreeMap<Id, Record> {
        let (now, _): (u64, u64) = there.get("TIME");
        let fields: BTreeMap<String, String> = there.get(&attempts(queue));
        let mut records = BTreeMap::<Id, Record>::new();
        for (field, value) in fields {
            let (id, what) = field.split_once(':').unwrap_or((&field, ""));
            let id = self.model_id(&real::stream(queue), id.parse().unwrap());
            let record = records.entry(id).or_default();
            match what {
                "" => record.failures = real::failures(&value),
                "starts" => record.starts = value.parse().ok(),
                "claimed" => record.claimed = true,
                _ => {
                    let far = value.parse::<u64>().unwrap() / 1000 > now + 60;
                    record.due = Some(if far { Due::FarAway } else { Due::Now });
                }
            }
        }
        records
    }
}

fn show_letter(fields: &BTreeMap<String, String>) -> String {
    let reasons = [Reason::Exhausted, Reason::Crashed, Reason::Refused];
    let reason = reasons
        .into_iter()
        .find(|r| format!("{r:?}") == fields["reason"]);
    let event = fields["id"].parse().unwrap();
    show::letter(event, reason.unwrap_or(Reason::Conflict))
}

fn stats(there: &Snapshot) -> Stats {
    let mut stats = Stats::default();
    for key in STATS {
        let counters: BTreeMap<String, u8> = there.get(&hash(key));
        let counter = |name| counters.get(name).copied().unwrap_or(0);
        stats.routed += counter("routed");
        stats.duplicates += counter("duplicates");
        stats.refused += counter("refused");
        stats.lost += counter("lost");
    }
    stats
}
