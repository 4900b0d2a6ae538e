//! The fast way for an ordinary batch: checked by a script without payloads, written by a
//! transaction (see [`crate::store::transact`] for why that is sound). Whatever is out of the ordinary, or fails,
//! is left to `route.lua`.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::LEASE;
use super::batch::{Decided, Dispatch, MAX_BYTES, size};
use crate::store::transact::{Opened, Ready, Transactions};
use crate::store::{RouteBatch, Routed, StoreError};

/// Fewer entries are routed sooner by one exchange than by two.
const WORTH_IT: usize = 32;
/// After a doubt the next batch is likely to meet it as well (another router, a producer that
/// sends everything twice): a check that finds nothing is not free.
const REST: Duration = Duration::from_millis(100);

/// The connection for it, which nobody else may use.
pub(super) struct Fast {
    dispatch: Dispatch,
    transactions: Option<Transactions>,
    rest_until: Instant,
}

impl Fast {
    pub(super) fn new(dispatch: Dispatch) -> Self {
        Self {
            dispatch,
            transactions: None,
            rest_until: Instant::now(),
        }
    }

    /// Asks whether a batch may be written. What was sent before on this connection is answered
    /// by then.
    pub(super) async fn open(&mut self, batch: &Decided) -> Option<Ready> {
        if Instant::now() < self.rest_until || !is_ordinary(batch) {
            return None;
        }
        match self.try_open(batch).await {
            Ok(Opened::Clean(ready)) => Some(ready),
            Ok(Opened::Doubtful(doubt)) => {
                tracing::debug!(doubt, "a batch takes the long way");
                self.rest();
                None
            }
            Err(error) => {
                tracing::debug!(%error, "a batch takes the long way");
                self.give_up();
                None
            }
        }
    }

    async fn try_open(&mut self, batch: &Decided) -> Result<Opened, StoreError> {
        let redis = self.dispatch.link.redis();
        let transactions = match &mut self.transactions {
            Some(transactions) => transactions,
            none => {
                let connection = redis.dedicated(Duration::ZERO).await?;
                let built = Transactions::on(connection).await;
                none.insert(built.map_err(|e| redis.error(e))?)
            }
        };
        let whole = batch.whole();
        let opened = self
            .dispatch
            .with_batch(&whole, async |batch: &RouteBatch<'_>| {
                transactions.open(batch).await
            });
        opened.await.map_err(|e| redis.error(e))
    }

    /// Not for a while.
    pub(super) fn rest(&mut self) {
        self.rest_until = Instant::now() + REST;
    }

    /// What is open on the connection ends with it.
    pub(super) fn give_up(&mut self) {
        self.transactions = None;
        self.rest();
    }
}

/// Whether nothing about a batch asks for `route.lua`: it is one recent read, not audited, all of it is to be
/// appended, no event of it twice, and it is neither small nor too large for one exchange.
fn is_ordinary(batch: &Decided) -> bool {
    // No lease of it can run out while it is routed.
    let recent = batch.read.is_some_and(|read| read.elapsed() < LEASE / 3);
    if !recent || batch.entries.len() < WORTH_IT || batch.sources.is_some() {
        return false;
    }
    let (mut bytes, mut known) = (0, HashSet::with_capacity(batch.entries.len()));
    batch.entries.iter().all(|(_, routed)| {
        bytes += size(routed);
        let new = match routed {
            Routed::Append { event_id, .. } => known.insert(event_id.as_str()),
            Routed::Schedule { .. } | Routed::Dead(_) => false,
        };
        new && bytes <= MAX_BYTES
    })
}
