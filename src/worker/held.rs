//! The deliveries that this process holds: what the renewer keeps alive, and cancels when it
//! learns that they are another's by now.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::store::{Fence, Holder};

/// The deliveries of one stream, each with the ticket that it is held under.
pub(crate) type HeldOnStream = (Arc<Holder>, Vec<(u64, Fence)>);

#[derive(Clone, Default)]
pub(crate) struct Held(Arc<Mutex<HashMap<u64, Lease>>>);

struct Lease {
    holder: Arc<Holder>,
    fence: Fence,
    renewed: Instant,
    cancel: CancellationToken,
}

/// Ends the holding when dropped.
pub(crate) struct HeldGuard {
    held: Held,
    ticket: u64,
    /// Fires when the delivery was found to be another's.
    pub(crate) lost: CancellationToken,
}

impl HeldGuard {
    /// How long ago its lease was begun or renewed.
    pub(crate) fn age(&self) -> Duration {
        let leases = self.held.leases();
        leases
            .get(&self.ticket)
            .map_or(Duration::ZERO, |lease| lease.renewed.elapsed())
    }
}

impl Drop for HeldGuard {
    fn drop(&mut self) {
        self.held.leases().remove(&self.ticket);
    }
}

impl Held {
    fn leases(&self) -> MutexGuard<'_, HashMap<u64, Lease>> {
        // Nothing in here can panic half-way, so a poisoned lock still guards a whole map.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts to hold a delivery whose lease began at `since`.
    pub(crate) fn hold(&self, holder: &Arc<Holder>, fence: Fence, since: Instant) -> HeldGuard {
        static TICKETS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let ticket = TICKETS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let lost = CancellationToken::new();
        let lease = Lease {
            holder: holder.clone(),
            fence,
            renewed: since,
            cancel: lost.clone(),
        };
        self.leases().insert(ticket, lease);
        HeldGuard {
            held: self.clone(),
            ticket,
            lost,
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.leases().len()
    }

    /// Those without a sign of life for `age`, grouped by stream.
    pub(crate) fn older_than(&self, age: Duration) -> Vec<HeldOnStream> {
        let now = Instant::now();
        let mut groups: HashMap<String, HeldOnStream> = HashMap::new();
        for (&ticket, lease) in self
            .leases()
            .iter()
            .filter(|(_, l)| now.duration_since(l.renewed) >= age)
        {
            let group = groups
                .entry(lease.holder.stream.clone())
                .or_insert_with(|| (lease.holder.clone(), Vec::new()));
            group.1.push((ticket, lease.fence));
        }
        groups.into_values().collect()
    }

    /// Notes a sign of life at `since`.
    pub(crate) fn renewed(&self, ticket: u64, since: Instant) {
        if let Some(lease) = self.leases().get_mut(&ticket) {
            lease.renewed = since;
        }
    }

    /// The delivery is another's: whoever works on it stops.
    pub(crate) fn lost(&self, ticket: u64) {
        if let Some(lease) = self.leases().get(&ticket) {
            lease.cancel.cancel();
        }
    }
}
