//! The life of a router: create groups, take over, then read, decide, route.

mod configuration;
mod recovery;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::configuration::Refused;
use super::ahead::ReadAhead;
use super::batch::{Decided, Dispatch, ReadCount};
use super::decide::{Verdict, decide, examine, might_pass_with_newer_config, source};
use super::dedupe::Window;
use super::scheduler::Scheduler;
use super::sender::Sender;
use super::traced;
use super::{health, janitor};
use crate::failpoint::failpoint;
use crate::fleet::{
    self, INBOX, Identity, Membership, MembershipLost, ROUTER, ServerClock, WantedGroup,
};
use crate::progress::{Beat, Doing, PATIENCE, Progress};
use crate::retry::RECONNECT;
use crate::routing::Config;
use crate::store::{
    Entry, Fence, Fields, Holder, Keys, Link, Redis, StoreError, info, is_dataset_gone,
};
use crate::trace::Tracer;

/// How often entries of dead routers are looked for, and memory is checked.
const UPKEEP: Duration = Duration::from_secs(1);
/// How often the dedupe window is registered anew.
const WINDOW_UPKEEP: Duration = Duration::from_secs(30);
/// Share of maxmemory above which no new work is routed: settling still needs room.
pub(crate) const MEMORY_LIMIT: f64 = 0.8;

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
    /// Told which one is in force.
    pub in_force: watch::Sender<Arc<Config>>,
    /// Reads routing.yaml again now, if it has changed; the result arrives in `config`.
    pub reread: Box<dyn Fn() + Send + Sync>,
    /// A stable name, or one of the host.
    pub name: Option<String>,
    /// Stop reading; the batch under way is finished.
    pub stop: CancellationToken,
    /// Called once it reads.
    pub ready: Box<dyn FnOnce() + Send>,
    /// Told how it gets on.
    pub progress: Progress,
}

struct Router {
    link: Link,
    keys: Keys,
    inbox: Arc<Holder>,
    dispatch: Dispatch,
    /// Sends what is decided; in order, so that no batch overtakes another.
    sender: Sender,
    tracer: Tracer,
    /// How many entries to reclaim at a time, and to read at first.
    count: ReadCount,
    membership: Membership,
    config: watch::Receiver<Arc<Config>>,
    /// The configuration whose groups exist: what this router routes by.
    active: Arc<Config>,
    /// The same for everybody else in this process.
    in_force: watch::Sender<Arc<Config>>,
    window: Window,
    next_window: Instant,
    read_again: Arc<dyn Fn() + Send + Sync>,
    /// By which it is judged what dead routers left.
    server_clock: ServerClock,
    refused: Option<Refused>,
    /// The newer generation for which the file was last read again, and when.
    reread: Option<(u64, Instant)>,
    progress: Progress,
    beat: Beat,
    stop: CancellationToken,
}

