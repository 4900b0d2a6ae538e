//! Bringing back from the event store what has left the streams, when a read model is rebuilt.
//!
//! Redis: reads `es:<Entity>:<id>`, the domain streams, and where events are before; writes the stream `restored:<shadow>`, with
//! entries as the router writes them, and then makes the shadow's group on it, which says that it is
//! complete.
//!
//! **Guarantee.** Of the events that the handler can restore, each is in its domain stream (or on its
//! way there) or in `restored:<shadow>`, and none in both. That is so because the shadow's groups on the
//! domain streams are there before (from then on nothing leaves these), and the histories are bounded
//! before it is looked where their events are: what is in a history by then was published, but one that a
//! command appended may still be in the inbox, wait in `scheduled`, or have been refused.

use std::collections::{BTreeMap, HashSet};

use uuid::Uuid;

use super::handler::{Handler, Restores, StoredEvent};
use crate::error::HandlerError;
use crate::event::Event;
use crate::fleet::{self, ROUTER, WantedGroup};
use crate::rebuild::{self, Gap, RebuildError};
use crate::routing::Routing;
use crate::store::{Ensure, Entry, EntryId, Keys, Link, StoreError, StreamField, Walk, scan};

/// How much of what is gone must be in the event store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restore {
    /// All of it: else nothing is restored.
    All,
    /// Whatever there is.
    Some,
}

/// Why the event store does not fill the gaps.
#[derive(Debug, thiserror::Error)]
pub enum NotHeld {
    /// Redis could not be reached, or answered with an error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The streams could not be told.
    #[error(transparent)]
    Streams(#[from] RebuildError),
    /// Events of these types are gone for good.
    #[error(
        "the event store does not hold {}: the handler restores {} (Handler::RESTORES)",
        of_streams(.types),
        or_nothing(.restored)
    )]
    Types {
        /// Types by stream.
        types: BTreeMap<String, Vec<String>>,
        /// What it does restore.
        restored: Vec<&'static str>,
    },
    /// A fact tells of an event, but not enough.
    #[error("version {version} of {key} tells too little of its event: {cause}")]
    Fact {
        /// The history.
        key: String,
        /// Position in it.
        version: u64,
        /// What is missing.
        cause: HandlerError,
    },
}

fn of_streams(types: &BTreeMap<String, Vec<String>>) -> String {
    let of = |(stream, types): (&String, &Vec<String>)| format!("{} of {stream}", types.join(", "));
    types.iter().map(of).collect::<Vec<_>>().join("; ")
}

fn or_nothing(restored: &[&'static str]) -> String {
    match restored {
        [] => "nothing".to_owned(),
        some => some.join(", "),
    }
}

/// Entries written per step.
const STEP: usize = 500;

/// Writes what is gone from the streams and can be restored, and makes the group of `shadow` on it.
/// Answers how many events that are.
pub(super) async fn restore<H: Handler>(
    handler: &H,
    how: Restore,
    link: &Link,
    keys: &Keys,
    routing: &Routing,
    subscriber: &str,
    shadow: &str,
) -> Result<u64, NotHeld> {
    let streams = rebuild::streams_of(link, keys, routing, subscriber).await?;
    let gaps = rebuild::History::read(link, keys, &streams).await?.gaps;
    let wanted = wanted(&gaps, routing, subscriber);
    let not_held = not_held(&wanted, H::RESTORES);
    if how == Restore::All && !not_held.is_empty() {
        let restored = H::RESTORES.iter().flat_map(|r| r.types).copied();
        return Err(NotHeld::Types {
            types: not_held,
            restored: restored.collect(),
        });
    }
    let types: HashSet<&str> = wanted.values().flatten().copied().collect();
    let histories = histories(link, keys, H::RESTORES, &types).await?;
    let mut known = kept(link, keys, &wanted).await?;
    let target = keys.stream(&Keys::restored_name(shadow));
    let (mut restored, mut entries) = (0, Vec::new());
    for (entity, key, last) in histories {
        let id = keys.strip(&key).splitn(3, ':').nth(2).unwrap_or_default();
        let fact_error = |version, cause| NotHeld::Fact {
            key: key.clone(),
            version,
            cause,
        };
        let mut walk = Walk::to(key.clone(), last);
        loop {
            let page = walk.page(link).await?;
            if page.is_empty() {
                break;
            }
            for entry in page {
                let version = entry.id.ms;
                let event = StoredEvent::from_entry(&key, &entry)
                    .and_then(|fact| handler.restore(entity, id, &fact))
                    .map_err(|e| fact_error(version, e))?;
                let Some(event) = event else { continue };
                if !types.contains(event.event_type()) || !known.insert(event.id()) {
                    continue;
                }
                let json = serde_json::to_vec(&event)
                    .map_err(|e| fact_error(version, HandlerError::reject(e)))?;
                entries.push((event, json));
                restored += 1;
            }
            if entries.len() >= STEP {
                write(link, &target, subscriber, &std::mem::take(&mut entries)).await?;
            }
        }
    }
    write(link, &target, subscriber, &entries).await?;
    let lease = routing.subscriber(subscriber).map(|s| s.lease);
    let group = WantedGroup {
        stream: Keys::restored_name(shadow),
        subscriber: shadow.to_owned(),
        start: "0".to_owned(),
        lease_ms: lease.unwrap_or_default().as_millis() as u64,
    };
    fleet::ensure_group(link, keys, &group, Ensure::Create).await?;
    Ok(restored)
}

/// The types that go to the subscriber on the streams of which something is gone.
fn wanted<'a>(
    gaps: &[Gap],
    routing: &'a Routing,
    subscriber: &str,
) -> BTreeMap<String, Vec<&'a str>> {
    let of = |gap: &Gap| {
        (
            gap.stream.clone(),
            routing.types_for(subscriber, &gap.stream),
        )
    };
    gaps.iter().map(of).collect()
}

