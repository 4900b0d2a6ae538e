//! The services of the shop, each for itself against what it calls: real processes on real servers.

pub mod gateway;
mod payment;
mod payment_meetings;
mod pure;
mod smtp;
