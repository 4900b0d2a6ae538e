//! The life of a router: create groups, take over, then read, decide, route.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use redis::RedisError;
use redis::aio::MultiplexedConnection;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::LEASE;
use super::decide::{decide, might_pass_with_newer_config};
use super::janitor;
use crate::fleet::{self, INBOX, Identity, Membership, MembershipLost, ROUTER, WantedGroup};
use crate::retry::RECONNECT;
use crate::routing::Config;
use crate::store::{
    self, Entry, Fence, Fields, Holder, Keys, Link, Redis, RouteBatch, RouteCounts, Routed,
    StoreError, is_dataset_gone, read_streams,
};

/// Entries per batch: the script holds Redis for a few milliseconds at most.
const BATCH: usize = 256;
const BLOCK: Duration = Duration::from_millis(1000);
/// How often entries of dead routers are looked for, and memory is checked.
const UPKEEP: Duration = Duration::from_secs(1);
/// Share of maxmemory above which no new work is routed: settling still needs room.
const MEMORY_LIMIT: f64 = 0.8;
/// The dedupe window is cut into this many buckets, which expire one by one.
const BUCKETS: u64 = 2;

/// Why a router ended other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    /// Redis could not be reached at the start.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Name or dataset are no longer ours.
    #[error(transparent)]
    Membership(#[from] MembershipLost),
}

/// What a router needs to run.
pub struct RouterOptions {
    /// The server.
    pub redis: Redis,
    /// The configuration; a new value is a reload.
    pub config: watch::Receiver<Arc<Config>>,
    /// Reads routing.yaml again now, if it has changed; the result arrives in `config`.
    pub reread: Box<dyn Fn() + Send + Sync>,
    /// A stable name, or one of the host.
    pub name: Option<String>,
    /// Stop reading; the batch under way is finished.
    pub stop: CancellationToken,
    /// Called once it reads.
    pub ready: Box<dyn FnOnce() + Send>,
}

struct Router {
    redis: Redis,
    link: Link,
    keys: Keys,
    inbox: Holder,
    membership: Membership,
    config: watch::Receiver<Arc<Config>>,
    /// The configuration whose groups exist: what this router routes by.
    active: Arc<Config>,
    reread: Box<dyn Fn() + Send + Sync>,
    /// When a newer configuration was last looked for.
    reread_at: Option<Instant>,
    stop: CancellationToken,
}

/// Runs one router until it is stopped.
pub async fn run(options: RouterOptions) -> Result<(), RouterError> {
    let RouterOptions {
        redis,
        mut config,
        reread,
        name,
        stop,
        ready,
    } = options;
    let link = redis.link();
    let active = config.borrow_and_update().clone();
    let keys = Keys::new(active.routing.namespace());
    let membership = fleet::join(&link, &keys, &active).await?;
    let lost =
        fleet::ensure_groups(&link, &keys, &fleet::wanted_groups(&active.routing, None)).await?;
    announce_lost(&lost);
    let identity =
        Identity::announce(&link, &keys, ROUTER, name.as_deref(), membership.generation).await?;
    let inbox = fleet::holder(&keys, INBOX, ROUTER, &identity.consumer());
    fleet::take_over(&link, &inbox, &identity).await;
    tracing::info!(
        consumer = identity.consumer(),
        generation = membership.generation,
        server = redis.server(),
        "router started"
    );
    ready();

    let upkeep = janitor::run(link.clone(), keys.clone(), config.clone());
    let alive = fleet::keep_alive(&link, &keys, &identity, &membership, config.clone());
    let mut router = Router {
        redis,
        link: link.clone(),
        keys: keys.clone(),
        inbox: inbox.clone(),
        membership: membership.clone(),
        config,
        active,
        reread,
        reread_at: None,
        stop: stop.clone(),
    };
    let outcome = tokio::select! {
        outcome = router.route_all() => outcome,
        lost = alive => Err(lost.into()),
        () = upkeep => Ok(()),
    };
    if outcome.is_ok() {
        let consumer = identity.consumer();
        let goodbye = async {
            link.run(|mut c| async move { inbox.drop_consumer(&mut c, &consumer).await })
                .await?;
            identity.withdraw(&link, &keys).await
        };
        match tokio::time::timeout(Duration::from_secs(2), goodbye).await {
            Ok(Ok(())) => tracing::info!("router stopped"),
            _ => tracing::warn!("stopped without a goodbye to Redis"),
        }
    }
    outcome
}

