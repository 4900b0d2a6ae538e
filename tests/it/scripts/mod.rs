//! Every Lua script through its typed function, on a real Redis: before -> call -> after.

mod commit;
mod control;
mod effects;
mod groups;
mod letters;
mod reclaim;
mod rights;
mod route;
mod route_audited;
mod route_later;
mod scheduled;
mod settle;
mod switch;
mod transact;
mod trim;
mod workers;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue};
use streamfleet::store::{
    Asked, CommitRequest, Committed, EntryId, Fence, Fields, Holder, Redis, Settled,
};

use crate::support::Server;

const STREAM: &str = "order-events";
const GROUP: &str = "x-service";
const ATTEMPTS: &str = "attempts:order-events:x-service";
const STATS: &str = "stats:x-service";
const ME: &str = "me.11111111";
const OTHER: &str = "other.22222222";
const LEASE: u64 = 30_000;

/// A Redis, a connection to it, and us as a consumer of a group.
struct Bench {
    server: Server,
    redis: MultiplexedConnection,
    me: Holder,
}

impl Deref for Bench {
    type Target = Server;
    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Bench {
    async fn start(args: &[&str]) -> Self {
        Self::on(Server::with(args)).await
    }

    async fn on(server: Server) -> Self {
        // With the time-outs of the product: the library's own are shorter than a long script takes
        // on a busy machine.
        let redis = Redis::open(&server.url()).unwrap();
        let redis = redis.dedicated(Duration::ZERO).await.unwrap();
        let me = Holder {
            stream: STREAM.into(),
            attempts: ATTEMPTS.into(),
            stats: STATS.into(),
            group: GROUP.into(),
            consumer: ME.into(),
            delete_settled: false,
        };
        Self { server, redis, me }
    }

    async fn empty() -> Self {
        Self::start(&[]).await
    }

    /// Entries 1-0 to n-0, all delivered to us once.
    async fn pending(n: u64) -> Self {
        let bench = Self::empty().await;
        bench.add(1..=n);
        bench.read(ME, n);
        bench
    }

    fn add(&self, ids: impl IntoIterator<Item = u64>) {
        for id in ids {
            self.run(&format!("XADD {STREAM} {id}-0 event {{}}"));
        }
    }

    /// Delivers the next `n` entries; creates the group, at 0, if there is none.
    fn read(&self, consumer: &str, n: u64) {
        let create = format!("XGROUP CREATE {STREAM} {GROUP} 0 MKSTREAM");
        drop(words(&create).query::<()>(&mut self.connection()));
        self.run(&format!(
            "XREADGROUP GROUP {GROUP} {consumer} COUNT {n} STREAMS {STREAM} >"
        ));
    }

    /// One command whose answer does not matter.
    fn run(&self, line: &str) {
        self.cli::<redis::Value>(line);
    }

    /// Hands entries to a consumer, without a sign of life for `idle` milliseconds.
    fn give(&self, consumer: &str, idle: u64, ids: impl IntoIterator<Item = u64>) {
        for id in ids {
            self.run(&format!(
                "XCLAIM {STREAM} {GROUP} {consumer} 0 {id}-0 IDLE {idle} JUSTID"
            ));
        }
    }

    /// Who owes an entry, for how long, delivered how often: nobody once it is settled.
    fn owner(&self, id: u64) -> Option<(String, u64, u64)> {
        let rows: Vec<(String, String, u64, u64)> =
            self.cli(&format!("XPENDING {STREAM} {GROUP} {id}-0 {id}-0 1"));
        rows.into_iter()
            .next()
            .map(|(_, consumer, idle, count)| (consumer, idle, count))
    }

    /// The same without the idle time.
    fn held_by(&self, id: u64) -> Option<(String, u64)> {
        self.owner(id).map(|(consumer, _, count)| (consumer, count))
    }

    fn consumers(&self) -> Vec<String> {
        let reply: Vec<BTreeMap<String, redis::Value>> =
            self.cli(&format!("XINFO CONSUMERS {STREAM} {GROUP}"));
        let name = |row: &BTreeMap<String, redis::Value>| {
            String::from_redis_value(row["name"].clone()).unwrap()
        };
        reply.iter().map(name).collect()
    }

    fn ids(&self, stream: &str) -> Vec<String> {
        let entries: Vec<(String, Vec<String>)> = self.cli(&format!("XRANGE {stream} - +"));
        entries.into_iter().map(|(id, _)| id).collect()
    }

    /// The fields of each entry, `name=value` in a row.
    fn entries(&self, stream: &str) -> Vec<String> {
        let entries: Vec<(String, Vec<String>)> = self.cli(&format!("XRANGE {stream} - +"));
        entries
            .into_iter()
            .map(|(_, fields)| pairs(&fields))
            .collect()
    }

    /// A key as text, whatever its type; empty if it is absent.
    fn show(&self, key: &str) -> String {
        let mut list = match self.cli::<String>(&format!("TYPE {key}")).as_str() {
            "string" => return self.cli(&format!("GET {key}")),
            "stream" => {
                let (ids, entries) = (self.ids(key), self.entries(key));
                ids.iter()
                    .zip(entries)
                    .map(|(id, fields)| format!("{id} {fields}"))
                    .collect()
            }
            "hash" => {
                let fields: Vec<String> = self.cli(&format!("HGETALL {key}"));
                fields.chunks(2).map(pairs).collect::<Vec<_>>()
            }
            "set" => self.cli(&format!("SMEMBERS {key}")),
            "zset" => vec![pairs(
                &self.cli::<Vec<String>>(&format!("ZRANGE {key} 0 -1 WITHSCORES")),
            )],
            _ => return String::new(),
        };
        list.sort();
        list.join(", ")
    }
}

fn pairs(flat: &[String]) -> String {
    let pairs: Vec<String> = flat.chunks(2).map(|pair| pair.join("=")).collect();
    pairs.join(" ")
}

fn words(line: &str) -> Cmd {
    let mut words = line.split_whitespace();
    let mut command = redis::cmd(words.next().unwrap());
    command.arg(words.collect::<Vec<_>>());
    command
}

/// A delivery as it was handed out: the entry `<id>-0`, under that count.
fn fence(id: u64, count: u64) -> Fence {
    Fence {
        id: EntryId { ms: id, seq: 0 },
        count,
    }
}

fn fields(pairs: &[(&str, &str)]) -> Fields {
    Fields(
        pairs
            .iter()
            .map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec()))
            .collect(),
    )
}

/// Acknowledges one delivery; with it, whether it has a record in `attempts`.
async fn ack_one(
    me: &Holder,
    redis: &mut MultiplexedConnection,
    delivery: (Fence, bool),
) -> Settled {
    let counts = me.ack(redis, &[delivery]).await.unwrap();
    match (counts.done, counts.gone, counts.fenced) {
        (1, 0, 0) => Settled::Done,
        (0, 1, 0) => Settled::Gone,
        (0, 0, 1) => Settled::Fenced,
        _ => panic!("{counts:?} of one delivery"),
    }
}

/// Commits one delivery; with it, whether it has a record in `attempts`.
async fn commit_one(
    me: &Holder,
    redis: &mut MultiplexedConnection,
    (fence, troubled): (Fence, bool),
    asked: Asked,
) -> redis::RedisResult<Committed> {
    let request = CommitRequest {
        fence,
        troubled,
        asked,
    };
    let mut answers = me.commit(redis, "inbox", &[request.into()]).await?;
    assert_eq!(answers.len(), 1);
    Ok(answers.remove(0))
}