/// Those of them that cannot be restored.
fn not_held(
    wanted: &BTreeMap<String, Vec<&str>>,
    restores: &[Restores],
) -> BTreeMap<String, Vec<String>> {
    let held = |name: &str| restores.iter().any(|r| r.types.contains(&name));
    let lacking = wanted.iter().map(|(stream, types)| {
        let types = types.iter().filter(|name| !held(name));
        (stream.clone(), types.map(ToString::to_string).collect())
    });
    lacking
        .filter(|(_, types): &(_, Vec<_>)| !types.is_empty())
        .collect()
}

/// The histories to look through: entity, key, and how far.
async fn histories(
    link: &Link,
    keys: &Keys,
    restores: &[Restores],
    types: &HashSet<&str>,
) -> Result<Vec<(&'static str, String, EntryId)>, StoreError> {
    let mut found = Vec::new();
    for held in restores {
        if !held.types.iter().any(|name| types.contains(name)) {
            continue;
        }
        let all = scan(link, &keys.entity(held.entity, "*"), Some("stream")).await?;
        for part in all.chunks(STEP) {
            let mut ask = redis::pipe();
            for key in part {
                ask.cmd("XREVRANGE").arg(key).arg("+").arg("-");
                ask.arg("COUNT").arg(1);
            }
            let last: Vec<Vec<Entry>> = link
                .run(|mut c| {
                    let ask = &ask;
                    async move { ask.query_async(&mut c).await }
                })
                .await?;
            let of = |(key, last): (&String, &Vec<Entry>)| {
                Some((held.entity, key.clone(), last.first()?.id))
            };
            found.extend(part.iter().zip(&last).filter_map(of));
        }
    }
    Ok(found)
}

/// The events that are in these streams, or on their way there, looked for in the order in which they
/// move: none is missed that moves meanwhile.
async fn kept<T>(
    link: &Link,
    keys: &Keys,
    streams: &BTreeMap<String, T>,
) -> Result<HashSet<Uuid>, StoreError> {
    let of_field = |entry: &Entry| entry.fields.text(StreamField::ID)?.parse().ok();
    let of_event = |entry: &Entry| {
        let event = entry.fields.get(StreamField::EVENT)?;
        Event::from_json(event).ok().map(|event| event.id())
    };
    let mut kept = HashSet::new();
    // Twice: a letter of the router may be redriven meanwhile, which takes it back to the inbox.
    for _ in 0..2 {
        kept.extend(ids_in(link, keys.dead(ROUTER), of_field).await?);
        kept.extend(ids_in(link, keys.inbox(), of_event).await?);
    }
    let mut scheduled = redis::cmd("HKEYS");
    scheduled.arg(keys.scheduled_events());
    let scheduled: Vec<String> = link
        .run(|mut c| async move { scheduled.query_async(&mut c).await })
        .await?;
    kept.extend(scheduled.iter().filter_map(|id| id.parse::<Uuid>().ok()));
    kept.extend(ids_in(link, keys.dead(ROUTER), of_field).await?);
    for stream in streams.keys() {
        kept.extend(ids_in(link, keys.stream(stream), of_field).await?);
    }
    Ok(kept)
}

async fn ids_in(
    link: &Link,
    key: String,
    id: impl Fn(&Entry) -> Option<Uuid>,
) -> Result<HashSet<Uuid>, StoreError> {
    let (mut walk, mut ids) = (Walk::to(key, EntryId::LAST), HashSet::new());
    loop {
        let page = walk.page(link).await?;
        if page.is_empty() {
            return Ok(ids);
        }
        ids.extend(page.iter().filter_map(&id));
    }
}

async fn write(
    link: &Link,
    target: &str,
    subscriber: &str,
    entries: &[(Event, Vec<u8>)],
) -> Result<(), StoreError> {
    if entries.is_empty() {
        return Ok(());
    }
    let mut add = redis::pipe();
    for (event, json) in entries {
        add.cmd("XADD").arg(target).arg("*");
        add.arg(StreamField::ID).arg(event.id().to_string());
        add.arg(StreamField::TYPE).arg(event.event_type());
        add.arg(StreamField::TO).arg(subscriber);
        add.arg(StreamField::EVENT).arg(json);
    }
    link.run(|mut c| async move { add.exec_async(&mut c).await })
        .await
}
