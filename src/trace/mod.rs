//! The trace of a business flow: what became of each of its events, where, when and in whose hands.
//!
//! Redis: `trace:<correlation ID>`, a stream of hops, of bounded length, that expires. Only where
//! `trace` in routing.yaml asks for it.
//!
//! Hops are told after what they tell of has happened, in batches, beside the work and not in its
//! transactions: tracing is to cost little, and no event is held up or fails for its sake. So a hop
//! may be missing after a crash or an outage of Redis; what is there did happen. (Repeated, though: an
//! event that the router drops as a duplicate is traced as routed once more.)

mod hop;
mod tracer;
mod tree;

use crate::store::{Entry, Keys, Link, StoreError};
use uuid::Uuid;

pub use hop::{Flow, Hop, What};
pub(crate) use tracer::{Traced, Tracer};
pub use tree::{Node, Step, Tree};

/// How many hops of one flow are kept, about: the newest.
pub const MAX_HOPS: usize = 1_000;

/// The hops of a flow that are kept, in the order in which they were told.
///
/// # Errors
/// Redis could not be asked.
pub async fn read(link: &Link, keys: &Keys, correlation: Uuid) -> Result<Vec<Hop>, StoreError> {
    let mut ask = redis::cmd("XRANGE");
    ask.arg(keys.trace(correlation)).arg("-").arg("+");
    let entries: Vec<Entry> = link
        .run(|mut c| async move { ask.query_async(&mut c).await })
        .await?;
    Ok(entries.iter().filter_map(Hop::from_entry).collect())
}
