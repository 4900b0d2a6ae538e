//! streamfleet: a fleet of workers on Redis Streams.
//!
//! Each event goes to every service that subscribed to it in `routing.yaml`. What fails is
//! retried, what keeps failing is set aside, and all of it can be seen with `redis-cli`. The
//! README is the way in for users; this page is for whoever reads or changes the code.
//!
//! # The pipeline
//!
//! ```text
//! producers                                       streamfleet publish, Publisher, XADD
//!     │
//!     ▼
//!   inbox ◄────────────────────────────────┐      one field: `event`
//!     │                                    │ redrive
//!     ▼                                    │
//!   router ──────── refused ─────► dead:router    schema, duplicates, who gets it (`to`)
//!     │    └─ later ─► scheduled ──► router       when it is due: by the routes of then
//!     ▼
//!   order-events, user-events, …                  domain streams: one copy, kept as history
//!     │ one consumer group per subscriber
//!     ▼
//!   worker ◄──► consumer `retry`                  parked until due, claimed by any worker
//!     │    │
//!     │    └─── given up ─────► dead:<subscriber> ──► redrive:<subscriber> ──► its worker
//!     ▼
//!   effects + follow-ups (to the inbox) + XACK    one script: all of it or nothing
//! ```
//!
//! # The states of a delivery
//!
//! ```text
//!                 XREADGROUP                 commit
//!   undelivered ────────────────► in flight ──────────► handled
//!                                 │ │  ▲  │
//!             failed, unavailable │ │  │  │ rejected, attempts used up, crashed
//!            ┌────────────────────┘ │  │  └─────────────────────────────────► dead
//!            │      process stopped │  │                                       │
//!            ▼                      ▼  │                               redrive │
//!          retry                 released                                      ▼
//!            │ when due             │  │                        undelivered, on
//!            └──────────────────────┴──┘ at once            redrive:<subscriber>
//!              claimed by any worker
//!
//!   In flight, and its worker gave no sign of life for a lease: claimed by any worker. What
//!   the first one settles later is fenced and writes nothing.
//! ```
//!
//! An entry is in a group's pending list exactly while it is owed to that subscriber, so
//! "pending, and mine under this delivery count" is the only check that a settlement needs.
//!
//! # The guarantee
//!
//! An event is accepted when its XADD to the inbox was answered. Every accepted event ends
//! either routed or in `dead:router` with a reason (one that is to be delivered later waits in
//! `scheduled` before, and may be cancelled there); every routed event ends, for each subscriber
//! it is for, either handled or in that subscriber's dead-letter stream. A handler's effects in
//! Redis happen exactly once. Calls to the outside happen at least once and carry a stable
//! idempotency key ([`Context::idempotency_key`]).
//!
//! It ends where Redis ends: what the server answered and then lost (AOF `everysec`, a
//! failover) is lost.
//!
//! # The structures in Redis
//!
//! | key | type | what |
//! |---|---|---|
//! | `inbox` | stream | events as sent; group `router` |
//! | `<domain>` | stream | routed events: `id`, `type`, `to`, `event`; a group per subscriber |
//! | `redrive:<subscriber>` | stream | dead letters sent back to one subscriber |
//! | `dead:<subscriber>`, `dead:router` | stream | dead letters ([`letter`]) |
//! | `attempts:<stream>:<subscriber>` | hash | deliveries that had trouble |
//! | `seen:<bucket>` | hash, TTL | event ID to content hash, for deduplication |
//! | `scheduled` | sorted set | events with a future `deliver_at`: event ID, due time in ms |
//! | `scheduled:events` | hash | the same: event ID to `<hops> <content hash> <JSON as sent>` |
//! | `audit` | stream, bounded | what came to the door and what became of it, if routing.yaml asks for it ([`audit`]) |
//! | `fleet` | hash | dataset ID, configuration generations, every group ever created, who announced itself, who is not well |
//! | `worker:<subscriber>:<name>` | hash, TTL | a live process |
//! | `control:<subscriber>` | hash | paused by whom, until when; circuit breaker |
//! | `stats:<subscriber>`, `stats:router` | hash | counters that no stream can tell |
//! | `<subscriber>:…` | any | effects of its handlers |
//! | `<subscriber>@<n>:…`, and `@<n>` in names of groups | | the shadow of a read model being rebuilt ([`rebuild`]) |
//! | `trace:<correlation ID>` | stream, TTL | the hops of one business flow ([`trace`]) |
//! | `es:<Entity>:<id>` | stream | the history of an entity; entry IDs are versions |
//! | `entities` | hash | what the event store takes, by kind of entity |
//! | `snapshot:<Entity>:<id>` | hash | an aggregate's state at a version of its history |
//! | `sagas:<Entity>` | hash | where each saga stands that is not over |
//! | `command:<id>` | string, TTL | a command that was carried out |
//!
//! # A worker
//!
//! ```no_run
//! use std::{convert::Infallible, process::ExitCode};
//!
//! use serde::Deserialize;
//! use streamfleet::{Context, Event, Handler, HandlerError};
//!
//! struct Welcome;
//!
//! #[derive(Deserialize)]
//! struct User {
//!     user_id: i64,
//! }
//!
//! impl Handler for Welcome {
//!     const SUBSCRIBER: &'static str = "welcome-service";
//!
//!     async fn handle(&self, event: &Event, cx: &mut Context) -> Result<(), HandlerError> {
//!         let User { user_id } = event.data()?; // another shape: rejected, never tried again
//!         cx.set_add("welcomed", user_id.to_string())?; // any other error: tried again later
//!         Ok(()) // the effect and the acknowledgement, in one step
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     streamfleet::worker::main(|| Ok::<_, Infallible>(Welcome))
//! }
//! ```
//!
//! # The modules by layer
//!
//! Each layer uses only those above it in this table.
//!
//! | layer | modules | knows Redis? |
//! |---|---|---|
//! | 0, pure | [`event`], [`event_type`], [`json`], [`money`], [`retry`], [`error`], [`progress`], [`environment`], [`secret`], `failpoint`, `metrics`, `text`, `time` | no |
//! | 1a, configuration | [`schemas`], [`routing`], [`admission`] | no |
//! | 1b, Redis | [`store`]: keys, connections, entries, one Lua script per state change | yes, it alone |
//! | 2, roles | [`fleet`], [`router`], [`worker`], [`letter`], [`dead`], [`scheduled`], [`audit`], [`rebuild`], [`trace`], [`publisher`], [`commands`], [`entities`], [`status`] | through 1b |
//! | 3, processes | [`process`], [`operator`] | through 2 |
//! | binaries | `src/bin`, `workers/` | no |

