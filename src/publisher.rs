//! Publishing: appends events to the inbox, as any producer can with `XADD inbox * event …`.
//!
//! An event is accepted when its XADD was answered. When an answer is missing (an error, a
//! crash), nobody knows whether the event arrived: publish it again with the same `event_id`.
//! If it had arrived, the router drops the second as a duplicate.

use std::time::Duration;

use tokio::time::Instant;

use crate::event::Event;
use crate::metrics;
use crate::store::{Access, EntryId, Keys, Link, Redis, StoreError, StreamField};

/// Events in one round trip, at most.
const CHUNK_EVENTS: usize = 500;
/// Bytes in one round trip, unless a single event is larger.
const CHUNK_BYTES: usize = 1024 * 1024;

/// Publishes events. Cheap to clone; clones share one connection, which is rebuilt after a fault.
#[derive(Clone)]
pub struct Publisher {
    link: Link,
    inbox: String,
}

/// Why an event was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Redis did not accept it, or did not say so.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It cannot be written as JSON.
    #[error("the event cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl Publisher {
    /// Connects to Redis; `namespace` is the one of routing.yaml.
    ///
    /// # Errors
    /// The access cannot be used, or Redis cannot be reached.
    pub async fn connect(
        access: impl Into<Access>,
        namespace: Option<&str>,
    ) -> Result<Self, StoreError> {
        let redis = Redis::open(access)?;
        // A connection of its own tells at once whether the server is there.
        drop(redis.dedicated(Duration::ZERO).await?);
        Ok(Self::new(redis.link(), &Keys::new(namespace)))
    }

    /// Publishes over a connection that is there already.
    pub fn new(link: Link, keys: &Keys) -> Self {
        Self {
            link,
            inbox: keys.inbox(),
        }
    }

    /// Appends events, JSON each, byte for byte; answers their entry IDs in the inbox.
    ///
    /// # Errors
    /// Some of them may have been accepted: publish all of them again, with the same IDs.
    pub async fn publish(&self, events: &[Vec<u8>]) -> Result<Vec<EntryId>, StoreError> {
        let mut accepted = Vec::with_capacity(events.len());
        let mut rest = events;
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(chunk_len(rest));
            let pipeline = appends(&self.inbox, chunk);
            let asked = metrics::on().then(Instant::now);
            let answer = self
                .link
                .run(|mut c| async move { pipeline.query_async(&mut c).await });
            let answer: Result<Vec<EntryId>, StoreError> = answer.await;
            if let Some(asked) = asked {
                metrics::published(chunk.len(), asked.elapsed(), answer.is_ok());
            }
            accepted.extend(answer?);
            rest = after;
        }
        Ok(accepted)
    }

    /// Appends one event.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub async fn publish_event(&self, event: &Event) -> Result<EntryId, PublishError> {
        let ids = self.publish(&[serde_json::to_vec(event)?]).await?;
        Ok(ids.into_iter().next().unwrap_or_default())
    }
}

/// The commands that append these events, of one round trip.
pub fn appends(inbox: &str, events: &[Vec<u8>]) -> redis::Pipeline {
    const FIXED_BYTES: usize = "XADD*".len() + StreamField::EVENT.len();
    let mut pipeline = redis::Pipeline::with_capacity(events.len());
    for event in events {
        // Of the size that it comes to: it holds a copy of the event.
        let mut add = redis::Cmd::with_capacity(5, FIXED_BYTES + inbox.len() + event.len());
        add.arg("XADD").arg(inbox).arg("*");
        add.arg(StreamField::EVENT).arg(event.as_slice());
        pipeline.add_command(add);
    }
    pipeline
}

/// How many of `events` go into one round trip: at least one.
fn chunk_len(events: &[Vec<u8>]) -> usize {
    let mut bytes = 0;
    let fits = events.iter().take(CHUNK_EVENTS).take_while(|event| {
        bytes += event.len();
        bytes <= CHUNK_BYTES
    });
    fits.count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_bounded_in_count_and_bytes_but_never_empty() {
        let of = |size: usize, count: usize| vec![vec![b'x'; size]; count];
        assert_eq!(chunk_len(&of(10, 3)), 3);
        assert_eq!(chunk_len(&of(10, 2_000)), CHUNK_EVENTS);
        assert_eq!(chunk_len(&of(CHUNK_BYTES / 4, 9)), 4);
        assert_eq!(chunk_len(&of(2 * CHUNK_BYTES, 2)), 1);
    }
}
