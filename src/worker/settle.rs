//! Settling: what ends a delivery, sent until Redis has answered.
//!
//! Each settle is fenced, so sending it again is harmless: after a lost answer the repetition
//! finds the delivery gone, which means done. Acknowledgements and commits are collected while a
//! call is under way and go out together; nothing ever waits for a batch to fill.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::held::HeldGuard;
use crate::failpoint::failpoint;
use crate::retry::RECONNECT;
use crate::store::{
    CommitRequest, Committed, Fence, Holder, Link, Settled, StoreError, is_dataset_gone,
};

/// How long an answer is waited for when the process must end.
const LAST_ANSWER: Duration = Duration::from_secs(2);

/// The end of a delivery, on its way to Redis.
pub(crate) enum End {
    /// Nothing but the acknowledgement, which nobody waits for.
    Ack(Ack),
    /// Effects as well.
    Commit(AskedCommit),
}

pub(crate) struct Ack {
    pub(crate) fence: Fence,
    pub(crate) troubled: bool,
    /// Held until it is settled, if it was.
    #[expect(dead_code, reason = "what it does, it does when it is dropped")]
    pub(crate) guard: Option<HeldGuard>,
}

/// A commit, and who waits to hear what became of it.
pub(crate) type AskedCommit = (Arc<CommitRequest>, oneshot::Sender<Answer<Committed>>);

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

/// A queue to the settler of each stream: streams do not wait for each other.
pub(crate) struct Settlers {
    link: Link,
    inbox: String,
    /// Of each queue.
    capacity: usize,
    stop: CancellationToken,
    queues: Mutex<HashMap<String, mpsc::Sender<End>>>,
    tasks: TaskTracker,
}

impl Settlers {
    pub(crate) fn new(link: Link, inbox: String, capacity: usize, stop: CancellationToken) -> Self {
        Self {
            link,
            inbox,
            capacity,
            stop,
            queues: Mutex::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// The queue of a stream; its settler is started when it is asked for the first time.
    pub(crate) fn queue(&self, holder: &Arc<Holder>) -> mpsc::Sender<End> {
        // Nothing in here can panic half-way.
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queues.entry(holder.stream.clone()).or_insert_with(|| {
            let (sender, receiver) = mpsc::channel(self.capacity);
            let settler = Settler {
                holder: holder.clone(),
                link: self.link.clone(),
                inbox: self.inbox.clone(),
                stop: self.stop.clone(),
            };
            self.tasks.spawn(settler.run(receiver));
            sender
        });
        queue.clone()
    }

    /// Ends when all that was queued is settled, and nobody can queue any more.
    pub(crate) async fn finish(&self) {
        self.queues
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Settles the deliveries of one stream: what came in while a call was under way goes out
/// together in the next.
struct Settler {
    holder: Arc<Holder>,
    link: Link,
    inbox: String,
    stop: CancellationToken,
}

impl Settler {
    async fn run(self, mut ends: mpsc::Receiver<End>) {
        const BATCH: usize = 512;
        let mut batch = Vec::with_capacity(BATCH);
        while ends.recv_many(&mut batch, BATCH).await > 0 {
            let (mut acks, mut commits) = (Vec::new(), Vec::new());
            for end in batch.drain(..) {
                match end {
                    End::Ack(ack) => acks.push(ack),
                    End::Commit(commit) => commits.push(commit),
                }
            }
            // The scripts want them in the order of their IDs.
            acks.sort_unstable_by_key(|ack| ack.fence.id);
            commits.sort_unstable_by_key(|(commit, _)| commit.fence.id);
            tokio::join!(self.acknowledge(acks), self.commit(commits));
        }
    }

    async fn acknowledge(&self, acks: Vec<Ack>) {
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

    async fn commit(&self, commits: Vec<AskedCommit>) {
        let mut commits = commits.into_iter().peekable();
        while commits.peek().is_some() {
            let (mut part, mut answers, mut bytes) = (Vec::new(), Vec::new(), 0);
            while let Some((next, answer)) =
                commits.next_if(|(next, _)| bytes == 0 || bytes + size(next) <= MAX_COMMIT_BYTES)
            {
                bytes += size(&next);
                part.push(next);
                answers.push(answer);
            }
            let answer = until_answered(&self.link, &self.stop, |mut c| {
                let (holder, inbox, part) = (&self.holder, &self.inbox, &part);
                async move { holder.commit(&mut c, inbox, part).await }
            });
            // Without an answer the senders are dropped, which tells who waits.
            let Some(Answer { value, resent }) = answer.await else {
                return;
            };
            for (sender, value) in answers.into_iter().zip(value) {
                // Who waited may have been told to stop.
                let _gone = sender.send(Answer { value, resent });
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
            tracing::warn!(stream = holder.stream, entry = %fence.id, ?settled,
                "{what} came too late: the delivery is another worker's, nothing was written");
        }
        Settled::Lost => {
            tracing::error!(stream = holder.stream, entry = %fence.id,
                "LOST: the entry was deleted from its stream while it was pending");
        }
    }
}
