//! Sending: one task that hands batches to Redis in their order, the ordinary ones the fast way.
//! Redis does not wait for us in between: while a batch is written, the next one's check is on
//! its way behind it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::Poll;

use futures_util::future::{FutureExt, MaybeDone, maybe_done};
use redis::RedisError;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::batch::{Decided, Dispatch};
use super::fast::Fast;
use crate::failpoint::failpoint;
use crate::progress::{Beat, PATIENCE};
use crate::store::transact::Ready;
use crate::store::{RouteCounts, StoreError};

type Batch = (Decided, oneshot::Sender<RouteCounts>);

/// The task, and the batches that it was given.
pub(super) struct Sender {
    batches: mpsc::Sender<Batch>,
    under_way: VecDeque<oneshot::Receiver<RouteCounts>>,
    /// Dropped, what is under way is given up like any lost answer: recovery finds out.
    task: AbortOnDropHandle<Result<(), StoreError>>,
}

impl Sender {
    pub(super) fn start(dispatch: Dispatch) -> Self {
        let (batches, queue) = mpsc::channel(1);
        Self {
            batches,
            under_way: VecDeque::new(),
            task: AbortOnDropHandle::new(tokio::spawn(send_all(dispatch, queue))),
        }
    }

    /// Hands over a batch; it is sent after those before it.
    pub(super) async fn hand_over(&mut self, batch: Decided) {
        let (routed, answer) = oneshot::channel();
        self.under_way.push_back(answer);
        // Refused where the task has ended: the answers say why.
        drop(self.batches.send((batch, routed)).await);
    }

    /// The answer about the oldest batch, if more than so many are under way.
    pub(super) async fn next(&mut self, but: usize) -> Option<Result<RouteCounts, StoreError>> {
        if self.under_way.len() <= but {
            return None;
        }
        if let Ok(counts) = self.under_way.pop_front()?.await {
            return Some(Ok(counts));
        }
        match (&mut self.task).await {
            Ok(Err(error)) => Some(Err(error)),
            Ok(Ok(())) => None, // it ends with its queue, which is open
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
}

/// A batch that is being written.
struct Writing {
    batch: Batch,
    answer: Pin<Box<MaybeDone<Write>>>,
}
type Write = Pin<Box<dyn Future<Output = Result<bool, RedisError>> + Send>>;

impl Writing {
    /// Sends it: whatever is sent on its connection from now on comes behind it.
    async fn start(batch: Batch, ready: Ready) -> Self {
        let mut answer = Box::pin(maybe_done(execute(ready).boxed()));
        std::future::poll_fn(|context| {
            let _ = answer.as_mut().poll(context);
            Poll::Ready(())
        })
        .await;
        Self { batch, answer }
    }
}

async fn execute(ready: Ready) -> Result<bool, RedisError> {
    failpoint!("router.checked");
    ready.execute().await
}

async fn send_all(dispatch: Dispatch, mut queue: mpsc::Receiver<Batch>) -> Result<(), StoreError> {
    // Its own: the task before it may still be on its way out, and must not speak for this one.
    let beat = dispatch.progress.of("sending", PATIENCE);
    let mut fast = Fast::new(dispatch.clone());
    let mut writing: Option<Writing> = None;
    loop {
        let batch = match &mut writing {
            None => {
                beat.rest();
                queue.recv().await
            }
            Some(before) => tokio::select! {
                biased;
                batch = queue.recv() => batch,
                () = &mut before.answer => {
                    finish(&dispatch, &beat, &mut fast, writing.take()).await?;
                    continue;
                }
            },
        };
        beat.touch();
        let Some(batch) = batch else {
            finish(&dispatch, &beat, &mut fast, writing).await?;
            beat.rest();
            return Ok(());
        };
        let ready = fast.open(&batch.0).await;
        let written = finish(&dispatch, &beat, &mut fast, writing.take()).await?;
        match ready {
            Some(ready) if written => writing = Some(Writing::start(batch, ready).await),
            other => {
                if other.is_some() {
                    fast.give_up(); // what was open may not be written any more
                }
                let (batch, routed) = batch;
                let counts = dispatch.send_all(&batch, &beat).await?;
                dispatch.tell(batch, &counts);
                routed.send(counts).ok();
            }
        }
    }
}

/// Waits for the batch that is being written; answers whether what was sent behind it still counts.
async fn finish(
    dispatch: &Dispatch,
    beat: &Beat,
    fast: &mut Fast,
    writing: Option<Writing>,
) -> Result<bool, StoreError> {
    let Some(Writing { batch, mut answer }) = writing else {
        return Ok(true);
    };
    answer.as_mut().await;
    let (batch, routed) = batch;
    let (counts, written) = match answer.as_mut().take_output() {
        Some(Ok(true)) => {
            let routed = batch.entries.len() as u64;
            let counts = RouteCounts {
                routed,
                ..RouteCounts::default()
            };
            (counts, true)
        }
        other => {
            match other {
                Some(Err(error)) => {
                    tracing::debug!(%error, "it is not known whether a batch was routed");
                    fast.give_up();
                }
                _ => {
                    tracing::debug!("something changed under a batch");
                    fast.rest();
                }
            }
            (dispatch.send_all(&batch, beat).await?, false)
        }
    };
    dispatch.tell(batch, &counts);
    routed.send(counts).ok();
    Ok(written)
}
