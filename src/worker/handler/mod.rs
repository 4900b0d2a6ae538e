//! What a service implements, and what it holds while it works on a delivery.

mod aggregate;
mod context;
mod effects;
mod history;

use std::future::Future;

use crate::error::HandlerError;
use crate::event::Event;

pub use aggregate::{Aggregate, Decide, Versioned};
pub use context::Context;
pub(crate) use context::Environment;
pub use effects::EffectError;
pub(crate) use effects::Effects;
pub use history::{History, NewEvent, StoredEvent};

/// A service: what it does with each event that routing.yaml sends it.
///
/// The runtime settles; a handler only returns. `Ok` commits what the [`Context`] collected
/// together with the acknowledgement; `?` on any error means "try again later".
pub trait Handler: Send + Sync + 'static {
    /// The subscriber's name in routing.yaml, which is the name of its consumer group.
    const SUBSCRIBER: &'static str;

    /// Handles one delivery. It may run more than once for the same event (after a failure,
    /// a conflict or a crash); its effects happen once all the same.
    fn handle(
        &self,
        event: &Event,
        cx: &mut Context,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;
}
