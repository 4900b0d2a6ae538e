//! Moving entries on: from the inbox to the domain streams, and dead letters back.

use std::collections::HashMap;
use std::sync::Arc;

use redis::RedisError;
use redis::aio::MultiplexedConnection;

use super::super::codec::{EntryId, Fields};
use super::{Fence, Holder, REDRIVE, ROUTE, flag, push_fields};

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
    /// Keep it until it is due, unless it is a duplicate.
    Schedule {
        /// Event ID, the key of deduplication.
        event_id: String,
        /// Content hash, to tell a duplicate from a conflict.
        content: String,
        /// Event type.
        event_type: String,
        /// When it is due, milliseconds since 1970.
        due_ms: u64,
        /// Length of the chain of follow-ups.
        hops: u32,
        /// The bytes as received.
        event: Vec<u8>,
    },
    /// Refuse it: the fields of the dead letter.
    Dead(Fields),
}

/// Where an entry goes, and what is written there besides the event: what many entries have in
/// common, which is sent once, because a script pays for each argument.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Way<'a> {
    Append {
        target: usize,
        event_type: &'a str,
        to: &'a str,
        hops: u32,
    },
    Schedule {
        event_type: &'a str,
        due_ms: u64,
        hops: u32,
    },
}

impl Routed {
    fn way(&self) -> Option<Way<'_>> {
        match self {
            Self::Append {
                target,
                event_type,
                to,
                hops,
                ..
            } => Some(Way::Append {
                target: *target,
                event_type,
                to,
                hops: *hops,
            }),
            Self::Schedule {
                event_type,
                due_ms,
                hops,
                ..
            } => Some(Way::Schedule {
                event_type,
                due_ms: *due_ms,
                hops: *hops,
            }),
            Self::Dead(_) => None,
        }
    }
}

/// Where a batch is recorded, if it is audited.
#[derive(Clone, Copy, Debug)]
pub struct Audit<'a> {
    /// Key of the stream.
    pub stream: &'a str,
    /// Who published each entry, in their order, where that is known.
    pub sources: &'a [Option<String>],
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
    /// Kept until they are due.
    pub scheduled: u64,
}

impl std::ops::AddAssign for RouteCounts {
    fn add_assign(&mut self, other: Self) {
        self.routed += other.routed;
        self.duplicates += other.duplicates;
        self.conflicts += other.conflicts;
        self.refused += other.refused;
        self.fenced += other.fenced;
        self.scheduled += other.scheduled;
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
    /// Keys of the scheduled events: when each is due, and what it is.
    pub scheduled: [&'a str; 2],
    /// Now, for the letters that the script writes.
    pub now: &'a str,
    /// The entries, in the order of their IDs.
    pub entries: &'a [(Fence, Routed)],
    /// Whether they are all that a read brought, so that the inbox has nothing else between them.
    pub contiguous: bool,
    /// Where it is recorded; such a batch is none for a transaction.
    pub audit: Option<Audit<'a>>,
}

/// In KEYS of `route.lua`: inbox, dead letters, counters and attempts come first.
const FIRST_SEEN_KEY: usize = 5;

/// Routes a batch in one atomic step.
pub async fn route<'a>(
    connection: &mut MultiplexedConnection,
    batch: &RouteBatch<'a>,
) -> Result<RouteCounts, RedisError> {
    if batch.entries.is_empty() {
        return Ok(RouteCounts::default());
    }
    let mut ways: Vec<Way<'_>> = Vec::new();
    let mut known = HashMap::new();
    let mut number_of = |routed: &'a Routed| match routed.way() {
        Some(way) => *known.entry(way).or_insert_with(|| {
            ways.push(way);
            ways.len()
        }),
        None => 0,
    };
    let entries = batch.entries.iter();
    let numbers: Vec<usize> = entries.map(|(_, routed)| number_of(routed)).collect();
    let mut call = ROUTE.key(&batch.inbox.stream);
    call.key(batch.dead)
        .key(&batch.inbox.stats)
        .key(&batch.inbox.attempts)
        .key(batch.seen)
        .key(batch.targets);
    let later = ways.iter().any(|way| matches!(way, Way::Schedule { .. }));
    if later {
        call.key(&batch.scheduled[..]);
    }
    if let Some(audit) = batch.audit {
        call.key(audit.stream);
    }
    let bytes = batch.entries.iter().map(|(_, routed)| match routed {
        Routed::Append { event, .. } | Routed::Schedule { event, .. } => event.len() + 100,
        Routed::Dead(letter) => letter.0.iter().map(|(n, v)| n.len() + v.len()).sum(),
    });
    call.reserve(10 + 7 * batch.entries.len(), bytes.sum());
    call.arg(&batch.inbox.group)
        .arg(&batch.inbox.consumer)
        .arg(batch.seen.len())
        .arg(batch.seen_ttl_ms)
        .arg(batch.now)
        .arg(flag(batch.contiguous))
        .arg(flag(numbers.contains(&0)))
        .arg(batch.targets.len())
        .arg(ways.len());
    for way in ways {
        match way {
            Way::Append {
                target,
                event_type,
                to,
                hops,
            } => {
                let key = FIRST_SEEN_KEY + batch.seen.len() + target;
                call.arg(key).arg(event_type).arg(to).arg(hops);
            }
            Way::Schedule {
                event_type,
                due_ms,
                hops,
            } => {
                call.arg(0).arg(event_type).arg(due_ms).arg(hops);
            }
        }
    }
    call.arg(flag(batch.audit.is_some()));
    let mut sources = batch.audit.map(|audit| audit.sources.iter());
    for ((fence, routed), number) in batch.entries.iter().zip(numbers) {
        call.arg(fence.id).arg(fence.count).arg(number);
        match routed {
            Routed::Append {
                event_id,
                content,
                event,
                ..
            }
            | Routed::Schedule {
                event_id,
                content,
                event,
                ..
            } => {
                call.arg(event_id).arg(content).arg(event.as_slice());
            }
            Routed::Dead(letter) => {
                call.arg(letter.0.len() * 2);
                push_fields(&mut call, letter);
            }
        }
        if let Some(sources) = &mut sources {
            let source = sources.next().and_then(Option::as_deref);
            call.arg(source.unwrap_or_default());
        }
    }
    let (routed, duplicates, conflicts, refused, fenced, scheduled) =
        call.invoke_async(connection).await?;
    Ok(RouteCounts {
        routed,
        duplicates,
        conflicts,
        refused,
        fenced,
        scheduled,
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