fn announce_lost(lost: &[WantedGroup]) {
    for group in lost {
        tracing::error!("HALTED: {}", fleet::lost_group_advice(group));
    }
}

impl Router {
    async fn route_all(&mut self) -> Result<(), RouterError> {
        let mut reader: Option<(MultiplexedConnection, i64)> = None;
        let mut next_upkeep = Instant::now();
        let mut failures = 0;
        while !self.stop.is_cancelled() {
            let step = async {
                if self.config.has_changed().unwrap_or(false) {
                    self.take_config().await?;
                }
                if Instant::now() >= next_upkeep {
                    next_upkeep = Instant::now() + UPKEEP;
                    self.wait_for_memory().await?;
                    self.reclaim().await?;
                }
                let (connection, client) = match &reader {
                    Some((connection, client)) => (connection.clone(), *client),
                    None => reader.insert(self.open_reader().await?).clone(),
                };
                let entries = self.read(connection, client).await?;
                let entries = entries
                    .into_iter()
                    .map(|Entry { id, fields }| (Fence { id, count: 1 }, fields));
                self.route(entries.collect()).await
            };
            match step.await {
                Ok(()) => failures = 0,
                Err(error) => {
                    reader = None;
                    failures += 1;
                    self.answer(error, failures).await?;
                }
            }
        }
        Ok(())
    }

