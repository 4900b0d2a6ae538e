//! How deliveries come into our hands and stay there.

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, ParsingError, RedisError, Value};

use super::super::codec::Fields;
use super::settle::Settled;
use super::{
    BEYOND_ANY_LEASE_MS, DROP_CONSUMER, Fence, Holder, MARK_STARTED, RECLAIM, RENEW, RESTART_IDLE,
    TAKE_OVER,
};

/// What may be reclaimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Whatever is due.
    All,
    /// Whatever is due, if the server runs this before that time of its clock (ms, 1970).
    AllBefore(u64),
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
    /// The server's clock, ms since 1970.
    pub server_ms: u64,
    /// Whether the server ran it too late to claim anything.
    pub late: bool,
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

impl Holder {
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
                Scope::All | Scope::AllBefore(_) => "all",
                Scope::Parked => "parked",
            })
            .arg(match scope {
                Scope::AllBefore(moment) => moment.to_string(),
                Scope::All | Scope::Parked => String::new(),
            });
        let (claimed, lost, parked_again, server_ms, late): (_, _, _, _, u8) =
            call.invoke_async(connection).await?;
        Ok(Reclaimed {
            claimed,
            lost,
            parked_again,
            server_ms,
            late: late == 1,
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
            .arg(fence.id)
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

    /// Looks over at most `limit` deliveries of the group, those after an ID or the first ones, and
    /// restarts the idle times that a clock set back has spoilt. Answers how many, and the last ID
    /// if there may be more.
    pub async fn restart_idle(
        &self,
        connection: &mut MultiplexedConnection,
        lease_ms: u64,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(usize, Option<String>), RedisError> {
        let mut call = self.settle(&RESTART_IDLE);
        call.key(&self.stats)
            .arg(&self.group)
            .arg(lease_ms)
            .arg(after.map_or("-".to_owned(), |id| format!("({id}")))
            .arg(limit);
        let (restarted, last): (_, String) = call.invoke_async(connection).await?;
        Ok((restarted, Some(last).filter(|id| !id.is_empty())))
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
            call.arg(fence.id).arg(fence.count);
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
