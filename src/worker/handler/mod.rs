//! What a service implements, and what it holds while it works on a delivery.

mod aggregate;
mod context;
mod effects;
mod history;
pub mod saga;
#[cfg(test)]
mod tests;

use std::future::Future;

use crate::error::HandlerError;
use crate::event::Event;

pub use aggregate::{Aggregate, Decide, Versioned};
pub use context::Context;
pub(crate) use context::Environment;
pub use effects::EffectError;
pub(crate) use effects::Effects;
pub use history::{History, NewEvent, StoredEvent};

/// Events that can be made again of the histories of an entity: each that was ever handled by who
/// appends them, and no other.
#[derive(Clone, Copy, Debug)]
pub struct Restores {
    /// The entity, as its keys name it: `User` for `es:User:<id>`.
    pub entity: &'static str,
    /// The types of events.
    pub types: &'static [&'static str],
}

/// A service: what it does with each event that routing.yaml sends it.
///
/// The runtime settles; a handler only returns. `Ok` commits what the [`Context`] collected
/// together with the acknowledgement; `?` on any error means "try again later".
pub trait Handler: Send + Sync + 'static {
    /// The subscriber's name in routing.yaml, which is the name of its consumer group.
    const SUBSCRIBER: &'static str;

    /// Whether all that the handler does is effects on its own keys: no calls to the outside, no
    /// [`append_events`](Context::append_events), no follow-up event that anybody must get, and
    /// nothing of the model kept in the process between two events. Then, and only then, may
    /// `streamfleet rebuild` make its keys anew: it runs all retained history through the handler
    /// again, under another prefix, while the live one keeps serving, and then swaps the keys.
    const READ_MODEL: bool = false;

    /// Of which events the event store tells what this read model is made of: with these, it can be
    /// rebuilt though they have left their stream.
    const RESTORES: &'static [Restores] = &[];

    /// The event that a fact of the event store tells of, under its own ID and with as much of its data
    /// as [`handle`](Self::handle) looks at; nothing if the fact tells of none. It is asked of the
    /// entities of [`RESTORES`](Self::RESTORES), and only in a rebuild.
    ///
    /// # Errors
    /// It does tell of one, but not enough.
    fn restore(
        &self,
        entity: &str,
        id: &str,
        fact: &StoredEvent,
    ) -> Result<Option<Event>, HandlerError> {
        let _ = (entity, id, fact);
        Ok(None)
    }

    /// Handles one delivery. It may run more than once for the same event (after a failure,
    /// a conflict or a crash); its effects happen once all the same.
    fn handle(
        &self,
        event: &Event,
        cx: &mut Context,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;
}
