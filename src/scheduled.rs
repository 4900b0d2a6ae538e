//! Scheduled events for the operator: look at them, cancel them.
//!
//! Redis: `scheduled`, `scheduled:events`. An event is cancelled in one script, or was moved on
//! before. Listing reads bounded pages, each true of its own moment.

use jiff::Timestamp;
use serde::Deserialize;

use crate::store::{self, Due, Keys, Link, StoreError};
use crate::time;

/// Events read at a time: each can have the largest size.
const PAGE: usize = 32;

/// An event that is to be delivered later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduledEvent {
    /// Its event ID.
    pub id: String,
    /// When it is due.
    pub due: Timestamp,
    /// Its type, where it can be read.
    pub event_type: Option<String>,
    /// Length of the chain of follow-ups.
    pub hops: u32,
    /// The bytes as received.
    pub event: Vec<u8>,
}

/// The scheduled events of one Redis.
#[derive(Clone)]
pub struct ScheduledEvents {
    link: Link,
    due_times: String,
    events: String,
}

impl ScheduledEvents {
    /// Works over `link`.
    pub fn new(link: Link, keys: &Keys) -> Self {
        Self {
            link,
            due_times: keys.scheduled(),
            events: keys.scheduled_events(),
        }
    }

    fn keys(&self) -> [&str; 2] {
        [&self.due_times, &self.events]
    }

    /// So many of them, the one that is due first being the first.
    ///
    /// # Errors
    /// Redis could not be asked.
    pub async fn list(&self, limit: usize) -> Result<Vec<ScheduledEvent>, StoreError> {
        let (keys, mut listed) = (self.keys(), Vec::new());
        let mut from = 0;
        while from < limit {
            let most = PAGE.min(limit - from);
            let page = self
                .link
                .run(|mut c| async move { store::list_scheduled(&mut c, keys, from, most).await })
                .await?;
            from += page.len();
            let last = page.len() < most;
            listed.extend(page.into_iter().filter_map(read));
            if last {
                break;
            }
        }
        Ok(listed)
    }

    /// Cancels events; answers for each whether it was scheduled.
    ///
    /// # Errors
    /// Redis did not do it, or did not say so. Try again.
    pub async fn cancel(&self, ids: &[String]) -> Result<Vec<bool>, StoreError> {
        let (keys, ids) = (self.keys(), ids.iter().map(|id| id.clone().into_bytes()));
        let ids: Vec<_> = ids.collect();
        let ids = &ids;
        self.link
            .run(|mut c| async move { store::cancel_scheduled(&mut c, keys, ids).await })
            .await
    }
}

/// What was moved on between two questions is not there any more.
fn read((due, due_ms): (Due, u64)) -> Option<ScheduledEvent> {
    #[derive(Deserialize)]
    struct Typed {
        event_type: String,
    }
    let (hops, event) = due.kept?;
    let typed: Option<Typed> = serde_json::from_slice(&event).ok();
    Some(ScheduledEvent {
        id: String::from_utf8_lossy(&due.id).into_owned(),
        due: time::from_ms(due_ms).unwrap_or(Timestamp::MAX),
        event_type: typed.map(|typed| typed.event_type),
        hops,
        event,
    })
}
