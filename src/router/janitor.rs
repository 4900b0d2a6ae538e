//! The janitor: trims history that nobody needs any more, removes dead consumers and forgets dead
//! processes.
//!
//! Redis: XTRIM on the domain streams, on `dead:*` and on `audit`, XGROUP DELCONSUMER, fields of `fleet`.
//! Guarantee: nothing that a group has yet to settle is trimmed, and no consumer that owns a
//! delivery is deleted. Each step is one script, so several janitors do not disturb each other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::failpoint::failpoint;
use crate::fleet::{self, ROUTER, WORKER_TTL};
use crate::routing::Config;
use crate::store::{self, EntryId, Keys, Link, RELEASED, RETRY, StoreError};

const EVERY: Duration = Duration::from_secs(5);
/// Entries that one call looks over: it must not hold Redis up.
const STEP: usize = 500;

/// Cleans up until dropped.
pub(crate) async fn run(link: Link, keys: Keys, config: watch::Receiver<Arc<Config>>) {
    loop {
        let current = config.borrow().clone();
        if let Err(error) = clean(&link, &keys, &current).await {
            tracing::warn!(%error, "cleaning up was interrupted; it goes on in a moment");
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn clean(link: &Link, keys: &Keys, config: &Config) -> Result<(), StoreError> {
    let records = fleet::group_records(link, keys).await?;
    // By the clock that numbered the entries: ours may be wrong, and what is gone is gone.
    let now = link
        .run(|mut c| async move { store::time(&mut c).await })
        .await?;
    let routing = &config.routing;
    for stream in routing.streams() {
        // What is configured must exist, and what ever existed and was not retired as well.
        let configured = routing
            .subscribers()
            .filter(|s| routing.streams_of(&s.name).contains(&stream.name));
        let mut groups: BTreeSet<String> = configured.map(|s| s.name.to_string()).collect();
        // (The shadow of a rebuild ends by itself: while it is there, it counts as any group.)
        groups.extend(
            records
                .keys()
                .filter(|(name, group)| **name == *stream.name && Keys::shadow_of(group).is_none())
                .map(|(_, group)| group.clone()),
        );
        let groups: Vec<String> = groups.into_iter().collect();
        let key = keys.stream(&stream.name);
        go_on(
            &key,
            trim(
                link,
                &key,
                stream.maxlen,
                stream.retention.map(|r| since(now, r)),
                &groups,
            )
            .await,
        );
    }
    let subscribers: BTreeSet<&str> = records
        .keys()
        .map(|(_, s)| s.as_str())
        .chain(routing.subscribers().map(|s| &*s.name))
        .collect();
    for subscriber in subscribers.iter().copied().chain([ROUTER]) {
        let key = keys.dead(subscriber);
        go_on(
            &key,
            trim(
                link,
                &key,
                None,
                Some(since(now, routing.dead_retention())),
                &[],
            )
            .await,
        );
    }
    if let Some(audit) = routing.audit() {
        let (key, oldest) = (keys.audit(), audit.retention.map(|r| since(now, r)));
        go_on(&key, trim(link, &key, audit.maxlen, oldest, &[]).await);
    }
    for (stream, subscriber) in records.keys() {
        go_on(stream, drop_ghosts(link, keys, stream, subscriber).await);
    }
    fleet::forget_dead(link, keys).await
}

/// One stream that cannot be cleaned costs no other its cleaning.
fn go_on(stream: &str, outcome: Result<(), StoreError>) {
    if let Err(error) = outcome {
        tracing::warn!(%error, stream, "cannot clean up this stream");
    }
}

/// The oldest entry that is to stay.
fn since(now: Duration, retention: Duration) -> EntryId {
    EntryId {
        ms: now.saturating_sub(retention).as_millis() as u64,
        seq: 0,
    }
}

async fn trim(
    link: &Link,
    key: &str,
    maxlen: Option<u64>,
    oldest: Option<EntryId>,
    groups: &[String],
) -> Result<(), StoreError> {
    failpoint!("router.trimming");
    loop {
        let step = link
            .run(
                |mut c| async move { store::trim(&mut c, key, maxlen, oldest, STEP, groups).await },
            )
            .await?;
        failpoint!("router.trimmed");
        if !step.missing.is_empty() {
            tracing::error!(
                stream = key,
                group = step.missing,
                "not trimmed: this group should exist and does not; see streamfleet group list"
            );
        } else if !step.held_by.is_empty() {
            tracing::warn!(
                stream = key,
                group = step.held_by,
                above_maxlen = step.excess,
                "kept above its limits: this group has not settled what should go"
            );
        }
        if step.trimmed == 0 || step.excess == 0 {
            return Ok(());
        }
    }
}

/// Removes consumers whose process is gone and that own nothing.
async fn drop_ghosts(
    link: &Link,
    keys: &Keys,
    stream: &str,
    subscriber: &str,
) -> Result<(), StoreError> {
    let holder = fleet::holder(keys, stream, subscriber, "");
    let listed = link
        .run(|mut c| async move {
            let mut query = redis::cmd("XINFO");
            query
                .arg("CONSUMERS")
                .arg(keys.stream(stream))
                .arg(subscriber);
            query
                .query_async::<redis::streams::StreamInfoConsumersReply>(&mut c)
                .await
        })
        .await;
    let consumers = match listed {
        Ok(reply) => reply.consumers,
        // A lost group is others' to announce.
        Err(error) if error.redis().is_some_and(store::is_dataset_gone) => return Ok(()),
        Err(error) => return Err(error),
    };
    let idle_ms = WORKER_TTL.as_millis() as usize * 2;
    for consumer in consumers {
        let reserved = consumer.name == RETRY || consumer.name == RELEASED;
        if reserved || consumer.pending > 0 || consumer.idle < idle_ms {
            continue;
        }
        let Some((name, nonce)) = consumer.name.rsplit_once('.') else {
            continue;
        };
        let worker = keys.worker(subscriber, name);
        let alive: Option<String> = link
            .run(|mut c| async move {
                redis::cmd("HGET")
                    .arg(worker)
                    .arg("nonce")
                    .query_async(&mut c)
                    .await
            })
            .await?;
        if alive.as_deref() != Some(nonce) {
            let (holder, ghost) = (&holder, &consumer.name);
            if link
                .run(|mut c| async move { holder.drop_consumer(&mut c, ghost).await })
                .await?
            {
                tracing::info!(
                    stream,
                    subscriber,
                    consumer = consumer.name,
                    "removed a dead consumer"
                );
            }
        }
    }
    Ok(())
}
