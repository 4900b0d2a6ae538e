//! What the doctor asks Redis. Nothing is changed; what this user may not ask is a fact as well.

use std::collections::HashMap;
use std::time::Duration;

use super::super::{CommandError, Session};
use super::memory::{Memory, StreamSize};
use super::proof::Proof;
use crate::fleet::{GroupRecord, group_records};
use crate::routing::Routing;
use crate::status::{self, Answers, Snapshot, WorkerStatus};
use crate::store::{self, EntryId, ServerFacts, StoreError};
use crate::time;

/// Everything that is judged.
pub(super) struct Facts {
    pub(super) routing: std::sync::Arc<Routing>,
    pub(super) patience: Duration,
    pub(super) proof: Proof,
    /// What is to be said about the server.
    pub(super) server: Vec<store::Finding>,
    /// What Redis would not answer to this user.
    pub(super) denied: Vec<String>,
    /// Whether scripts run for this user.
    pub(super) scripts: bool,
    pub(super) snapshot: Option<Snapshot>,
    pub(super) workers: Vec<WorkerStatus>,
    pub(super) groups: HashMap<(String, String), GroupRecord>,
    /// How long the oldest delivery of a group is owed, ms.
    pub(super) oldest_ms: HashMap<(String, String), u64>,
    pub(super) memory: Option<Memory>,
    pub(super) sizes: Vec<StreamSize>,
}

pub(super) async fn gather(session: &Session, patience: Duration) -> Result<Facts, CommandError> {
    let (link, keys, routing) = (&session.link, &session.keys, &session.config.routing);
    let mut denied = Vec::new();
    let server = ServerFacts::read(link.redis()).await?;
    // A transaction that may not begin would cost the client its connection.
    let snapshot = match told(transactions(session).await, &mut denied)? {
        Some(()) => told(status::collect(link, keys, routing).await, &mut denied)?,
        None => None,
    };
    let workers = told(status::workers(link, keys, None).await, &mut denied)?;
    let groups = told(group_records(link, keys).await, &mut denied)?.unwrap_or_default();
    let oldest = oldest(session, groups.keys(), &snapshot).await;
    let sizes = told(sizes(session, snapshot.as_ref()).await, &mut denied)?;
    let node = setting(session, "stream-node-max-bytes").await;
    // (That CONFIG may not be asked is among what the server's own findings note.)
    let node = told(node, &mut Vec::new())?.flatten();
    // As our own scripts are run: by their hash, and loaded where Redis does not know it.
    let script = redis::Script::new("return 1");
    let script: Result<u64, StoreError> = link
        .run(|mut c| async move { script.invoke_async(&mut c).await })
        .await;
    Ok(Facts {
        routing: std::sync::Arc::clone(routing),
        patience,
        proof: Proof::new(link.redis(), keys),
        memory: server.info.as_ref().map(|info| Memory::of(info, node)),
        server: store::findings(&server),
        scripts: told(script, &mut denied)?.is_some(),
        snapshot,
        workers: workers.unwrap_or_default(),
        oldest_ms: told(oldest, &mut denied)?.unwrap_or_default(),
        groups,
        sizes: sizes.unwrap_or_default(),
        denied,
    })
}

/// Whether this user may begin a transaction.
async fn transactions(session: &Session) -> Result<(), StoreError> {
    let redis = session.link.redis();
    let mut connection = redis.dedicated(Duration::ZERO).await?;
    let begun = redis::cmd("MULTI").exec_async(&mut connection).await;
    begun.map_err(|e| redis.error(e))
}

/// What this user may not ask is noted, every other error is one.
fn told<T>(
    asked: Result<T, StoreError>,
    denied: &mut Vec<String>,
) -> Result<Option<T>, CommandError> {
    match asked {
        Ok(answer) => Ok(Some(answer)),
        Err(error) => {
            let cause = error.redis().filter(|cause| cause.code() == Some("NOPERM"));
            match cause {
                Some(cause) => {
                    let detail = cause.detail().unwrap_or("it may not ask").to_owned();
                    if !denied.contains(&detail) {
                        denied.push(detail);
                    }
                    Ok(None)
                }
                None => Err(error.into()),
            }
        }
    }
}

/// How long the oldest delivery of each group that exists is owed.
async fn oldest(
    session: &Session,
    groups: impl Iterator<Item = &(String, String)>,
    snapshot: &Option<Snapshot>,
) -> Result<HashMap<(String, String), u64>, StoreError> {
    let now = snapshot.as_ref().map_or(0, |s| time::to_ms(s.at));
    let groups: Vec<_> = groups.cloned().collect();
    let mut ask = redis::pipe();
    for (stream, group) in &groups {
        ask.cmd("XPENDING")
            .arg(session.keys.stream(stream))
            .arg(group);
        ask.arg("-").arg("+").arg(1);
    }
    let mut answers = answers(session, ask).await?;
    let mut oldest = HashMap::new();
    for pair in groups {
        // (A group that is lost has no answer.)
        let rows = answers.take::<Vec<(EntryId, String, u64, u64)>>();
        let rows = rows.map_err(|e| session.link.redis().error(e))?;
        if let Some((id, ..)) = rows.unwrap_or_default().first() {
            oldest.insert(pair, now.saturating_sub(id.ms));
        }
    }
    Ok(oldest)
}

/// What the domain streams take.
async fn sizes(
    session: &Session,
    snapshot: Option<&Snapshot>,
) -> Result<Vec<StreamSize>, StoreError> {
    let streams = snapshot.map(|s| s.streams.as_slice()).unwrap_or_default();
    let mut ask = redis::pipe();
    for stream in streams {
        ask.cmd("MEMORY").arg("USAGE");
        ask.arg(session.keys.stream(&stream.name))
            .arg("SAMPLES")
            .arg(10);
    }
    let mut answers = answers(session, ask).await?;
    let sizes = streams.iter().map(|stream| {
        let bytes = answers.take().map_err(|e| session.link.redis().error(e))?;
        Ok(StreamSize {
            name: stream.name.clone(),
            entries: stream.length,
            span_ms: match (stream.first_ms, stream.last_ms) {
                (Some(first), Some(last)) => first.saturating_sub(last),
                _ => 0,
            },
            bytes: bytes.unwrap_or(0),
        })
    });
    sizes.collect()
}

async fn answers(session: &Session, pipeline: redis::Pipeline) -> Result<Answers, StoreError> {
    let answers = status::ask(&session.link, pipeline).await?;
    Ok(Answers(answers.into_iter()))
}

async fn setting(session: &Session, name: &str) -> Result<Option<u64>, StoreError> {
    let found: HashMap<String, String> = session
        .link
        .run(|mut c| async move {
            let mut ask = redis::cmd("CONFIG");
            ask.arg("GET").arg(name).query_async(&mut c).await
        })
        .await?;
    Ok(found.get(name).and_then(|value| value.parse().ok()))
}
