//! The deliveries that this process holds: what the renewer keeps alive, and cancels when it
//! learns that they are another's by now.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::store::{Fence, Holder};

/// The deliveries of one stream, each with the ticket that it is held under.
pub(crate) type HeldOnStream = (Arc<Holder>, Vec<(u64, Fence)>);

#[derive(Clone, Default)]
pub(crate) struct Held(Arc<Mutex<Leases>>);

type Leases = HashMap<u64, Lease, BuildHasherDefault<Tickets>>;

/// Tickets are numbers in a row and of our own making: they only need to be spread.
#[derive(Default)]
struct Tickets(u64);

impl Hasher for Tickets {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes
            .iter()
            .for_each(|byte| self.write_u64(u64::from(*byte)));
    }
    fn write_u64(&mut self, ticket: u64) {
        // Fibonacci hashing: 2^64 by the golden ratio.
        self.0 = (self.0 ^ ticket).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

struct Lease {
    holder: Arc<Holder>,
    fence: Fence,
    renewed: Instant,
    lost: bool,
    /// For who wants to be told; most deliveries are settled before anybody does.
    cancel: Option<CancellationToken>,
}

/// Ends the holding when dropped.
pub(crate) struct HeldGuard {
    held: Held,
    ticket: u64,
}

impl HeldGuard {
    fn with<T>(&self, look: impl FnOnce(&mut Lease) -> T) -> Option<T> {
        self.held.leases().get_mut(&self.ticket).map(look)
    }

    /// When its lease was begun or renewed; `None` if the delivery was found to be another's.
    pub(crate) fn renewed(&self) -> Option<Instant> {
        self.with(|lease| (!lease.lost).then_some(lease.renewed))
            .flatten()
    }

    /// Whether the delivery was found to be another's.
    pub(crate) fn is_lost(&self) -> bool {
        self.renewed().is_none()
    }

    /// Fires when the delivery is found to be another's.
    pub(crate) fn lost(&self) -> CancellationToken {
        let token = self.with(|lease| {
            let token = lease.cancel.get_or_insert_default();
            if lease.lost {
                token.cancel();
            }
            token.clone()
        });
        token.unwrap_or_default()
    }
}

impl Drop for HeldGuard {
    fn drop(&mut self) {
        let lease = self.held.leases().remove(&self.ticket);
        drop(lease); // not under the lock
    }
}

impl Held {
    fn leases(&self) -> MutexGuard<'_, Leases> {
        // Nothing in here can panic half-way, so a poisoned lock still guards a whole map.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts to hold a delivery whose lease began at `since`.
    pub(crate) fn hold(&self, holder: &Arc<Holder>, fence: Fence, since: Instant) -> HeldGuard {
        static TICKETS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let ticket = TICKETS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let lease = Lease {
            holder: holder.clone(),
            fence,
            renewed: since,
            lost: false,
            cancel: None,
        };
        self.leases().insert(ticket, lease);
        HeldGuard {
            held: self.clone(),
            ticket,
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
        if let Some(lease) = self.leases().get_mut(&ticket) {
            lease.lost = true;
            if let Some(cancel) = &lease.cancel {
                cancel.cancel();
            }
        }
    }
}
