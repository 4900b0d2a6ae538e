//! Rebuilding a read model: all retained history is run through the handler again, into keys of
//! their own, while the live model keeps serving; then both change places in one step.
//!
//! Redis: a *shadow* group `<subscriber>@<number>` on every domain stream of the subscriber, from the
//! beginning, registered in `fleet` as any group, so that nothing it has yet to read is trimmed; keys
//! `<subscriber>@<number>:…`, `dead:<subscriber>@<number>`, `attempts:<stream>:<subscriber>@<number>`.
//! The numbers come from `rebuilds:<subscriber>` in `fleet` and never repeat; `rebuilt:<subscriber>` there
//! is the number of the rebuild that the live keys are from.
//!
//! The shadow's worker is the subscriber's own program, started with `--rebuild <number>` by
//! `streamfleet rebuild`. It handles what names the subscriber and, of what was routed before the
//! shadow joined, also what today's routes would send to it (as a subscriber that starts at the
//! beginning does): so a model has the history of a type that was routed to it later.
//!
//! **Guarantee.** At every moment either the old or the new model is there, whole; whoever is killed.
//! After the switch the live group goes on exactly where the new model ends: each event is in the
//! model once, or among the subscriber's dead letters, or still to be read. Redis decides, in one
//! script (`switch.lua`); pausing the live subscriber meanwhile only lets it find a moment for it.

mod history;
mod leftovers;
mod positions;
mod shadow;
mod switch;

pub use history::{Gap, History};
pub use leftovers::{Removed, remove};
pub use positions::{At, Pair, Positions};
pub use shadow::{RebuildError, Shadow, streams_of};
pub use switch::Replaced;
