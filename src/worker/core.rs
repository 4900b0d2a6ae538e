//! What the roles of one worker share, and how a delivery enters its slots.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::delivery::{AttemptLog, Delivery, Start};
use super::execute::execute;
use super::handler::{Environment, Handler};
use super::held::Held;
use super::renew;
use super::settle::{End, Settlers};
use super::throttle::Throttle;
use crate::failpoint::failpoint;
use crate::fleet::Identity;
use crate::routing::{Config, SubscriberSettings};
use crate::store::{EntryId, Fence, Fields, Holder, Link};

/// How a worker ends: first nothing new is read, then (at the deadline) nothing goes on.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Stop reading; finish what was started.
    pub reading: CancellationToken,
    /// Stop everything; what is not settled is released.
    pub now: CancellationToken,
}

/// One stream that a worker reads.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) name: Arc<str>,
    pub(crate) holder: Arc<Holder>,
    /// To its settler.
    pub(crate) ends: mpsc::Sender<End>,
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
    pub(crate) sources: watch::Sender<Arc<Vec<Source>>>,
    /// Settings of the last configuration that knew this subscriber.
    pub(crate) settings: watch::Receiver<Arc<SubscriberSettings>>,
    /// The lease that this process renews by: the one of its start.
    pub(crate) lease: Duration,
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) concurrency: usize,
    pub(crate) held: Held,
    pub(crate) throttle: Throttle,
    pub(crate) settlers: Arc<Settlers>,
    pub(crate) due: DueTimes,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: Stop,
}

impl<H: Handler> Core<H> {
    /// Takes a delivery into our hands: from here on its lease, which began at `since`, is renewed.
    pub(crate) fn hold(
        &self,
        source: &Source,
        fence: Fence,
        fields: Fields,
        since: Instant,
    ) -> Delivery {
        Delivery {
            holder: source.holder.clone(),
            ends: source.ends.clone(),
            stream: source.name.clone(),
            fence,
            fields,
            starts: None,
            log: AttemptLog::default(),
            troubled: false,
            guard: self.held.hold(&source.holder, fence, since),
        }
    }

    /// Waits for a slot (for all of them, if it must run alone) and starts it there. On stop
    /// the unstarted are released.
    pub(crate) async fn start(self: &Arc<Self>, deliveries: Vec<Delivery>) {
        let mut deliveries = deliveries.into_iter();
        while let Some(delivery) = deliveries.next() {
            let slots = match Start::after(delivery.starts) {
                Start::Alone => self.concurrency,
                Start::Together | Start::Crashed => 1,
            };
            let permit = tokio::select! {
                biased;
                () = self.stop.reading.cancelled() => None,
                permit = self.slots.clone().acquire_many_owned(slots as u32) => permit.ok(),
            };
            let Some(permit) = permit else {
                self.release(std::iter::once(delivery).chain(deliveries).collect())
                    .await;
                return;
            };
            // The renewer keeps leases younger than half; an older one was not known here: the
            // answer that brought it came late, or waited behind handlers that block every thread.
            if delivery.guard.age() > self.lease * 2 / 3 {
                renew::renew_now(&self.link, &self.held, self.lease / 3).await;
            }
            if delivery.guard.lost.is_cancelled() {
                continue; // it became another's
            }
            self.tasks.spawn(execute(self.clone(), delivery, permit));
        }
    }

    /// Gives deliveries back unstarted and uncharged, so that anyone claims them at once.
    pub(crate) async fn release(&self, deliveries: Vec<Delivery>) {
        let mut rest = deliveries.as_slice();
        while let Some(first) = rest.first() {
            let same = rest.iter().take_while(|d| d.stream == first.stream).count();
            let (batch, others) = rest.split_at(same);
            rest = others;
            let fences: Vec<_> = batch.iter().map(|d| (d.fence, d.starts)).collect();
            failpoint!("worker.releasing");
            let holder = first.holder.clone();
            let released = self
                .link
                .run(|mut c| async move { holder.release(&mut c, &fences).await });
            match tokio::time::timeout(RELEASE_TIMEOUT, released).await {
                Ok(Ok(_)) => failpoint!("worker.released"),
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
