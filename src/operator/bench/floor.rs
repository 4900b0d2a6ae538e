//! The floor: a bare client that issues the least commands with which the same work could be
//! done. No validation, no fence, no retries; but one dedupe mark per event, batches of
//! [`BATCH`], and the next batch read while the present one is written.

use std::sync::Arc;

use redis::Pipeline;
use redis::aio::MultiplexedConnection;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::super::CommandError;
use super::latency::Recorder;
use super::roles::{BATCH, Kind, READY, Work};
use super::workload::{FOLLOW_UP_TYPE, FOLLOW_UPS, ID_AT, NAMESPACE, STREAM, sent_at, stamp};
use crate::fleet::ROUTER;
use crate::process::args::CommonArgs;
use crate::process::interrupted;
use crate::store::{Entry, Keys, Redis, StoreError, StreamField, read_streams};

/// How long a read waits: also how soon a role notices that it is to stop.
const BLOCK: std::time::Duration = std::time::Duration::from_millis(200);

/// The key that the floor marks seen events in.
pub(super) fn seen(keys: &Keys) -> String {
    keys.seen(0, 0)
}

/// A router of the floor.
#[derive(clap::Args)]
pub(super) struct Route {
    #[arg(long)]
    to: String,
    #[arg(long)]
    event_type: String,
    /// Others run as well: what they have read must not be trimmed.
    #[arg(long)]
    several: bool,
}

/// Appends events, two pipelines on their way at a time.
pub(super) struct Producer {
    connection: MultiplexedConnection,
    redis: Redis,
    inbox: String,
    waiting: Mutex<Option<JoinHandle<Result<(), redis::RedisError>>>>,
}

impl Producer {
    pub(super) async fn new(redis: &Redis, keys: &Keys) -> Result<Self, CommandError> {
        Ok(Self {
            connection: redis.dedicated(BLOCK).await?,
            redis: redis.clone(),
            inbox: keys.inbox(),
            waiting: Mutex::default(),
        })
    }

    pub(super) async fn send(&self, events: Vec<Vec<u8>>) -> Result<(), StoreError> {
        let mut pipeline = redis::pipe();
        for event in events {
            let add = pipeline.cmd("XADD").arg(&self.inbox).arg("*");
            add.arg(StreamField::EVENT).arg(event).ignore();
        }
        let mut waiting = self.waiting.lock().await;
        let before = waiting.replace(send(pipeline, &self.connection));
        answered(before, &self.redis).await
    }

    pub(super) async fn finish(&self) -> Result<(), StoreError> {
        answered(self.waiting.lock().await.take(), &self.redis).await
    }
}

fn send(
    pipeline: Pipeline,
    connection: &MultiplexedConnection,
) -> JoinHandle<Result<(), redis::RedisError>> {
    let mut connection = connection.clone();
    tokio::spawn(async move { pipeline.exec_async(&mut connection).await })
}

async fn answered(
    sent: Option<JoinHandle<Result<(), redis::RedisError>>>,
    redis: &Redis,
) -> Result<(), StoreError> {
    match sent {
        Some(sent) => match sent.await {
            Ok(answer) => answer.map_err(|e| redis.error(e)),
            Err(_) => Ok(()), // it panicked, and said so
        },
        None => Ok(()),
    }
}

/// Reads batches and writes what `make` makes of each, until told to stop.
async fn pump(
    common: &CommonArgs,
    stream: String,
    group: &str,
    mut make: impl FnMut(&mut Pipeline, Vec<Entry>),
) -> Result<(), CommandError> {
    let stop = CancellationToken::new();
    tokio::spawn({
        let stop = stop.clone();
        async move {
            interrupted().await;
            stop.cancel();
        }
    });
    let redis = common.redis.open()?;
    let mut reader = redis.dedicated(BLOCK).await?;
    let writer = redis.dedicated(BLOCK).await?;
    let mut read = redis::cmd("XREADGROUP");
    read.arg("GROUP")
        .arg(group)
        .arg(format!("floor-{}", std::process::id()));
    read.arg("COUNT")
        .arg(BATCH)
        .arg("BLOCK")
        .arg(BLOCK.as_millis() as u64);
    read.arg("STREAMS").arg(stream).arg(">");
    println!("{READY}");
    let mut waiting = None;
    while !stop.is_cancelled() {
        let reply = read.query_async::<redis::Value>(&mut reader).await;
        let streams = reply.and_then(|value| Ok(read_streams(value)?));
        let streams = streams.map_err(|e| redis.error(e))?;
        let Some((_, entries)) = streams.into_iter().next() else {
            continue;
        };
        let mut pipeline = redis::pipe();
        make(&mut pipeline, entries);
        answered(waiting.take(), &redis).await?;
        waiting = Some(send(pipeline, &writer));
    }
    answered(waiting, &redis).await?;
    Ok(())
}

