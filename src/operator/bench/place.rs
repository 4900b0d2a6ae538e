//! The Redis on which it is measured: cleared, filled, looked at, and checked afterwards. All
//! that is touched is under one namespace.

use std::ops::Range;

use redis::{FromRedisValue, Pipeline, Value};
use serde::Serialize;

use super::super::CommandError;
use super::floor;
use super::latency::Counted;
use super::redis_figures::RedisFigures;
use super::roles::{BATCH, Kind};
use super::stage::{Bench, Group, Job, LOOK, Side, Stage};
use super::workload::{FOLLOW_UPS, ID_AT, LEASE_MS, NAMESPACE, STREAM, Workload, stamp};
use crate::fleet::ROUTER;
use crate::process::args::RedisArgs;
use crate::store::{EntryId, Keys, Link, RETRY, StreamField, read_streams, scan};

/// From so many events it is found out what one of them takes.
const MEASURED: u64 = 20_000;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Bytes that one event takes.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Memory {
    pub(super) inbox_entry: f64,
    /// In its domain stream.
    pub(super) stream_entry: f64,
    /// While a subscriber has not settled it.
    pub(super) pending_entry: f64,
}

/// A Redis and the keys in it.
pub(super) struct Place {
    pub(super) redis: RedisArgs,
    pub(super) link: Link,
    pub(super) keys: Keys,
}

impl Place {
    pub(super) fn new(redis: RedisArgs) -> Result<Self, CommandError> {
        Ok(Self {
            link: redis.open()?.link(),
            redis,
            keys: Keys::new(Some(NAMESPACE)),
        })
    }

    async fn ask<T: FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, CommandError> {
        let ask = |mut c| async move { command.query_async(&mut c).await };
        Ok(self.link.run(ask).await?)
    }

    async fn send(&self, pipeline: &Pipeline) -> Result<(), CommandError> {
        let send = |mut c| async move { pipeline.exec_async(&mut c).await };
        Ok(self.link.run(send).await?)
    }

    /// The keys that are there under our namespace.
    pub(super) async fn present(&self) -> Result<Vec<String>, CommandError> {
        Ok(scan(&self.link, &format!("{NAMESPACE}:*"), None).await?)
    }

