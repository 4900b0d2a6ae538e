//! Settling: what ends a delivery, sent until Redis has answered.
//!
//! Each settle is fenced, so sending it again is harmless: after a lost answer the repetition
//! finds the delivery gone, which means done. Acknowledgements and commits are collected while a
//! call is under way and go out together; nothing ever waits for a batch to fill.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::delivery::InHand;
use super::held::HeldGuard;
use super::measured::{self, is_done};
use crate::failpoint::failpoint;
use crate::fleet::figures::APPENDS;
use crate::metrics::{self, OVERTAKEN};
use crate::retry::RECONNECT;
use crate::store::{
    CommitRequest, Committed, Fence, Holder, Link, Settled, StoreError, is_dataset_gone,
};
use crate::trace::{Traced, Tracer};

/// How long an answer is waited for when the process must end.
const LAST_ANSWER: Duration = Duration::from_secs(2);

/// The end of a delivery, on its way to Redis.
pub(crate) enum End {
    /// Nothing but the acknowledgement, which nobody waits for.
    Ack(Ack),
    /// Effects as well.
    Commit(Commit),
}

pub(crate) struct Ack {
    pub(crate) fence: Fence,
    pub(crate) troubled: bool,
    /// Held until it is settled, if it was.
    pub(crate) guard: Option<HeldGuard>,
    /// What is to be told once it is done.
    pub(crate) hop: Option<Traced>,
}

pub(crate) struct Commit {
    pub(crate) request: Arc<CommitRequest>,
    pub(crate) waits: Waits,
    /// What is to be told once it is done.
    pub(crate) hop: Option<Traced>,
}

/// Who is to know what became of a commit.
pub(crate) enum Waits {
    /// A task that waits for the answer.
    Task(oneshot::Sender<Answer<Committed>>),
    /// Nobody: the delivery itself is kept, and goes on only if it is not settled by this.
    Delivery(Box<InHand>),
}

/// A commit that did not settle its delivery.
pub(crate) struct Unsettled {
    pub(crate) in_hand: Box<InHand>,
    pub(crate) request: Arc<CommitRequest>,
    pub(crate) answer: Answer<Committed>,
}

/// An answer, and whether the question had to be repeated for it.
pub(crate) struct Answer<T> {
    pub(crate) value: T,
    pub(crate) resent: bool,
}

/// Sends until answered. `None`: the process must end, or the group is gone; the delivery stays
/// pending, to be settled by whoever gets it next.
pub(crate) async fn until_answered<T, Fut>(
    link: &Link,
    end: &CancellationToken,
    mut send: impl FnMut(MultiplexedConnection) -> Fut,
) -> Option<Answer<T>>
where
    Fut: Future<Output = Result<T, RedisError>>,
{
    let mut failures = 0;
    loop {
        // When the process must end, an answer under way still gets a moment.
        let out_of_time = async {
            end.cancelled().await;
            tokio::time::sleep(LAST_ANSWER).await;
        };
        let sent = tokio::select! {
            sent = link.run(&mut send) => sent,
            () = out_of_time => return None,
        };
        let error: StoreError = match sent {
            Ok(value) => {
                return Some(Answer {
                    value,
                    resent: failures > 0,
                });
            }
            Err(error) => error,
        };
        failures += 1;
        if error.redis().is_some_and(is_dataset_gone) {
            tracing::error!(%error, "cannot settle: the group is gone");
            return None;
        }
        tracing::warn!(%error, failures, "Redis did not settle a delivery; sending again");
        tokio::select! {
            () = end.cancelled() => return None,
            () = tokio::time::sleep(RECONNECT.delay(failures)) => {}
        }
    }
}

/// What has ended on one stream and is to be settled, in the order in which it did.
pub(crate) struct Ends {
    queue: Mutex<Queue>,
    /// How many may wait without keeping their slots.
    capacity: usize,
    filled: Notify,
    emptied: Notify,
}

#[derive(Default)]
struct Queue {
    ends: Vec<End>,
    /// Of ends beyond the capacity: no more deliveries wait for a stream that cannot be settled
    /// than that and as many as there are slots.
    slots: Vec<OwnedSemaphorePermit>,
    closed: bool,
}

