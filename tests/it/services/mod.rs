//! The services of the shop one by one, each alone on a Redis of its own, against what it calls.
//! (Together they are tested in `shop`.)

mod analytics;
mod cache;
mod event_time;
pub mod gateway;
mod payment;
mod payment_meetings;
mod pure;
mod recommendation;
mod search;
mod smtp;
mod user;
