//! The scripts: one `.lua` file each, which documents its KEYS, ARGV and answers; here they are
//! named, flagged and called. Settling and trimming, and what a worker needs to start, may run
//! when Redis is out of memory (`allow-oom`), because only they can free any; bringing in new
//! work (routing, redriving) may not.

use std::sync::LazyLock;

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, ParsingError, RedisError, Script, ScriptInvocation, Value};

use super::codec::{EntryId, Fields};

macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident = $flags:literal, $file:literal;)*) => {$(
        $(#[$doc])*
        static $name: LazyLock<Script> = LazyLock::new(|| {
            Script::new(concat!("#!lua", $flags, "\n", include_str!("lua/prelude.lua"), include_str!($file)))
        });
    )*};
}

scripts! {
    ACK = " flags=allow-oom", "lua/ack.lua";
    COMMIT = " flags=allow-oom", "lua/commit.lua";
    PARK = " flags=allow-oom", "lua/park.lua";
    DEAD_LETTER = " flags=allow-oom", "lua/dead_letter.lua";
    RECLAIM = " flags=allow-oom", "lua/reclaim.lua";
    MARK_STARTED = " flags=allow-oom", "lua/mark_started.lua";
    TAKE_OVER = " flags=allow-oom", "lua/take_over.lua";
    RENEW = " flags=allow-oom", "lua/renew.lua";
    TRIM = " flags=allow-oom", "lua/trim.lua";
    DROP_CONSUMER = " flags=allow-oom", "lua/drop_consumer.lua";
    REGISTER_WORKER = " flags=allow-oom", "lua/register_worker.lua";
    ROUTE = "", "lua/route.lua";
    JOIN_FLEET = " flags=allow-oom", "lua/join_fleet.lua";
    ENSURE_GROUP = " flags=allow-oom", "lua/ensure_group.lua";
    RETIRE_GROUP = " flags=allow-oom", "lua/retire_group.lua";
    REDRIVE = "", "lua/redrive.lua";
}

/// What became of an attempt to settle a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It was ours and is settled now.
    Done,
    /// It is not pending any more. After a resend: the first send did it.
    Gone,
    /// It belongs to another consumer by now; nothing was written.
    Fenced,
    /// Its entry was deleted under us.
    Lost,
}

impl FromRedisValue for Settled {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let text = String::from_redis_value(value)?;
        Self::parse(&text)
            .ok_or_else(|| format!("unknown answer {text:?} of a settle script").into())
    }
}

impl Settled {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "HELD" => Self::Done,
            "GONE" => Self::Gone,
            "FENCED" => Self::Fenced,
            "LOST" => Self::Lost,
            _ => return None,
        })
    }
}

/// What became of a commit with effects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    /// As for every settle.
    Settled(Settled),
    /// A condition no longer held; nothing was written.
    Conflict,
    /// An effect could not be applied; nothing was written. Why.
    Invalid(String),
}

impl FromRedisValue for Committed {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let mut words = Vec::<String>::from_redis_value(value)?.into_iter();
        let word = words.next().unwrap_or_default();
        match (word.as_str(), Settled::parse(&word)) {
            (_, Some(settled)) => Ok(Self::Settled(settled)),
            ("CONFLICT", _) => Ok(Self::Conflict),
            ("INVALID", _) => Ok(Self::Invalid(words.next().unwrap_or_default())),
            _ => Err(format!("unknown answer {word:?} of the commit script").into()),
        }
    }
}

/// A delivery as the fence knows it: which entry, under which delivery count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fence {
    /// The entry.
    pub id: EntryId,
    /// Redis' delivery count when it was handed to us.
    pub count: u64,
}

/// The group and consumer on whose behalf a script runs, and the keys of their stream.
#[derive(Clone, Debug)]
pub struct Holder {
    /// Key of the stream.
    pub stream: String,
    /// Key of the hash of troubled deliveries.
    pub attempts: String,
    /// Key of the counters.
    pub stats: String,
    /// Group: the subscriber.
    pub group: String,
    /// Consumer: `<name>.<nonce>`.
    pub consumer: String,
    /// Whether settled entries are deleted (a redrive stream) or kept as history.
    pub delete_settled: bool,
}

fn flag(value: bool) -> &'static str {
    if value { "1" } else { "0" }
}

impl Holder {
    fn settle<'a>(&'a self, script: &'a Script) -> ScriptInvocation<'a> {
        let mut call = script.key(&self.stream);
        call.key(&self.attempts);
        call
    }

