//! The services of the shop one by one, each alone on a Redis of its own. (Together they are
//! tested in `shop`.)

mod analytics;
mod cache;
mod event_time;
mod pure;
mod recommendation;
mod search;
mod user;
