//! Layer 2: the router. It reads the inbox, decides about each event ([`crate::admission`]),
//! and hands batches to one script that appends, deduplicates, refuses and removes in one step; the
//! ordinary batch of a backlog goes to a transaction that does the same, once it was checked. What
//! is to be delivered later waits until the scheduler of any router moves it on.
//!
//! Redis: `inbox` (group `router`), the domain streams, `seen:*`, `dead:router`, `stats:router`,
//! `scheduled` and `scheduled:events`, `audit`; marks in `fleet` of what is not well.
//! Guarantee: an accepted event is in the inbox, or scheduled, or in its domain stream, or in
//! `dead:router`, or was a duplicate or cancelled; several routers may run side by side.

mod ahead;
mod batch;
mod decide;
mod dedupe;
mod fast;
mod health;
mod janitor;
mod measured;
mod run;
mod scheduler;
mod sender;
mod traced;

use std::time::Duration;

pub use decide::{Verdict, decide, examine};
pub(crate) use run::MEMORY_LIMIT;
pub use run::{RouterError, RouterOptions, run};

/// How long a router may hold entries of the inbox without a sign of life. A batch takes
/// milliseconds, so there is nothing to renew.
pub const LEASE: Duration = Duration::from_secs(30);
