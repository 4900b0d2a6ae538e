//! streamfleet: a fleet of workers on Redis Streams.

pub mod event_type;
pub mod routing;
pub mod schemas;