    /// Acknowledges deliveries without effects; `troubled`: it has a record in `attempts`.
    pub async fn ack(
        &self,
        connection: &mut MultiplexedConnection,
        deliveries: &[(Fence, bool)],
    ) -> Result<Vec<Settled>, RedisError> {
        let mut call = self.settle(&ACK);
        call.arg(&self.group)
            .arg(&self.consumer)
            .arg(flag(self.delete_settled));
        for (fence, troubled) in deliveries {
            call.arg(fence.id.to_string())
                .arg(fence.count)
                .arg(flag(*troubled));
        }
        call.invoke_async(connection).await
    }

    /// Commits one delivery with effects. `keys` and `request` come from the effects' encoder.
    pub async fn commit(
        &self,
        connection: &mut MultiplexedConnection,
        fence: Fence,
        troubled: bool,
        inbox: &str,
        keys: &[String],
        request: &[Vec<u8>],
    ) -> Result<Committed, RedisError> {
        let mut call = self.settle(&COMMIT);
        call.key(inbox).key(keys);
        call.arg(&self.group)
            .arg(&self.consumer)
            .arg(fence.id.to_string())
            .arg(fence.count);
        call.arg(flag(troubled))
            .arg(flag(self.delete_settled))
            .arg(request);
        call.invoke_async(connection).await
    }

    /// Hands deliveries to the consumer [`RETRY`], from which they come back after their delay.
    pub async fn retry_later(
        &self,
        connection: &mut MultiplexedConnection,
        lease_ms: u64,
        deliveries: &[Parked],
    ) -> Result<Vec<Settled>, RedisError> {
        self.park(connection, RETRY, lease_ms, deliveries).await
    }

    /// Hands deliveries to the consumer [`RELEASED`], from which anyone may claim them at once.
    /// The flag tells whether this run of it was marked as started.
    pub async fn release(
        &self,
        connection: &mut MultiplexedConnection,
        deliveries: &[(Fence, bool)],
    ) -> Result<Vec<Settled>, RedisError> {
        let parked: Vec<_> = deliveries
            .iter()
            .map(|&(fence, marked)| Parked {
                fence,
                delay_ms: 0,
                log: String::new(),
                marked,
            })
            .collect();
        self.park(connection, RELEASED, BEYOND_ANY_LEASE_MS, &parked)
            .await
    }

    async fn park(
        &self,
        connection: &mut MultiplexedConnection,
        target: &str,
        lease_ms: u64,
        deliveries: &[Parked],
    ) -> Result<Vec<Settled>, RedisError> {
        let mut call = self.settle(&PARK);
        call.key(&self.stats)
            .arg(&self.group)
            .arg(&self.consumer)
            .arg(target)
            .arg(lease_ms);
        for parked in deliveries {
            call.arg(parked.fence.id.to_string())
                .arg(parked.fence.count);
            call.arg(parked.delay_ms)
                .arg(&parked.log)
                .arg(flag(parked.marked));
        }
        call.invoke_async(connection).await
    }

    /// Gives a delivery up; `letter` are the fields of the dead letter.
    pub async fn dead_letter(
        &self,
        connection: &mut MultiplexedConnection,
        fence: Fence,
        dead: &str,
        letter: &Fields,
    ) -> Result<Settled, RedisError> {
        let mut call = self.settle(&DEAD_LETTER);
        call.key(dead);
        call.arg(&self.group)
            .arg(&self.consumer)
            .arg(fence.id.to_string())
            .arg(fence.count);
        call.arg(flag(self.delete_settled));
        push_fields(&mut call, letter);
        call.invoke_async(connection).await
    }

    /// Claims at most `limit` deliveries that are due.
    pub async fn reclaim(
        &self,
        connection: &mut MultiplexedConnection,
        scope: Scope,
        lease_ms: u64,
        limit: usize,
    ) -> Result<Reclaimed, RedisError> {
        let mut call = self.settle(&RECLAIM);
        call.key(&self.stats)
            .arg(&self.group)
            .arg(&self.consumer)
            .arg(lease_ms)
            .arg(limit)
            .arg(match scope {
                Scope::All => "all",
                Scope::Parked => "parked",
            });
        let (claimed, lost, parked_again) = call.invoke_async(connection).await?;
        Ok(Reclaimed {
            claimed,
            lost,
            parked_again,
        })
    }

    /// Marks a delivery that lost its worker as started for the `starts`-th time, right before it
    /// runs again.
    pub async fn mark_started(
        &self,
        connection: &mut MultiplexedConnection,
        fence: Fence,
        starts: u32,
    ) -> Result<Settled, RedisError> {
        let mut call = self.settle(&MARK_STARTED);
        call.arg(&self.group)
            .arg(&self.consumer)
            .arg(fence.id.to_string())
            .arg(fence.count)
            .arg(starts);
        call.invoke_async(connection).await
    }