    /// What an error calls for: waiting, alarm, or the end.
    async fn answer(&mut self, error: StoreError, failures: u32) -> Result<(), RouterError> {
        if error.redis().is_some_and(is_dataset_gone) {
            match fleet::check_dataset(&self.link, &self.keys, &self.membership.dataset).await {
                Ok(false) => return Err(MembershipLost::DatasetChanged.into()),
                Ok(true) if failures % 15 == 1 => {
                    let wanted = fleet::wanted_groups(&self.active.routing, None);
                    announce_lost(&fleet::ensure_groups(&self.link, &self.keys, &wanted).await?);
                }
                Ok(true) | Err(_) => {}
            }
        } else {
            tracing::warn!(%error, failures, "cannot route; trying again");
        }
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(RECONNECT.delay(failures)) => {}
        }
        Ok(())
    }

    /// Takes a new configuration over: its groups exist before anything is routed by it.
    async fn take_config(&mut self) -> Result<(), StoreError> {
        let new = self.config.borrow_and_update().clone();
        let wanted = fleet::wanted_groups(&new.routing, None);
        let applied = async {
            announce_lost(&fleet::ensure_groups(&self.link, &self.keys, &wanted).await?);
            fleet::join(&self.link, &self.keys, &new).await
        };
        match applied.await {
            Ok(membership) => {
                tracing::info!(
                    generation = membership.generation,
                    "the new routing.yaml is in force"
                );
                self.membership.generation = membership.generation;
                self.active = new;
                Ok(())
            }
            Err(error) => {
                self.config.mark_changed();
                Err(error)
            }
        }
    }

    async fn open_reader(&self) -> Result<(MultiplexedConnection, i64), StoreError> {
        let mut connection = self.redis.dedicated(BLOCK).await?;
        let client = redis::cmd("CLIENT")
            .arg("ID")
            .query_async(&mut connection)
            .await
            .map_err(|e| self.redis.error(e))?;
        Ok((connection, client))
    }

    async fn read(
        &self,
        mut connection: MultiplexedConnection,
        client: i64,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut command = redis::cmd("XREADGROUP");
        command
            .arg("GROUP")
            .arg(ROUTER)
            .arg(&self.inbox.consumer)
            .arg("COUNT")
            .arg(BATCH);
        command
            .arg("BLOCK")
            .arg(BLOCK.as_millis() as u64)
            .arg("STREAMS")
            .arg(&self.inbox.stream)
            .arg(">");
        let mut reply = std::pin::pin!(command.query_async::<redis::Value>(&mut connection));
        let reply = tokio::select! {
            reply = &mut reply => reply,
            () = self.stop.cancelled() => {
                // What it returns now is ours to route: end the wait, keep the reply.
                let unblock = self.link.run(|mut c| async move {
                    redis::cmd("CLIENT").arg("UNBLOCK").arg(client).exec_async(&mut c).await
                });
                drop(unblock.await);
                reply.await
            }
        };
        let streams = reply
            .and_then(|value| Ok(read_streams(value)?))
            .map_err(|e| self.redis.error(e))?;
        Ok(streams
            .into_iter()
            .flat_map(|(_, entries)| entries)
            .collect())
    }

    /// Brings back what a dead router had read.
    async fn reclaim(&mut self) -> Result<(), StoreError> {
        let inbox = self.inbox.clone();
        let lease = LEASE.as_millis() as u64;
        let (claimed, lost) = self
            .link
            .run(|mut c| async move { inbox.reclaim(&mut c, lease, BATCH).await })
            .await?;
        for id in lost {
            tracing::error!(
                entry = id,
                "LOST: the entry was deleted from the inbox while it was pending"
            );
        }
        if !claimed.is_empty() {
            tracing::info!(
                entries = claimed.len(),
                "routing what another router had read"
            );
        }
        self.route(claimed.into_iter().map(|c| (c.fence, c.fields)).collect())
            .await
    }

    async fn route(&mut self, entries: Vec<(Fence, Fields)>) -> Result<(), StoreError> {
        if entries.is_empty() {
            return Ok(());
        }
        self.look_for_newer_config(&entries).await?;
        let mut targets = Vec::new();
        let routed: Vec<_> = entries
            .into_iter()
            .map(|(fence, fields)| (fence, decide(fence.id, fields, &self.active, &mut targets)))
            .collect();
        let mut failures = 0;
        let counts = loop {
            match self.send(&routed, &targets).await {
                Ok(counts) => break counts,
                Err(error) if error.redis().and_then(RedisError::code) == Some("WRONGTYPE") => {
                    break self.route_apart(&routed, &targets, error).await?;
                }
                Err(error)
                    if self.stop.is_cancelled() || error.redis().is_some_and(is_dataset_gone) =>
                {
                    return Err(error);
                }
                Err(error) => {
                    failures += 1;
                    tracing::warn!(%error, failures, "Redis did not route a batch; sending it again");
                    tokio::time::sleep(RECONNECT.delay(failures)).await;
                }
            }
        };
        let RouteCounts {
            routed,
            duplicates,
            conflicts,
            refused,
            fenced,
        } = counts;
        if conflicts + refused > 0 {
            tracing::warn!(
                refused = conflicts + refused,
                "refused events: see streamfleet dead list --subscriber router"
            );
        }
        tracing::debug!(
            routed,
            duplicates,
            conflicts,
            refused,
            fenced,
            "batch routed"
        );
        Ok(())
    }

    async fn send(
        &self,
        entries: &[(Fence, Routed)],
        targets: &[String],
    ) -> Result<RouteCounts, StoreError> {
        let window = self.active.routing.dedupe_window();
        let (seen, seen_ttl_ms) = seen_buckets(&self.keys, window);
        let targets: Vec<_> = targets.iter().map(|name| self.keys.stream(name)).collect();
        let (dead, now) = (self.keys.dead(ROUTER), Timestamp::now().to_string());
        let batch = RouteBatch {
            inbox: &self.inbox,
            dead: &dead,
            seen: &seen,
            seen_ttl_ms,
            targets: &targets,
            now: &now,
            entries,
        };
        let batch = &batch;
        self.link
            .run(|mut c| async move { store::route(&mut c, batch).await })
            .await
    }

    /// Some key of the batch has the wrong type. What goes elsewhere is routed all the same; the
    /// rest stays in the inbox, owed, until the key is repaired.
    async fn route_apart(
        &self,
        entries: &[(Fence, Routed)],
        targets: &[String],
        mut first: StoreError,
    ) -> Result<RouteCounts, StoreError> {
        let mut total = RouteCounts::default();
        for (index, name) in targets.iter().map(Some).chain([None]).enumerate() {
            let part: Vec<_> = entries
                .iter()
                .filter_map(|(fence, routed)| match (routed, name) {
                    (Routed::Append { target, .. }, Some(_)) if *target == index => {
                        let mut alone = routed.clone();
                        if let Routed::Append { target, .. } = &mut alone {
                            *target = 0;
                        }
                        Some((*fence, alone))
                    }
                    (Routed::Dead(_), None) => Some((*fence, routed.clone())),
                    _ => None,
                })
                .collect();
            match self
                .send(&part, name.map(std::slice::from_ref).unwrap_or_default())
                .await
            {
                Ok(counts) => {
                    total.routed += counts.routed;
                    total.duplicates += counts.duplicates;
                    total.conflicts += counts.conflicts;
                    total.refused += counts.refused;
                    total.fenced += counts.fenced;
                }
                Err(error) => {
                    tracing::error!(%error, stream = name, entries = part.len(),
                        "HALTED for this stream: repair or rename the key; its events wait in the inbox");
                    first = error;
                }
            }
        }
        if total == RouteCounts::default() {
            Err(first)
        } else {
            Ok(total)
        }
    }

    /// Before refusing what a newer configuration might accept: reads the file again, if another
    /// process runs a newer one.
    async fn look_for_newer_config(
        &mut self,
        entries: &[(Fence, Fields)],
    ) -> Result<(), StoreError> {
        const AT_MOST_EVERY: Duration = Duration::from_secs(2);
        if self
            .reread_at
            .is_some_and(|at| at.elapsed() < AT_MOST_EVERY)
            || !entries
                .iter()
                .any(|(_, fields)| might_pass_with_newer_config(fields, &self.active))
        {
            return Ok(());
        }
        let newest = fleet::join(&self.link, &self.keys, &self.active)
            .await?
            .newest;
        if newest > self.membership.generation {
            self.reread_at = Some(Instant::now());
            (self.reread)();
            if self.config.has_changed().unwrap_or(false) {
                self.take_config().await?;
            }
        }
        Ok(())
    }

    /// Routing makes Redis grow: waits while memory is nearly full, so that settling still fits.
    async fn wait_for_memory(&self) -> Result<(), StoreError> {
        let mut announced = false;
        while !self.stop.is_cancelled() {
            let info: String =
                self.link
                    .run(|mut c| async move {
                        redis::cmd("INFO").arg("memory").query_async(&mut c).await
                    })
                    .await?;
            let number = |name: &str| {
                info.lines().find_map(|l| {
                    l.strip_prefix(name)?
                        .strip_prefix(':')?
                        .trim()
                        .parse::<f64>()
                        .ok()
                })
            };
            let (used, max) = (
                number("used_memory").unwrap_or(0.0),
                number("maxmemory").unwrap_or(0.0),
            );
            if max <= 0.0 || used < max * MEMORY_LIMIT {
                break;
            }
            if !announced {
                tracing::error!(
                    used,
                    maxmemory = max,
                    "PAUSED: Redis is nearly full; events wait in the inbox"
                );
                announced = true;
            }
            tokio::time::sleep(UPKEEP).await;
        }
        Ok(())
    }
}

/// The buckets that cover the dedupe window now, the one to write first. One bucket in the
/// future is read too: another router's clock may be ahead of ours.
fn seen_buckets(keys: &Keys, window: Duration) -> (Vec<String>, u64) {
    let size = (window.as_millis() as u64 / BUCKETS).max(1);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis() as u64;
    let current = now / size;
    let others = (1..=BUCKETS)
        .map(|back| current.saturating_sub(back))
        .chain([current + 1]);
    let buckets = std::iter::once(current)
        .chain(others)
        .map(|bucket| keys.seen(bucket))
        .collect();
    (buckets, size * (BUCKETS + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_the_window() {
        let (buckets, ttl) = seen_buckets(&Keys::new(None), Duration::from_secs(86_400));
        assert_eq!(buckets.len() as u64, BUCKETS + 2);
        assert!(
            ttl >= 86_400_000 * 3 / 2,
            "a bucket outlives the window of its last entry"
        );
    }
}
