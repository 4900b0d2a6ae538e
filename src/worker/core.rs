//! What the roles of one worker share, and how a delivery enters its slots.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::breaker::Breaker;
use super::delivery::{AttemptLog, Delivery, Slotted, Start};
use super::execute::execute;
use super::handler::{Environment, Handler};
use super::held::Held;
use super::lanes::Lanes;
use super::renew;
use super::settle::{Ends, Settlers};
use crate::failpoint::failpoint;
use crate::fleet::Identity;
use crate::metrics::{self, RELEASED};
use crate::progress::Progress;
use crate::routing::{Config, SubscriberSettings};
use crate::store::{EntryId, Fence, Fields, Holder, Link, Settled};
use crate::trace::Tracer;

/// How a worker ends: first nothing new is read, then (at the deadline) nothing goes on.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Stop reading; finish what was started.
    pub reading: CancellationToken,
    /// Stop everything; what is not settled is released.
    pub now: CancellationToken,
}

/// One stream that a worker reads.
pub(crate) struct Source {
    pub(crate) name: Arc<str>,
    pub(crate) holder: Arc<Holder>,
    /// To its settler.
    pub(crate) ends: Arc<Ends>,
    /// The larger of our lease and the one that the group was created with.
    pub(crate) lease: Duration,
    /// Older entries were routed before the group existed: our own routes judge them.
    pub(crate) joined: EntryId,
}

pub(crate) struct Core<H> {
    pub(crate) handler: H,
    pub(crate) env: Arc<Environment>,
    pub(crate) link: Link,
    pub(crate) identity: Identity,
    /// The dataset that was joined.
    pub(crate) dataset: String,
    pub(crate) config: watch::Receiver<Arc<Config>>,
    pub(crate) sources: watch::Sender<Arc<Vec<Arc<Source>>>>,
    /// Settings of the last configuration that knew this subscriber.
    pub(crate) settings: watch::Receiver<Arc<SubscriberSettings>>,
    /// The lease that this process renews by: the one of its start.
    pub(crate) lease: Duration,
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) concurrency: usize,
    pub(crate) held: Held,
    /// When it was last asked whose the doubtful deliveries are; held while it is.
    pub(crate) asked: tokio::sync::Mutex<Option<Instant>>,
    pub(crate) lanes: Lanes,
    /// Where everything but renewing and supervising runs.
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) breaker: Breaker,
    pub(crate) settlers: Arc<Settlers>,
    pub(crate) tracer: Tracer,
    pub(crate) due: DueTimes,
    pub(crate) tasks: TaskTracker,
    pub(crate) progress: Progress,
    pub(crate) stop: Stop,
}

impl<H: Handler> Core<H> {
    /// Takes a delivery into our hands: from here on its lease, which began at `since`, is renewed.
    pub(crate) fn hold(
        &self,
        source: &Arc<Source>,
        fence: Fence,
        fields: Fields,
        since: Instant,
    ) -> Delivery {
        let guard = self.held.hold(&source.holder, fence, since);
        self.lanes.busy.notify_one(); // now that it is: the supervisor sees to whatever is held
        Delivery {
            source: source.clone(),
            fence,
            fields,
            starts: None,
            log: AttemptLog::default(),
            troubled: false,
            probe: None,
            guard,
        }
    }

    /// Waits for slots (for all of them, if one must run alone) and starts deliveries there. On
    /// stop the unstarted are released.
    pub(crate) async fn start(self: &Arc<Self>, deliveries: Vec<Delivery>) {
        let mut deliveries = std::collections::VecDeque::from(deliveries);
        while let Some(first) = deliveries.front() {
            let fresh = deliveries.iter().take_while(|d| d.is_fresh()).count();
            let alone = Start::after(first.starts) == Start::Alone;
            let Some(mut slots) = self.slots_for(fresh, alone).await else {
                return self.release(deliveries.into()).await;
            };
            if fresh == 0 {
                if let Some(delivery) = deliveries.pop_front() {
                    let slotted = self.slotted(delivery, slots);
                    self.tasks.spawn(execute(self.clone(), slotted));
                }
                continue;
            }
            let mut started = Vec::with_capacity(slots.num_permits());
            while let Some(delivery) = slots.split(1).and_then(|slot| {
                let delivery = deliveries.pop_front()?;
                Some(self.slotted(delivery, slot))
            }) {
                started.push(delivery);
            }
            self.lanes.push(started);
        }
    }