    /// Moves at most `limit` deliveries of a predecessor to `released`.
    pub async fn take_over(
        &self,
        connection: &mut MultiplexedConnection,
        predecessor: &str,
        limit: usize,
    ) -> Result<usize, RedisError> {
        let mut call = self.settle(&TAKE_OVER);
        call.key(&self.stats)
            .arg(&self.group)
            .arg(predecessor)
            .arg(BEYOND_ANY_LEASE_MS)
            .arg(limit);
        call.invoke_async(connection).await
    }

    /// Restarts the lease of deliveries.
    pub async fn renew(
        &self,
        connection: &mut MultiplexedConnection,
        deliveries: &[Fence],
    ) -> Result<Vec<Settled>, RedisError> {
        let mut call = self.settle(&RENEW);
        call.key(&self.stats).arg(&self.group).arg(&self.consumer);
        for fence in deliveries {
            call.arg(fence.id.to_string()).arg(fence.count);
        }
        call.invoke_async(connection).await
    }

    /// Deletes `consumer` of this group if it owns nothing.
    pub async fn drop_consumer(
        &self,
        connection: &mut MultiplexedConnection,
        consumer: &str,
    ) -> Result<bool, RedisError> {
        DROP_CONSUMER
            .key(&self.stream)
            .arg(&self.group)
            .arg(consumer)
            .invoke_async(connection)
            .await
    }
}

/// Idle time that makes a delivery claimable whatever the lease (which is an hour at most).
pub const BEYOND_ANY_LEASE_MS: u64 = 24 * 3600 * 1000;

/// Reserved consumer that holds what waits for its next attempt.
pub const RETRY: &str = "retry";
/// Reserved consumer that holds what was given back unstarted.
pub const RELEASED: &str = "released";

fn push_fields(call: &mut ScriptInvocation<'_>, fields: &Fields) {
    for (name, value) in &fields.0 {
        call.arg(name.as_slice()).arg(value.as_slice());
    }
}

/// A delivery that is to be tried again later.
#[derive(Clone, Debug)]
pub struct Parked {
    /// Which delivery.
    pub fence: Fence,
    /// After how many milliseconds.
    pub delay_ms: u64,
    /// The log of recorded failures; empty leaves what is there.
    pub log: String,
    /// Whether this run was marked as started: the mark is taken back, it had an outcome.
    pub marked: bool,
}

/// What may be reclaimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Whatever is due.
    All,
    /// Only what the reserved consumers hold: no living worker can be running it.
    Parked,
}

/// What reclaiming brought.
#[derive(Clone, Debug, Default)]
pub struct Reclaimed {
    /// The deliveries that are ours now.
    pub claimed: Vec<Claimed>,
    /// IDs of entries that were deleted while they were pending.
    pub lost: Vec<String>,
    /// How many surfaced before they were due, because their delay exceeds the lease.
    pub parked_again: usize,
}

impl Reclaimed {
    /// Whether anything was found: there may be more.
    pub fn found_any(&self) -> bool {
        self.claimed.len() + self.lost.len() + self.parked_again > 0
    }
}

/// A delivery that came back.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The entry and its new delivery count.
    pub fence: Fence,
    /// The entry's fields.
    pub fields: Fields,
    /// `None` unless it lost its worker; then the starts without an outcome that were marked.
    pub starts: Option<u32>,
    /// Log of recorded failures, JSON; empty if there are none.
    pub log: String,
}

impl FromRedisValue for Claimed {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let (id, fields, count, starts, log): (_, _, _, i64, _) =
            FromRedisValue::from_redis_value(value)?;
        let starts = u32::try_from(starts).ok();
        Ok(Self {
            fence: Fence { id, count },
            fields,
            starts,
            log,
        })
    }
}

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
        to: std::sync::Arc<str>,
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

/// What a process learns when it joins the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Identity of the data in this Redis; another one means that the data are others.
    pub dataset: String,
    /// Number of the configuration that this process runs.
    pub generation: u64,
    /// Number of the newest configuration that any process runs.
    pub newest: u64,
}

/// Joins the fleet with a configuration, known by its content hash.
pub async fn join_fleet(
    connection: &mut MultiplexedConnection,
    fleet: &str,
    fresh_dataset: &str,
    config: u64,
) -> Result<Membership, RedisError> {
    let mut call = JOIN_FLEET.key(fleet);
    call.arg(fresh_dataset).arg(format!("{config:016x}"));
    let (dataset, generation, newest) = call.invoke_async(connection).await?;
    Ok(Membership {
        dataset,
        generation,
        newest,
    })
}

