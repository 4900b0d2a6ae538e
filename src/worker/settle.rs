//! Settling: what ends a delivery, sent until Redis has answered.
//!
//! Each settle is fenced, so sending it again is harmless: after a lost answer the repetition
//! finds the delivery gone, which means done. Acknowledgements without effects are collected
//! while a call is under way and go out together; nothing ever waits for a batch to fill.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::held::HeldGuard;
use crate::failpoint::failpoint;
use crate::retry::RECONNECT;
use crate::store::{Fence, Holder, Link, Settled, StoreError, is_dataset_gone};

/// How long an answer is waited for when the process must end.
const LAST_ANSWER: Duration = Duration::from_secs(2);

/// An acknowledgement without effects, on its way.
pub(crate) struct Ack {
    pub(crate) holder: Arc<Holder>,
    pub(crate) fence: Fence,
    pub(crate) troubled: bool,
    /// Held until it is settled, if it was.
    #[expect(dead_code, reason = "what it does, it does when it is dropped")]
    pub(crate) guard: Option<HeldGuard>,
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

/// Sends acknowledgements until the channel is closed: one task per stream, so that streams wait
/// for each other only when the queue of one is full.
pub(crate) async fn run_acks(mut acks: mpsc::Receiver<Ack>, link: Link, end: CancellationToken) {
    let mut streams: HashMap<String, mpsc::Sender<Ack>> = HashMap::new();
    let mut tasks = JoinSet::new();
    while let Some(ack) = acks.recv().await {
        let stream = streams.entry(ack.holder.stream.clone()).or_insert_with(|| {
            let (sender, receiver) = mpsc::channel(acks.max_capacity());
            tasks.spawn(run_stream_acks(
                receiver,
                ack.holder.clone(),
                link.clone(),
                end.clone(),
            ));
            sender
        });
        // The receiver lives until its sender is dropped.
        let sent = stream.send(ack).await;
        debug_assert!(sent.is_ok());
    }
    drop(streams);
    tasks.join_all().await;
}

async fn run_stream_acks(
    mut acks: mpsc::Receiver<Ack>,
    holder: Arc<Holder>,
    link: Link,
    end: CancellationToken,
) {
    const BATCH: usize = 512;
    let mut batch = Vec::with_capacity(BATCH);
    while acks.recv_many(&mut batch, BATCH).await > 0 {
        let fences: Vec<_> = batch.iter().map(|ack| (ack.fence, ack.troubled)).collect();
        failpoint!("worker.acknowledging");
        let answer = until_answered(&link, &end, |mut c| {
            let (holder, fences) = (&holder, &fences);
            async move { holder.ack(&mut c, fences).await }
        });
        if let Some(answer) = answer.await {
            failpoint!("worker.acknowledged");
            for (ack, settled) in batch.iter().zip(answer.value) {
                report(&holder, ack.fence, settled, answer.resent, "commit");
            }
        }
        batch.clear();
    }
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
