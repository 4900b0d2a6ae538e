//! What a fault is struck with: a fleet and its supervisor, a load, the facts at the end, and the
//! report.

pub mod aof;
pub mod crew;
pub mod facts;
pub mod figures;
pub mod forgotten;
pub mod front;
pub mod load;
pub mod run;
pub mod table;
