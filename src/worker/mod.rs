//! Layer 2: the worker. Its roles, one small file each:
//!
//! | role | what it does |
//! |---|---|
//! | fetch | reads new entries, never more than there are free slots |
//! | lanes | where fresh deliveries run: the first step of their handlers, many at a time |
//! | supervise | keeps a handler that blocks its thread from holding up others, from the renewer's thread |
//! | execute | runs one delivery to its end and settles by what its handler returned |
//! | settle | sends what ends deliveries until Redis has answered |
//! | reclaim | brings back with XAUTOCLAIM what is due or lost its worker |
//! | breaker | whether anything may be read: the circuit breaker that all workers share, and pauses |
//! | restore | in a rebuild: brings back from the event store what has left the streams |
//! | renew | signs of life for what is held, from a thread of its own |
//!
//! A service implements [`Handler`] and calls [`main`]; what it sees is in `handler`.

mod breaker;
mod configuration;
mod core;
mod delivery;
mod execute;
mod fetch;
mod handler;
mod held;
mod lanes;
mod measured;
mod reclaim;
mod renew;
mod restore;
mod run;
mod settle;
mod supervise;
mod traced;

pub use core::Stop;
pub use delivery::{Attempt, AttemptLog};
pub(crate) use handler::Environment;
pub use handler::{
    Aggregate, Context, Decide, EffectError, Handler, History, NewEvent, Restores, StoredEvent,
    Versioned, saga,
};
pub use restore::{NotHeld, Restore};
pub use run::{Rebuild, WorkerError, WorkerOptions, run};

/// The `main` of a worker binary. It lives in the process layer and is offered here because a
/// service looks for it here.
pub use crate::process::worker_main as main;