impl Ends {
    fn new(capacity: usize) -> Self {
        Self {
            queue: Mutex::default(),
            capacity,
            filled: Notify::new(),
            emptied: Notify::new(),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing in here can panic half-way.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands ends over, and with them the slots of those that nobody works on any more.
    pub(crate) fn push(
        &self,
        ends: impl IntoIterator<Item = End>,
        slots: Option<OwnedSemaphorePermit>,
    ) {
        let mut queue = self.queue();
        if queue.closed {
            return; // the process has ended all but in name
        }
        queue.ends.extend(ends);
        let free = if queue.ends.len() > self.capacity {
            queue.slots.extend(slots);
            None
        } else {
            slots
        };
        drop(queue);
        drop(free);
        self.filled.notify_one();
    }

    /// The same for one that has no slot, when there is room.
    pub(crate) async fn push_when_there_is_room(&self, end: End) {
        loop {
            let emptied = self.emptied.notified();
            if self.queue().ends.len() < self.capacity {
                break;
            }
            emptied.await;
        }
        self.push([end], None);
    }

    /// Takes at most so many when there are any; `None` when all is taken and nothing comes.
    async fn take(&self, most: usize) -> Option<Vec<End>> {
        loop {
            let (taken, _given_back) = {
                let mut queue = self.queue();
                if queue.ends.is_empty() && queue.closed {
                    return None;
                }
                let count = queue.ends.len().min(most);
                let taken: Vec<_> = queue.ends.drain(..count).collect();
                let fits = queue.ends.len() <= self.capacity;
                let slots = fits.then(|| std::mem::take(&mut queue.slots));
                (taken, slots)
            };
            if !taken.is_empty() {
                self.emptied.notify_waiters();
                return Some(taken);
            }
            self.filled.notified().await;
        }
    }

    fn close(&self) {
        self.queue().closed = true;
        self.filled.notify_one();
    }
}

/// A settler for each stream: streams do not wait for each other.
pub(crate) struct Settlers {
    link: Link,
    inbox: String,
    /// Of the ends of each stream.
    capacity: usize,
    stop: CancellationToken,
    unsettled: mpsc::UnboundedSender<Unsettled>,
    tracer: Tracer,
    streams: Mutex<HashMap<String, Arc<Ends>>>,
    tasks: TaskTracker,
}

impl Settlers {
    /// What a commit did not settle is told to `unsettled`: no more than there are slots.
    pub(crate) fn new(
        link: Link,
        inbox: String,
        capacity: usize,
        stop: CancellationToken,
        unsettled: mpsc::UnboundedSender<Unsettled>,
        tracer: Tracer,
    ) -> Self {
        Self {
            link,
            inbox,
            capacity,
            stop,
            unsettled,
            tracer,
            streams: Mutex::default(),
            tasks: TaskTracker::new(),
        }
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<String, Arc<Ends>>> {
        // Nothing in here can panic half-way.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ends of a stream; its settler is started when they are asked for the first time.
    pub(crate) fn ends(&self, holder: &Arc<Holder>) -> Arc<Ends> {
        let mut streams = self.streams();
        let ends = streams.entry(holder.stream.clone()).or_insert_with(|| {
            let ends = Arc::new(Ends::new(self.capacity));
            let settler = Settler {
                holder: holder.clone(),
                ends: ends.clone(),
                link: self.link.clone(),
                inbox: self.inbox.clone(),
                stop: self.stop.clone(),
                unsettled: self.unsettled.clone(),
                tracer: self.tracer.clone(),
            };
            self.tasks.spawn(settler.run());
            ends
        });
        ends.clone()
    }

    /// Ends when all that was handed over is settled; what comes later is not taken.
    pub(crate) async fn finish(&self) {
        self.streams().values().for_each(|ends| ends.close());
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Settles the deliveries of one stream: what came in while a call was under way goes out
/// together in the next.
struct Settler {
    holder: Arc<Holder>,
    ends: Arc<Ends>,
    link: Link,
    inbox: String,
    stop: CancellationToken,
    unsettled: mpsc::UnboundedSender<Unsettled>,
    tracer: Tracer,
}

impl Settler {
    async fn run(self) {
        const BATCH: usize = 512;
        while let Some(batch) = self.ends.take(BATCH).await {
            let (mut acks, mut commits) = (Vec::with_capacity(batch.len()), Vec::new());
            for end in batch {
                match end {
                    End::Ack(ack) => acks.push(ack),
                    End::Commit(commit) => commits.push(commit),
                }
            }
            // The scripts want them in the order of their IDs.
            acks.sort_unstable_by_key(|ack| ack.fence.id);
            commits.sort_unstable_by_key(|commit| commit.request.fence.id);
            tokio::join!(self.acknowledge(acks), self.commit(commits));
        }
    }

    async fn acknowledge(&self, mut acks: Vec<Ack>) {
        if acks.is_empty() {
            return;
        }
        let fences: Vec<_> = acks.iter().map(|ack| (ack.fence, ack.troubled)).collect();
        failpoint!("worker.acknowledging");
        let answer = until_answered(&self.link, &self.stop, |mut c| {
            let (holder, fences) = (&self.holder, &fences);
            async move { holder.ack(&mut c, fences).await }
        });
        if let Some(Answer { value, resent }) = answer.await {
            failpoint!("worker.acknowledged");
            if metrics::on() {
                measured::acknowledged(&acks, &value, resent);
            }
            // Which of them were not ours any more is not told, and what a trace tells did happen.
            if value.done == fences.len() || resent {
                self.tracer
                    .tell(acks.iter_mut().filter_map(|ack| ack.hop.take()));
            }
            // After a repetition: the first send had done it; only its answer was lost.
            if value.done < fences.len() && !resent {
                tracing::warn!(
                    stream = self.holder.stream,
                    of = fences.len(),
                    gone = value.gone,
                    fenced = value.fenced,
                    "some acknowledgements came too late: the deliveries are another worker's, nothing was written"
                );
            }
        }
    }

    async fn commit(&self, commits: Vec<Commit>) {
        let mut commits = commits.into_iter().peekable();
        while commits.peek().is_some() {
            let (mut part, mut waiting, mut bytes) = (Vec::new(), Vec::new(), 0);
            while let Some(Commit {
                request,
                waits,
                hop,
            }) = commits
                .next_if(|next| bytes == 0 || bytes + size(&next.request) <= MAX_COMMIT_BYTES)
            {
                bytes += size(&request);
                part.push(request);
                waiting.push((waits, hop));
            }
            let (appends, sent) = (part.iter().filter(|c| c.asked.appends), Instant::now());
            let appends = appends.count() as u64;
            let answer = until_answered(&self.link, &self.stop, |mut c| {
                let (holder, inbox, part) = (&self.holder, &self.inbox, &part);
                async move { holder.commit(&mut c, inbox, part).await }
            });
            // Without an answer the senders are dropped, which tells who waits.
            let Some(Answer { value, resent }) = answer.await else {
                return;
            };
            APPENDS.took(appends, sent.elapsed());
            if metrics::on() {
                measured::committed(&part, &value, resent, sent.elapsed());
            }
            failpoint!("worker.committed");
            for ((request, (waits, hop)), value) in part.into_iter().zip(waiting).zip(value) {
                if is_done(&value, resent) {
                    self.tracer.tell(hop);
                }
                self.tell(request, waits, Answer { value, resent });
            }
        }
    }

    fn tell(&self, request: Arc<CommitRequest>, waits: Waits, answer: Answer<Committed>) {
        match (waits, &answer.value) {
            // Who waited may have been told to stop.
            (Waits::Task(sender), _) => drop(sender.send(answer)),
            (Waits::Delivery(_), Committed::Settled(settled)) => {
                report(
                    &self.holder,
                    request.fence,
                    *settled,
                    answer.resent,
                    "commit",
                );
            }
            (Waits::Delivery(in_hand), _) => {
                // Nobody takes it only if the process has ended: it comes back after its lease.
                drop(self.unsettled.send(Unsettled {
                    in_hand,
                    request,
                    answer,
                }));
            }
        }
    }
}

/// Bytes of commits in one script, unless a single one has more: it must not hold Redis up.
const MAX_COMMIT_BYTES: usize = 256 * 1024;

fn size(commit: &CommitRequest) -> usize {
    // Half a hundred bytes for what every commit has: many small ones take time as well.
    let keys = commit.asked.keys.iter().map(|key| key.len() + 50);
    50 + keys.sum::<usize>() + commit.asked.values.iter().map(Vec::len).sum::<usize>()
}

/// Logs a settle that found its delivery in other hands.
pub(crate) fn report(holder: &Holder, fence: Fence, settled: Settled, resent: bool, what: &str) {
    match settled {
        Settled::Done => {}
        // The first send had done it; only its answer was lost.
        Settled::Gone | Settled::Fenced if resent => {}
        Settled::Gone | Settled::Fenced => {
            metrics::came_to(OVERTAKEN, 1);
            tracing::warn!(stream = holder.stream, entry = %fence.id, ?settled,
                "{what} came too late: the delivery is another worker's, nothing was written");
        }
        Settled::Lost => {
            tracing::error!(stream = holder.stream, entry = %fence.id,
                "LOST: the entry was deleted from its stream while it was pending");
        }
    }
}
