//! The event store from outside: which entities there are, their histories, and where sagas stand.
//! Read only, for the operator.
//!
//! Redis: SCAN for `es:*`, `sagas:*` and `worker:*`; XLEN, MEMORY USAGE and XRANGE of histories. What is
//! written meanwhile may be missing.

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use crate::store::{Entry, Keys, Link, StoreError, scan};
use crate::worker::StoredEvent;
use crate::worker::saga::Standing;

/// Questions to Redis that are under way at a time.
const AT_A_TIME: usize = 64;

/// An entity, and what its history takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EntitySize {
    /// What kind of entity: `Order`.
    pub entity: String,
    /// Which one.
    pub id: String,
    /// How many events its history has.
    pub events: u64,
    /// Bytes of memory that the history takes.
    pub bytes: u64,
}

/// A saga that is not over.
#[derive(Debug, Clone, Serialize)]
pub struct OpenSaga {
    /// What kind of saga: the entity.
    pub saga: String,
    /// Which one.
    pub id: String,
    /// Where it stands.
    #[serde(flatten)]
    pub standing: Standing,
}

/// What one process asked of the event store since its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoreUse {
    /// Whose worker.
    pub subscriber: String,
    /// Its name.
    pub worker: String,
    /// Histories that were read.
    pub loads: Took,
    /// Commits that appended to one.
    pub appends: Took,
}

/// How often, and how long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Took {
    /// How often.
    pub count: u64,
    /// How long on average, microseconds.
    pub mean_us: u64,
    /// How long at most, microseconds.
    pub max_us: u64,
}

/// What each live worker asked of the event store; nothing of who asked nothing. As old as its last
/// sign of life.
///
/// # Errors
/// Redis could not be asked.
pub async fn store_use(link: &Link, keys: &Keys) -> Result<Vec<StoreUse>, StoreError> {
    let mut all = Vec::new();
    for key in scan(link, &keys.worker("*", "*"), Some("hash")).await? {
        let asked = key.as_str();
        let figures: Vec<Option<u64>> = link
            .run(|mut c| async move {
                let mut read = redis::cmd("HMGET");
                read.arg(asked).arg(&["loads", "loads_us", "loads_max_us"]);
                read.arg(&["appends", "appends_us", "appends_max_us"]);
                read.query_async(&mut c).await
            })
            .await?;
        let took = |at: usize| {
            let number = |n: usize| figures.get(at + n).copied().flatten().unwrap_or(0);
            Took {
                count: number(0),
                mean_us: number(1).checked_div(number(0)).unwrap_or(0),
                max_us: number(2),
            }
        };
        let (loads, appends) = (took(0), took(3));
        let mut parts = keys.strip(&key).splitn(3, ':').skip(1);
        let mut part = || parts.next().unwrap_or_default().to_owned();
        if loads.count + appends.count > 0 {
            let (subscriber, worker) = (part(), part());
            all.push(StoreUse {
                subscriber,
                worker,
                loads,
                appends,
            });
        }
    }
    Ok(all)
}

/// All entities, or all of one kind, by kind and ID.
///
/// # Errors
/// Redis could not be asked.
pub async fn entities(
    link: &Link,
    keys: &Keys,
    entity: Option<&str>,
) -> Result<Vec<EntitySize>, StoreError> {
    let glob = keys.entity(entity.unwrap_or("*"), "*");
    let found = scan(link, &glob, Some("stream")).await?;
    let sizes = stream::iter(found).map(|key| async move {
        let (link, asked) = (link, key.as_str());
        let (events, bytes): (u64, Option<u64>) = link
            .run(|mut c| async move {
                redis::pipe()
                    .cmd("XLEN")
                    .arg(asked)
                    .cmd("MEMORY")
                    .arg("USAGE")
                    .arg(asked)
                    .query_async(&mut c)
                    .await
            })
            .await?;
        let mut parts = keys.strip(&key).splitn(3, ':').skip(1);
        Ok(EntitySize {
            entity: parts.next().unwrap_or_default().to_owned(),
            id: parts.next().unwrap_or_default().to_owned(),
            events,
            bytes: bytes.unwrap_or(0),
        })
    });
    sizes.buffered(AT_A_TIME).try_collect().await
}

/// The history of an entity, oldest first; entries that are no events are left out.
///
/// # Errors
/// Redis could not be asked.
pub async fn history(
    link: &Link,
    keys: &Keys,
    entity: &str,
    id: &str,
) -> Result<Vec<StoredEvent>, StoreError> {
    let key = keys.entity(entity, id);
    let asked = key.as_str();
    let entries: Vec<Entry> = link
        .run(|mut c| async move {
            let mut range = redis::cmd("XRANGE");
            range.arg(asked).arg("-").arg("+");
            range.query_async(&mut c).await
        })
        .await?;
    let events = entries.iter().map(|e| StoredEvent::from_entry(&key, e));
    Ok(events.filter_map(Result::ok).collect())
}

/// The sagas that are not over, of all kinds or of one, by kind and ID.
///
/// # Errors
/// Redis could not be asked.
pub async fn open_sagas(
    link: &Link,
    keys: &Keys,
    saga: Option<&str>,
) -> Result<Vec<OpenSaga>, StoreError> {
    let mut open = Vec::new();
    for key in scan(link, &keys.sagas(saga.unwrap_or("*")), Some("hash")).await? {
        let asked = key.as_str();
        let mut standings: Vec<(String, Vec<u8>)> = link
            .run(|mut c| async move { redis::cmd("HGETALL").arg(asked).query_async(&mut c).await })
            .await?;
        // Numbers among IDs in their own order.
        standings.sort_by(|(a, _), (b, _)| (a.len(), a).cmp(&(b.len(), b)));
        let kind = keys.strip(&key).split_once(':').map_or("", |(_, k)| k);
        open.extend(standings.into_iter().map(|(id, standing)| OpenSaga {
            saga: kind.to_owned(),
            id,
            standing: serde_json::from_slice(&standing).unwrap_or_default(),
        }));
    }
    Ok(open)
}