/// Runs one router until it is stopped.
pub async fn run(options: RouterOptions) -> Result<(), RouterError> {
    let RouterOptions {
        redis,
        mut config,
        in_force,
        reread,
        name,
        stop,
        ready,
        progress,
    } = options;
    let link = redis.link();
    let active = config.borrow_and_update().clone();
    in_force.send_replace(active.clone());
    let keys = Keys::new(active.routing.namespace());
    let membership = fleet::join(&link, &keys, &active).await?;
    fleet::in_force(&active, membership.generation);
    let wanted = fleet::wanted_groups(&active.routing, None);
    announce_lost(&fleet::ensure_groups(&link, &keys, &wanted).await?);
    fleet::route_by(&link, &keys, &active).await?;
    failpoint!("router.joined");
    let window = Window::join(&link, &keys, active.routing.dedupe_window()).await?;
    let identity = Identity::announce(&link, &keys, ROUTER, name.as_deref()).await?;
    let inbox = Arc::new(fleet::holder(&keys, INBOX, ROUTER, &identity.consumer()));
    if name.is_some() {
        fleet::take_over(&link, &inbox, &identity).await;
    }
    tracing::info!(
        consumer = identity.consumer(),
        generation = membership.generation,
        server = redis.server(),
        "router started"
    );
    progress.now(Doing::Working);
    ready();

    let reread: Arc<dyn Fn() + Send + Sync> = reread.into();
    let upkeep = janitor::run(link.clone(), keys.clone(), in_force.subscribe());
    let watch = health::run(link.clone(), keys.clone(), in_force.subscribe());
    let alive = fleet::keep_alive(&link, &keys, &identity, &membership);
    let tracer = Tracer::start(link.clone(), keys.clone(), active.routing.trace());
    let scheduler = Scheduler::new(
        &link,
        &keys,
        in_force.subscribe(),
        reread.clone(),
        tracer.clone(),
        progress.of("scheduling", PATIENCE),
    );
    let dispatch = Dispatch {
        tracer: tracer.clone(),
        link: link.clone(),
        keys: keys.clone(),
        inbox: inbox.clone(),
        progress: progress.clone(),
        stop: stop.clone(),
    };
    let mut router = Router {
        tracer: tracer.clone(),
        link: link.clone(),
        keys: keys.clone(),
        inbox: inbox.clone(),
        sender: Sender::start(dispatch.clone()),
        dispatch,
        count: ReadCount::START,
        membership: membership.clone(),
        config,
        active,
        in_force,
        window,
        next_window: Instant::now() + WINDOW_UPKEEP,
        read_again: reread,
        server_clock: ServerClock::default(),
        refused: None,
        reread: None,
        beat: progress.of("routing", PATIENCE),
        progress,
        stop: stop.clone(),
    };
    let outcome = tokio::select! {
        outcome = router.route_all() => outcome,
        lost = alive => Err(lost.into()),
        () = upkeep => Ok(()),
        () = scheduler.run() => Ok(()),
        () = watch => Ok(()),
    };
    tracer.finish().await;
    if outcome.is_ok() {
        failpoint!("router.leaving");
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
        let mut failures = 0;
        while !self.stop.is_cancelled() {
            if let Err(error) = self.route_what_comes(&mut failures).await {
                self.sender = Sender::start(self.dispatch.clone());
                self.count.shrink();
                failures += 1;
                self.answer(error, failures).await?;
            }
        }
        Ok(())
    }

    /// Reads and routes until told to stop, until Redis is nearly full, or until a fault.
    async fn route_what_comes(&mut self, failures: &mut u32) -> Result<(), StoreError> {
        self.beat.touch();
        // Also while nothing is routed: what is due goes on, by the configuration in force.
        self.take_config().await?;
        if *failures > 0 {
            self.recover().await?;
        }
        if self.memory_is_short().await? {
            self.progress.now(Doing::Full);
            tokio::time::sleep(UPKEEP).await;
            return Ok(());
        }
        self.reclaim().await?;
        let (link, inbox) = (self.link.clone(), self.inbox.clone());
        let mut ahead = ReadAhead::start(link, inbox, self.count, &self.stop);
        let routed = self.route_all_of(&mut ahead, failures).await;
        if routed.is_err() {
            ahead.abandon().await;
        }
        routed
    }

    /// Each batch passes three stations, and there is one at each: reading, deciding, sending.
    async fn route_all_of(
        &mut self,
        ahead: &mut ReadAhead,
        failures: &mut u32,
    ) -> Result<(), StoreError> {
        let mut next_upkeep = Instant::now() + UPKEEP;
        while let Some(read) = ahead.next().await {
            let (read, fresh) = read?;
            *failures = 0;
            self.beat.touch();
            self.progress.now(Doing::Working);
            let fresh = fresh
                .into_iter()
                .map(|Entry { id, fields }| (Fence { id, count: 1 }, fields));
            self.take_config().await?;
            self.route(fresh.collect(), Some(read)).await?;
            if Instant::now() >= next_upkeep {
                next_upkeep = Instant::now() + UPKEEP;
                self.finish_sending(0).await?;
                self.keep_window().await?;
                self.reclaim().await?;
                if self.memory_is_short().await? {
                    ahead.stop();
                }
            }
        }
        self.finish_sending(0).await
    }

    /// Waits until no more than so many batches are under way.
    async fn finish_sending(&mut self, but: usize) -> Result<(), StoreError> {
        // How long that may take is for the sender to say.
        self.beat.rest();
        let outcome = self.await_sent(but).await;
        self.beat.touch();
        outcome
    }

    async fn await_sent(&mut self, but: usize) -> Result<(), StoreError> {
        while let Some(routed) = self.sender.next(but).await {
            let counts = routed?;
            failpoint!("router.routed");
            let refused = counts.conflicts + counts.refused;
            self.progress
                .took((counts.routed + counts.scheduled) as usize);
            if refused > 0 {
                tracing::warn!(
                    refused,
                    "refused events: see streamfleet dead list --subscriber router"
                );
            }
            tracing::debug!(?counts, "batch routed");
        }
        Ok(())
    }

    /// What an error calls for: waiting, alarm, or the end.
    async fn answer(&mut self, error: StoreError, failures: u32) -> Result<(), RouterError> {
        if error.redis().is_some_and(is_dataset_gone) {
            match fleet::check_dataset(&self.link, &self.keys, &self.membership.dataset).await {
                Ok(false) => return Err(MembershipLost::DatasetChanged.into()),
                // What does not succeed is tried again.
                Ok(true) if failures % 15 == 1 => {
                    let _refused = self.make_groups(&self.active).await;
                }
                Ok(true) | Err(_) => {}
            }
            self.progress.now(Doing::Halted);
        } else {
            tracing::warn!(%error, failures, "cannot route; trying again");
            self.progress.now(Doing::Degraded(error.to_string()));
        }
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(RECONNECT.delay(failures)) => {}
        }
        Ok(())
    }

    /// Decides about a batch, and has it sent behind the one before. `read`: when, if it is all
    /// that a read brought.
    async fn route(
        &mut self,
        entries: Vec<(Fence, Fields)>,
        read: Option<Instant>,
    ) -> Result<(), StoreError> {
        if entries.is_empty() {
            return self.finish_sending(0).await;
        }
        let examine_all =
            |config: &Config| entries.iter().map(|(_, f)| examine(f, config)).collect();
        let mut verdicts: Vec<Verdict> = examine_all(&self.active);
        if verdicts.iter().any(might_pass_with_newer_config) {
            match self.look_for_newer_config().await {
                Ok(false) => {}
                Ok(true) => verdicts = examine_all(&self.active),
                Err(error) => {
                    tracing::warn!(%error, "cannot tell whether there is a newer configuration; routing by this one");
                }
            }
        }
        let all = entries.len();
        let (entries, verdicts) = self.set_aside_what_awaits_repair(entries, verdicts).await?;
        let read = read.filter(|_| entries.len() == all);
        let audited = self.active.routing.audit().is_some();
        let sources = audited.then(|| verdicts.iter().map(source).collect());
        let mut targets = Vec::new();
        let decided: Vec<_> = entries
            .into_iter()
            .zip(verdicts)
            .map(|((fence, fields), verdict)| {
                (fence, decide(fence.id, fields, verdict, &mut targets))
            })
            .collect();
        failpoint!("router.decided");
        let hops = traced::hops(&self.tracer, &decided, &targets);
        // One under way and this one behind it: Redis never waits for us.
        self.finish_sending(1).await?;
        let batch = Decided {
            entries: decided,
            targets,
            read,
            window: self.window.clone(),
            sources,
            hops,
        };
        self.sender.hand_over(batch).await;
        Ok(())
    }

    /// Routing makes Redis grow: it pauses while memory is nearly full, so that settling fits.
    async fn memory_is_short(&self) -> Result<bool, StoreError> {
        let query = |mut c| async move { info(&mut c, "memory").await };
        let Some(info) = self.link.run(query).await? else {
            return Ok(false); // not for this user to know, as it was told at the start
        };
        let number = |name| info.number(name).unwrap_or(0) as f64;
        let (used, max) = (number("used_memory"), number("maxmemory"));
        let short = max > 0.0 && used >= max * MEMORY_LIMIT;
        if short {
            tracing::error!(
                used,
                maxmemory = max,
                "PAUSED: Redis is nearly full; events wait in the inbox"
            );
        }
        Ok(short)
    }
}