    /// Deletes everything under our namespace. Beside, as millions of entries take longer than a
    /// command may; but to its end, so that it costs nothing that is measured afterwards.
    pub(super) async fn clear(&self) -> Result<(), CommandError> {
        for some in self.present().await?.chunks(BATCH) {
            self.ask::<Value>(redis::cmd("UNLINK").arg(some)).await?;
        }
        let memory = |mut c| async move { crate::store::info(&mut c, "memory").await };
        while let Some(info) = self.link.run(memory).await?
            && info
                .number("lazyfree_pending_objects")
                .is_some_and(|n| n > 0)
        {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// The groups that no process creates, behind what is there: those of the floor, which has
    /// none that would, and those that have a past.
    pub(super) async fn create_groups(&self, subscribers: &[String]) -> Result<(), CommandError> {
        let (inbox, stream) = (self.keys.inbox(), self.keys.stream(STREAM));
        let of_stream = subscribers.iter().map(|s| (&stream, s.as_str()));
        let mut pipeline = redis::pipe();
        for (key, group) in of_stream.chain([(&inbox, ROUTER)]) {
            let create = pipeline.cmd("XGROUP").arg("CREATE").arg(key).arg(group);
            create.arg("$").arg("MKSTREAM").ignore();
        }
        self.send(&pipeline).await
    }

    /// Events as producers send them.
    pub(super) async fn fill_inbox(
        &self,
        workload: &Workload,
        events: u64,
    ) -> Result<(), CommandError> {
        let inbox = self.keys.inbox();
        self.fill(workload, 0..events, |pipeline, _, event| {
            let add = pipeline.cmd("XADD").arg(&inbox).arg("*");
            add.arg(StreamField::EVENT).arg(event).ignore();
        })
        .await
    }

    /// Events as the router routes them.
    pub(super) async fn fill_stream(
        &self,
        workload: &Workload,
        numbers: Range<u64>,
        to: &str,
    ) -> Result<(), CommandError> {
        let stream = self.keys.stream(STREAM);
        self.fill(workload, numbers, |pipeline, n, event| {
            let add = pipeline.cmd("XADD").arg(&stream).arg("*");
            add.arg(StreamField::ID).arg(&event[ID_AT]);
            add.arg(StreamField::TYPE).arg(workload.event_type(n));
            add.arg(StreamField::TO).arg(to);
            add.arg(StreamField::EVENT).arg(event).ignore();
        })
        .await
    }

    async fn fill(
        &self,
        workload: &Workload,
        numbers: Range<u64>,
        add: impl Fn(&mut Pipeline, u64, &[u8]),
    ) -> Result<(), CommandError> {
        let now = stamp(jiff::Timestamp::now());
        let mut next = numbers.start;
        while next < numbers.end {
            let end = (next + BATCH as u64).min(numbers.end);
            let mut pipeline = redis::pipe();
            (next..end).for_each(|n| add(&mut pipeline, n, &workload.event(n, &now, true)));
            self.send(&pipeline).await?;
            next = end;
        }
        Ok(())
    }

    /// Lets a group read so many entries, which then wait for a retry in a day. When they surface
    /// before is spread over the lease, as if they had failed one after the other.
    pub(super) async fn park(&self, group: &str, entries: u64) -> Result<(), CommandError> {
        let (stream, attempts) = (self.keys.stream(STREAM), self.keys.attempts(STREAM, group));
        let due = jiff::Timestamp::now().as_millisecond() + DAY_MS;
        let mut next = 0;
        while next < entries {
            let count = (entries - next).min(BATCH as u64);
            let mut read = redis::cmd("XREADGROUP");
            read.arg("GROUP").arg(group).arg("bench");
            read.arg("COUNT").arg(count).arg("STREAMS");
            let read: Value = self.ask(read.arg(&stream).arg(">")).await?;
            let read = read_streams(read).map_err(|e| self.link.redis().error(e.into()))?;
            let mut pipeline = redis::pipe();
            for entry in read.into_iter().flat_map(|(_, entries)| entries) {
                let id = entry.id.to_string();
                let set = pipeline.cmd("HSET").arg(&attempts);
                set.arg(format!("{id}:due")).arg(due).ignore();
                let park = pipeline.cmd("XCLAIM").arg(&stream).arg(group).arg(RETRY);
                park.arg(0).arg(id).arg("IDLE");
                park.arg(next * LEASE_MS / entries).arg("JUSTID").ignore();
                next += 1;
            }
            self.send(&pipeline).await?;
        }
        Ok(())
    }

    /// What XINFO says of a stream.
    async fn about<T: FromRedisValue>(&self, stream: &str, what: &str) -> Result<T, CommandError> {
        let mut info: std::collections::HashMap<String, Value> = self
            .ask(redis::cmd("XINFO").arg("STREAM").arg(stream))
            .await?;
        let value = info.remove(what).unwrap_or(Value::Nil);
        redis::from_redis_value(value).map_err(|e| self.link.redis().error(e.into()).into())
    }

    /// The ID of the last entry that a stream ever had.
    pub(super) async fn last_id(&self, stream: &str) -> Result<EntryId, CommandError> {
        self.about(stream, "last-generated-id").await
    }

    /// The groups of a stream, as far as they exist.
    pub(super) async fn groups(&self, stream: &str) -> Result<Vec<Group>, CommandError> {
        let reply = self
            .ask(redis::cmd("XINFO").arg("GROUPS").arg(stream))
            .await?;
        Group::all(reply).map_err(|e| self.link.redis().error(e).into())
    }

    async fn count(&self, command: &str, key: String) -> Result<u64, CommandError> {
        self.ask(redis::cmd(command).arg(key)).await
    }

    /// What an event takes in Redis' memory at each of its places.
    pub(super) async fn memory(
        &self,
        workload: &Workload,
        to: &str,
    ) -> Result<Memory, CommandError> {
        let stream = self.keys.stream(STREAM);
        let used =
            || async { Ok::<_, CommandError>(RedisFigures::read(&self.link).await?.memory as f64) };
        self.clear().await?;
        let empty = used().await?;
        self.fill_inbox(workload, MEASURED).await?;
        let inbox = used().await? - empty;
        self.clear().await?;
        self.create_groups(&["nobody".to_owned()]).await?;
        let empty = used().await?;
        self.fill_stream(workload, 0..MEASURED, to).await?;
        let filled = used().await?;
        for _ in 0..MEASURED / BATCH as u64 {
            let mut read = redis::cmd("XREADGROUP");
            read.arg("GROUP")
                .arg("nobody")
                .arg("nobody")
                .arg("COUNT")
                .arg(BATCH);
            self.ask::<Value>(read.arg("STREAMS").arg(&stream).arg(">"))
                .await?;
        }
        let pending = used().await? - filled;
        let per_event = |bytes: f64| bytes / MEASURED as f64;
        Ok(Memory {
            inbox_entry: per_event(inbox),
            stream_entry: per_event(filled - empty),
            pending_entry: per_event(pending),
        })
    }

    /// Checks that a stage did what it was to do: every event is where it must be by now.
    pub(super) async fn verify(
        &self,
        bench: &Bench<'_>,
        job: Job,
        side: Side,
        events: u64,
        counted: Option<&Counted>,
    ) -> Result<(), CommandError> {
        let Job { stage, kind } = job;
        let subscribers = bench.subscribers();
        let deliveries = events * subscribers.len() as u64;
        let follow_ups = if kind == Some(Kind::FollowUp) {
            deliveries
        } else {
            0
        };
        let keys = &self.keys;
        let mut found = Vec::new();
        let mut expect = |what: &str, is: u64, should: u64| {
            if is != should {
                found.push(format!("{what}: {is}, not {should}"));
            }
        };
        let inbox = self.count("XLEN", keys.inbox()).await?;
        expect(
            "entries in the inbox",
            inbox,
            match stage {
                Stage::Publish => events,
                Stage::Handle => follow_ups,
                _ => 0,
            },
        );
        if stage != Stage::Publish {
            // Not how many there are: it is trimmed.
            let routed = self.about(&keys.stream(STREAM), "entries-added").await?;
            expect("events routed", routed, bench.entries(stage, events));
        }
        if let Some(counted) = counted {
            expect("events handled", counted.handled, deliveries);
            if side == Side::Ours && kind == Some(Kind::Failing) {
                let failures = bench.failures(events) * subscribers.len() as u64;
                expect("failures", counted.failed, failures);
            }
        }
        for subscriber in &subscribers {
            if kind == Some(Kind::OneEffect) {
                let key = keys.effect(subscriber, "handled");
                expect("effects", self.count("HLEN", key).await?, events);
            }
            expect(
                "dead letters",
                self.count("XLEN", keys.dead(subscriber)).await?,
                0,
            );
        }
        expect(
            "refused events",
            self.count("XLEN", keys.dead(ROUTER)).await?,
            0,
        );
        match (stage, side) {
            (Stage::Route, Side::Floor) => {
                expect(
                    "marks",
                    self.count("SCARD", floor::seen(keys)).await?,
                    events,
                );
            }
            (Stage::EndToEnd | Stage::Latency, _) => {
                let routed = self.count("XLEN", keys.stream(FOLLOW_UPS)).await?;
                expect("follow-ups routed", routed, follow_ups);
            }
            _ => {}
        }
        match found.is_empty() {
            true => Ok(()),
            false => Err(CommandError::Refused(format!(
                "{} ({side:?}) did not do its work: {}",
                stage.as_str(),
                found.join("; ")
            ))),
        }
    }
}