    fn slotted(&self, delivery: Delivery, slot: OwnedSemaphorePermit) -> Slotted {
        Slotted {
            delivery,
            slot,
            tracked: self.tasks.token(),
        }
    }

    /// Slots for so many fresh deliveries, as many as are free and at least one; or for one that
    /// is not fresh. `None` on stop.
    async fn slots_for(&self, fresh: usize, alone: bool) -> Option<OwnedSemaphorePermit> {
        let at_once = fresh.min(self.slots.available_permits());
        if at_once > 1
            && !self.stop.reading.is_cancelled()
            && let Ok(slots) = self.slots.clone().try_acquire_many_owned(at_once as u32)
        {
            return Some(slots);
        }
        let wanted = if alone { self.concurrency } else { 1 };
        tokio::select! {
            biased;
            () = self.stop.reading.cancelled() => None,
            slots = self.slots.clone().acquire_many_owned(wanted as u32) => slots.ok(),
        }
    }

    /// Whether a delivery is still ours, right before it runs.
    pub(crate) async fn is_still_ours(&self, delivery: &Delivery) -> bool {
        let since = Instant::now();
        if self.is_doubtful(delivery, since) && !delivery.guard.is_lost() {
            // One asks for all that wait for an answer, and once.
            let mut asked = self.asked.lock().await;
            if asked.is_none_or(|at| at < since) {
                renew::renew_now(&self.link, &self.held, self.lease / 3).await;
                *asked = Some(Instant::now());
            }
        }
        !delivery.guard.is_lost()
    }

    /// Whether a delivery may be another's. The renewer keeps leases younger than half; an older
    /// one was not known here: the answer that brought it came late, or waited behind handlers
    /// that block every thread.
    pub(crate) fn is_doubtful(&self, delivery: &Delivery, now: Instant) -> bool {
        let renewed = delivery.guard.renewed();
        renewed.is_none_or(|renewed| now - renewed > self.lease * 2 / 3)
    }

    /// Gives deliveries back unstarted and uncharged, so that anyone claims them at once.
    pub(crate) async fn release(&self, deliveries: Vec<Delivery>) {
        let mut rest = deliveries.as_slice();
        while let Some(first) = rest.first() {
            let same = rest
                .iter()
                .take_while(|d| Arc::ptr_eq(&d.source, &first.source))
                .count();
            let (batch, others) = rest.split_at(same);
            rest = others;
            let fences: Vec<_> = batch.iter().map(|d| (d.fence, d.starts)).collect();
            failpoint!("worker.releasing");
            let holder = first.source.holder.clone();
            let released = self
                .link
                .run(|mut c| async move { holder.release(&mut c, &fences).await });
            match tokio::time::timeout(RELEASE_TIMEOUT, released).await {
                Ok(Ok(answers)) => {
                    let done = answers.iter().filter(|a| **a == Settled::Done).count();
                    metrics::came_to(RELEASED, done as u64);
                    failpoint!("worker.released");
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "could not release deliveries: they come back after their lease")
                }
                Err(_) => tracing::warn!(
                    "could not release deliveries in time: they come back after their lease"
                ),
            }
        }
    }
}

/// A process that must end does not wait longer than this for Redis to take deliveries back.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// When the deliveries that this process parked are due, so that it looks for them in time.
#[derive(Default)]
pub(crate) struct DueTimes {
    times: Mutex<BinaryHeap<Reverse<Instant>>>,
    changed: Notify,
}

impl DueTimes {
    fn times(&self) -> std::sync::MutexGuard<'_, BinaryHeap<Reverse<Instant>>> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, delay: Duration) {
        self.times().push(Reverse(Instant::now() + delay));
        self.changed.notify_one();
    }

    /// Waits until something is due, `limit` at the latest.
    pub(crate) async fn wait(&self, limit: Instant) {
        loop {
            let next = self.times().peek().map_or(limit, |due| due.0.min(limit));
            tokio::select! {
                () = tokio::time::sleep_until(next) => break,
                () = self.changed.notified() => {}
            }
        }
        let now = Instant::now();
        let mut times = self.times();
        while times.peek().is_some_and(|due| due.0 <= now) {
            times.pop();
        }
    }
}