pub mod admission;
pub mod audit;
pub mod commands;
pub mod dead;
pub mod entities;
pub mod environment;
pub mod error;
pub mod event;
pub mod event_type;
#[cfg(not(feature = "failpoints"))]
mod failpoint;
#[cfg(feature = "failpoints")]
pub mod failpoint;
pub mod fleet;
pub mod json;
pub mod letter;
mod metrics;
pub mod money;
pub mod operator;
pub mod process;
pub mod progress;
pub mod publisher;
pub mod rebuild;
pub mod retry;
pub mod router;
pub mod routing;
pub mod scheduled;
pub mod schemas;
pub mod secret;
pub mod status;
pub mod store;
mod text;
mod time;
pub mod trace;
pub mod worker;

/// The allocator of the binaries, for `#[global_allocator]`. An event is many small pieces of memory
/// that one thread takes and another gives back; with glibc's allocator, a worker of two threads whose
/// handlers have effects gets half as much done.
pub use tikv_jemallocator::Jemalloc as Allocator;

pub use error::HandlerError;
pub use event::Event;
pub use worker::{
    Aggregate, Context, Decide, EffectError, Handler, History, NewEvent, Restores, StoredEvent,
    Versioned, saga,
};

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Compiles those of the page on handlers.
#[cfg(doctest)]
#[doc = include_str!("../docs/handlers.md")]
struct Handlers;
