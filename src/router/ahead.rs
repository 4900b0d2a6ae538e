//! Reading ahead: while one batch is decided and another is on its way through Redis, the next is
//! read already. Nothing waits for a batch to fill: what is there is taken.
//!
//! Redis: XREADGROUP `>` on the inbox. What was read and not routed stays pending for this
//! consumer, at most [`DEPTH`] batches and the one being read; it comes back by recovery.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::batch::{ReadCount, bytes_of};
use crate::failpoint::failpoint;
use crate::store::{Entry, Holder, Link, Reader, StoreError};

/// Batches that wait for the router.
const DEPTH: usize = 1;
/// How long a fault may hold up recovery for the sake of a reply.
const LAST_REPLY: Duration = Duration::from_millis(500);

/// What one read brought, and when.
pub(super) type Read = (Instant, Vec<Entry>);

/// A reader that is a little ahead of who takes its batches.
pub(super) struct ReadAhead {
    batches: mpsc::Receiver<Result<Read, StoreError>>,
    stop: CancellationToken,
    /// Dropped, the read is given up; its reply may still come, and recovery looks for it.
    _task: AbortOnDropHandle<()>,
}

impl ReadAhead {
    /// Starts to read; ends when `stop` fires, or after an error.
    pub(super) fn start(
        link: Link,
        inbox: Arc<Holder>,
        mut count: ReadCount,
        stop: &CancellationToken,
    ) -> Self {
        let stop = stop.child_token();
        let (sender, batches) = mpsc::channel(DEPTH);
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut reader = Reader::new(link);
            // A place first: what is read must not wait here for long, its lease has begun.
            while let Ok(place) = sender.reserve().await {
                if stopped.is_cancelled() {
                    break;
                }
                let streams = [inbox.stream.as_str()];
                let read = reader
                    .read(
                        &inbox.group,
                        &inbox.consumer,
                        &streams,
                        count.get(),
                        true,
                        &stopped,
                    )
                    .await;
                match read {
                    Ok(streams) => {
                        failpoint!("router.read");
                        let entries: Vec<_> = streams.into_iter().flat_map(|(_, e)| e).collect();
                        let bytes = entries.iter().map(|e| bytes_of(&e.fields)).sum();
                        count.learn(entries.len(), bytes);
                        place.send(Ok((Instant::now(), entries)));
                    }
                    Err(error) => {
                        place.send(Err(error));
                        break;
                    }
                }
            }
        });
        Self {
            batches,
            stop,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// The next batch, empty after a while without events; `None` when all was taken after a stop.
    pub(super) async fn next(&mut self) -> Option<Result<Read, StoreError>> {
        self.batches.recv().await
    }

    /// Reads no more; what was read can still be taken.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Reads no more, and waits for the reply to the read under way: what it brings is known to
    /// Redis as this consumer's before recovery looks. (Otherwise it would wait for its lease.)
    pub(super) async fn abandon(mut self) {
        self.stop();
        let answered = async { while self.next().await.is_some() {} };
        if tokio::time::timeout(LAST_REPLY, answered).await.is_err() {
            tracing::debug!("a read was given up; what it brings comes back after its lease");
        }
    }
}
