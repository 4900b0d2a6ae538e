//! What strikes: each file a kind of fault, each fault a function that runs a fleet under it.

mod clock;
mod dataset;
mod disk;
mod failover;
mod network;
mod partition;
mod power;
mod processes;
mod redis_answers;
mod redis_state;
mod rights;
mod torn;
mod work;

use crate::Fault;

/// All faults, by kind.
pub fn all() -> Vec<Fault> {
    [
        processes::FAULTS,
        work::FAULTS,
        network::FAULTS,
        partition::FAULTS,
        redis_state::FAULTS,
        redis_answers::FAULTS,
        dataset::FAULTS,
        rights::FAULTS,
        power::FAULTS,
        failover::FAULTS,
        disk::FAULTS,
        torn::FAULTS,
        clock::FAULTS,
    ]
    .into_iter()
    .flatten()
    .map(|f| Fault { ..*f })
    .collect()
}
