//! Moving entries on: from the inbox to the domain streams, and dead letters back.

use std::sync::Arc;

use redis::RedisError;
use redis::aio::MultiplexedConnection;

use super::super::codec::{EntryId, Fields};
use super::{Fence, Holder, REDRIVE, ROUTE, push_fields};

/// What the router wants done with one entry of the inbox.
#[derive(Clone, Debug)]
pub enum Routed {
    /// Append it to a domain stream, unless it is a duplicate.
    Append {
        /// Event ID, the key of deduplication.
        event_id: String,
        /// Content hash, to tell a duplicate from a conflict.
        content: String,
        /// Index into the batch's targets.
        target: usize,
        /// Event type.
        event_type: String,
        /// Comma-separated subscribers.
        to: Arc<str>,
        /// Length of the chain of follow-ups.
        hops: u32,
        /// The bytes as received.
        event: Vec<u8>,
    },
    /// Refuse it: the fields of the dead letter.
    Dead(Fields),
}

/// Counts of one routed batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteCounts {
    /// Appended to a domain stream.
    pub routed: u64,
    /// Seen before with the same content: dropped.
    pub duplicates: u64,
    /// Seen before with another content: refused.
    pub conflicts: u64,
    /// Refused for another reason.
    pub refused: u64,
    /// No longer ours: another router has them.
    pub fenced: u64,
}

impl std::ops::AddAssign for RouteCounts {
    fn add_assign(&mut self, other: Self) {
        self.routed += other.routed;
        self.duplicates += other.duplicates;
        self.conflicts += other.conflicts;
        self.refused += other.refused;
        self.fenced += other.fenced;
    }
}

/// A batch for [`route`].
pub struct RouteBatch<'a> {
    /// Keys: inbox, dead letters, counters.
    pub inbox: &'a Holder,
    /// Key of `dead:router`.
    pub dead: &'a str,
    /// Keys of the seen buckets, the current one first.
    pub seen: &'a [String],
    /// Life of a bucket, milliseconds.
    pub seen_ttl_ms: u64,
    /// Keys of the domain streams that `Routed::Append::target` points into.
    pub targets: &'a [String],
    /// Now, for the letters that the script writes.
    pub now: &'a str,
    /// The entries, in the order of their IDs.
    pub entries: &'a [(Fence, Routed)],
}

/// In KEYS of `route.lua`: inbox, dead letters, counters and attempts come first.
const FIRST_SEEN_KEY: usize = 5;

/// Routes a batch in one atomic step.
pub async fn route(
    connection: &mut MultiplexedConnection,
    batch: &RouteBatch<'_>,
) -> Result<RouteCounts, RedisError> {
    let (Some(first), Some(last)) = (batch.entries.first(), batch.entries.last()) else {
        return Ok(RouteCounts::default());
    };
    let mut call = ROUTE.key(&batch.inbox.stream);
    call.key(batch.dead)
        .key(&batch.inbox.stats)
        .key(&batch.inbox.attempts)
        .key(batch.seen)
        .key(batch.targets);
    call.arg(&batch.inbox.group)
        .arg(&batch.inbox.consumer)
        .arg(batch.seen.len());
    call.arg(batch.seen_ttl_ms)
        .arg(batch.now)
        .arg(first.0.id.to_string())
        .arg(last.0.id.to_string());
    for (fence, routed) in batch.entries {
        call.arg(fence.id.to_string()).arg(fence.count);
        match routed {
            Routed::Append {
                event_id,
                content,
                target,
                event_type,
                to,
                hops,
                event,
            } => {
                let key = FIRST_SEEN_KEY + batch.seen.len() + target;
                call.arg("route")
                    .arg(event_id)
                    .arg(content)
                    .arg(key)
                    .arg(event_type);
                call.arg(&**to).arg(*hops).arg(event.as_slice());
            }
            Routed::Dead(letter) => {
                call.arg("dead").arg(letter.0.len() * 2);
                push_fields(&mut call, letter);
            }
        }
    }
    let (routed, duplicates, conflicts, refused, fenced) = call.invoke_async(connection).await?;
    Ok(RouteCounts {
        routed,
        duplicates,
        conflicts,
        refused,
        fenced,
    })
}

/// Moves a dead letter to `target` as a new entry; false if it is no longer there.
pub async fn redrive(
    connection: &mut MultiplexedConnection,
    dead: &str,
    target: &str,
    letter: EntryId,
    fields: &Fields,
) -> Result<bool, RedisError> {
    let mut call = REDRIVE.key(dead);
    call.key(target).arg(letter.to_string());
    push_fields(&mut call, fields);
    call.invoke_async(connection).await
}