/// Whether a group is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupState {
    /// It was created just now.
    Created,
    /// It was there.
    Exists,
    /// `fleet` knows it, Redis does not: only the operator may recreate it.
    Lost,
    /// `fleet` does not know it.
    Retired,
}

/// What may be done about a group that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ensure {
    /// Create it if it never existed.
    Create,
    /// Create it even if it was lost.
    Recreate,
    /// Nothing: only look.
    Look,
}

/// Looks for a group, and creates it where `how` allows.
pub async fn ensure_group(
    connection: &mut MultiplexedConnection,
    fleet: &str,
    stream: &str,
    group: (&str, &str),
    start: &str,
    lease_ms: u64,
    how: Ensure,
) -> Result<GroupState, RedisError> {
    let mut call = ENSURE_GROUP.key(fleet);
    call.key(stream)
        .arg(group.0)
        .arg(group.1)
        .arg(start)
        .arg(lease_ms);
    call.arg(match how {
        Ensure::Create => "ensure",
        Ensure::Recreate => "recreate",
        Ensure::Look => "look",
    });
    let answer: String = call.invoke_async(connection).await?;
    Ok(match answer.as_str() {
        "CREATED" => GroupState::Created,
        "EXISTS" => GroupState::Exists,
        "RETIRED" => GroupState::Retired,
        _ => GroupState::Lost,
    })
}

/// What became of a group that was to be retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retired {
    /// It is gone.
    Done,
    /// There was none.
    Absent,
    /// It still owes deliveries, and consent to give them up was not given.
    Owes,
}

/// Retires a group; `give_up` consents to drop what it has not settled.
pub async fn retire_group(
    connection: &mut MultiplexedConnection,
    fleet: &str,
    holder: &Holder,
    fleet_field: &str,
    give_up: bool,
) -> Result<Retired, RedisError> {
    let mut call = RETIRE_GROUP.key(fleet);
    call.key(&holder.stream)
        .key(&holder.attempts)
        .arg(&holder.group)
        .arg(fleet_field)
        .arg(flag(give_up));
    let answer: String = call.invoke_async(connection).await?;
    Ok(match answer.as_str() {
        "RETIRED" => Retired::Done,
        "ABSENT" => Retired::Absent,
        _ => Retired::Owes,
    })
}

/// How a worker's announcement treats one that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announce {
    /// Take the name only if nobody alive has it.
    Claim,
    /// The name is ours by right (given with `--name`): whoever had it is replaced.
    Replace,
    /// Renew, unless we were replaced.
    Renew,
    /// Take it back, unless we were replaced.
    Withdraw,
}

/// Announces a live worker; false if the name is another's.
pub async fn register_worker(
    connection: &mut MultiplexedConnection,
    worker: &str,
    nonce: &str,
    ttl_ms: u64,
    how: Announce,
    fields: &[(&str, String)],
) -> Result<bool, RedisError> {
    let mut call = REGISTER_WORKER.key(worker);
    call.arg(nonce).arg(ttl_ms).arg(match how {
        Announce::Claim => "claim",
        Announce::Replace => "replace",
        Announce::Renew => "renew",
        Announce::Withdraw => "withdraw",
    });
    for (name, value) in fields {
        call.arg(*name).arg(value);
    }
    let answer: String = call.invoke_async(connection).await?;
    Ok(answer == "OK")
}

/// What one step of trimming did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trimmed {
    /// Entries deleted.
    pub trimmed: u64,
    /// Entries above `maxlen` that remain.
    pub excess: u64,
    /// The group that holds back what should go, or empty.
    pub held_by: String,
    /// A group that must exist and does not (nothing is trimmed then), or empty.
    pub missing: String,
}

/// Trims one step of a stream.
pub async fn trim(
    connection: &mut MultiplexedConnection,
    stream: &str,
    maxlen: Option<u64>,
    oldest: Option<EntryId>,
    step: usize,
    groups: &[String],
) -> Result<Trimmed, RedisError> {
    let mut call = TRIM.key(stream);
    call.arg(maxlen.map(|n| n.to_string()).unwrap_or_default());
    call.arg(oldest.map(|id| id.to_string()).unwrap_or_default())
        .arg(step)
        .arg(groups);
    let (trimmed, excess, held_by, missing) = call.invoke_async(connection).await?;
    Ok(Trimmed {
        trimmed,
        excess,
        held_by,
        missing,
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
