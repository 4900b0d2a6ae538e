//! streamfleet: a fleet of workers on Redis Streams.

pub mod admission;
pub mod dead;
pub mod error;
pub mod event;
pub mod event_type;
pub mod fleet;
pub mod json;
pub mod letter;
pub mod money;
pub mod operator;
pub mod process;
pub mod publisher;
pub mod retry;
pub mod router;
pub mod routing;
pub mod schemas;
pub mod status;
pub mod store;
pub mod worker;

pub use error::HandlerError;
pub use event::Event;
pub use worker::{Context, EffectError, Handler, History, NewEvent, StoredEvent};
