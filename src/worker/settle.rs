//! Settling: what ends a delivery, sent until Redis has answered.
//!
//! Each settle is fenced, so sending it again is harmless: after a lost answer the repetition
//! finds the delivery gone, which means done. Acknowledgements without effects are collected
//! while a call is under way and go out together; nothing ever waits for a batch to fill.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::held::HeldGuard;
use crate::retry::RECONNECT;
use crate::store::{Fence, Holder, Link, Settled, StoreError, is_dataset_gone};

/// An acknowledgement without effects, on its way.
pub(crate) struct Ack {
    pub(crate) holder: Arc<Holder>,
    pub(crate) fence: Fence,
    pub(crate) troubled: bool,
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
        let error: StoreError = match link.run(&mut send).await {
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

/// Sends acknowledgements until the channel is closed.
pub(crate) async fn run_acks(mut acks: mpsc::Receiver<Ack>, link: Link, end: CancellationToken) {
    const BATCH: usize = 512;
    let mut batch = Vec::with_capacity(BATCH);
    while acks.recv_many(&mut batch, BATCH).await > 0 {
        let mut streams: HashMap<String, Vec<Ack>> = HashMap::new();
        for ack in batch.drain(..) {
            streams
                .entry(ack.holder.stream.clone())
                .or_default()
                .push(ack);
        }
        for acks in streams.into_values() {
            let Some(holder) = acks.first().map(|ack| ack.holder.clone()) else {
                continue;
            };
            let fences: Vec<_> = acks.iter().map(|ack| (ack.fence, ack.troubled)).collect();
            let send = |mut c| {
                let (holder, fences) = (holder.clone(), &fences);
                async move { holder.ack(&mut c, fences).await }
            };
            if let Some(answer) = until_answered(&link, &end, send).await {
                for (ack, settled) in acks.iter().zip(answer.value) {
                    report(&ack.holder, ack.fence, settled, answer.resent, "commit");
                }
            }
            drop(acks.into_iter().map(|ack| ack.guard).collect::<Vec<_>>());
        }
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