fn acknowledge(pipeline: &mut Pipeline, stream: &str, group: &str, entries: &[Entry]) {
    let ack = pipeline.cmd("XACK").arg(stream).arg(group);
    for entry in entries {
        ack.arg(entry.id.to_string());
    }
    ack.ignore();
}

/// Routes: a mark per event, an append, and out of the inbox.
pub(super) async fn route(args: Route, common: &CommonArgs) -> Result<(), CommandError> {
    let keys = Keys::new(Some(NAMESPACE));
    let (inbox, stream, seen) = (keys.inbox(), keys.stream(STREAM), seen(&keys));
    let follow_ups = keys.stream(FOLLOW_UPS);
    pump(common, inbox.clone(), ROUTER, |pipeline, entries| {
        pipeline.atomic();
        let events: Vec<_> = entries
            .iter()
            .filter_map(|entry| {
                let event = entry.fields.get(StreamField::EVENT)?;
                let follows = entry.fields.get(StreamField::HOPS).is_some();
                Some((
                    event.get(ID_AT)?,
                    event,
                    if follows { &follow_ups } else { &stream },
                ))
            })
            .collect();
        let mark = pipeline.cmd("SADD").arg(&seen);
        for (id, ..) in &events {
            mark.arg(*id);
        }
        mark.ignore();
        for (id, event, stream) in events {
            let add = pipeline.cmd("XADD").arg(stream).arg("*");
            add.arg(StreamField::ID).arg(id);
            add.arg(StreamField::TYPE).arg(&args.event_type);
            add.arg(StreamField::TO).arg(&args.to);
            add.arg(StreamField::EVENT).arg(event).ignore();
        }
        acknowledge(pipeline, &inbox, ROUTER, &entries);
        let Some(last) = entries.last() else { return };
        if args.several {
            let delete = pipeline.cmd("XDEL").arg(&inbox);
            for entry in &entries {
                delete.arg(entry.id.to_string());
            }
            delete.ignore();
        } else {
            let after = format!("{}-{}", last.id.ms, last.id.seq + 1);
            let trim = pipeline.cmd("XTRIM").arg(&inbox);
            trim.arg("MINID").arg("=").arg(after).ignore();
        }
    })
    .await
}

/// Handles: the effect, if there is one, and the acknowledgement.
pub(super) async fn work(args: Work, common: &CommonArgs) -> Result<(), CommandError> {
    let keys = Keys::new(Some(NAMESPACE));
    let (stream, inbox) = (keys.stream(STREAM), keys.inbox());
    let handled = keys.effect(&args.subscriber, "handled");
    let recorder = Arc::new(Recorder::new()?);
    let group = args.subscriber.as_str();
    pump(common, stream.clone(), group, |pipeline, entries| {
        let events = || {
            entries
                .iter()
                .filter_map(|e| e.fields.get(StreamField::EVENT))
        };
        if args.record {
            events()
                .filter_map(sent_at)
                .for_each(|sent| recorder.since(sent));
        }
        match args.kind {
            Kind::None | Kind::Failing => {}
            Kind::OneEffect => {
                pipeline.atomic();
                for event in events() {
                    let id = event.get(ID_AT).unwrap_or_default();
                    pipeline.cmd("HSET").arg(&handled).arg(id).arg("1").ignore();
                }
            }
            Kind::FollowUp => {
                pipeline.atomic();
                let now = stamp(jiff::Timestamp::now());
                for event in events() {
                    let event = follow_up(event, group, &now);
                    let add = pipeline.cmd("XADD").arg(&inbox).arg("*");
                    add.arg(StreamField::EVENT).arg(event);
                    add.arg(StreamField::HOPS).arg("1").ignore();
                }
            }
        }
        acknowledge(pipeline, &stream, group, &entries);
        recorder.handled(entries.len() as u64);
    })
    .await?;
    recorder.write(&args.counted)
}

/// As long as what a handler publishes.
fn follow_up(event: &[u8], source: &str, now: &str) -> String {
    let id = String::from_utf8_lossy(event.get(ID_AT).unwrap_or_default());
    // The parent's, with another version.
    let own = format!(
        "{}5{}",
        id.get(..14).unwrap_or(""),
        id.get(15..).unwrap_or("")
    );
    format!(
        r#"{{"event_id":"{own}","event_type":"{FOLLOW_UP_TYPE}","version":"1","timestamp":"{now}","correlation_id":"{id}","causation_id":"{id}","source":"{source}","data":{{"order":"{id}"}}}}"#
    )
}
