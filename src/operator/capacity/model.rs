//! Queueing theory: how long deliveries wait, and how many workers that takes. Pure.
//!
//! λ is how many arrive per second, μ how many one slot settles per second, c the number of slots,
//! a = λ/μ the offered load in erlangs, ρ = a/c the utilisation.
//!
//! - Little's law, L = λW: J. D. C. Little, "A Proof for the Queuing Formula: L = λW", Operations
//!   Research 9 (1961).
//! - M/M/1 and M/M/c: D. Gross, J. F. Shortle, J. M. Thompson, C. M. Harris, "Fundamentals of
//!   Queueing Theory", 4th edition (2008), sections 2.2 and 2.3.
//! - Erlang B and C: A. K. Erlang, "Løsning af nogle Problemer fra Sandsynlighedsregningen af
//!   Betydning for de automatiske Telefoncentraler", Elektroteknikeren 13 (1917).
//!
//! They assume random arrivals and service times of the exponential kind. Events that come in
//! bursts wait longer, and equal ones about half as long.

/// The most slots that are thought about.
const MAX_SLOTS: u64 = 1_000_000;

/// Mean number in a system by Little's law: `L = λW`.
pub(super) fn little(lambda: f64, wait: f64) -> f64 {
    lambda * wait
}

/// Mean wait in the queue of a single server, M/M/1: `Wq = ρ / (μ − λ)`. Nothing if the queue
/// grows for ever.
pub(super) fn mm1_wait(lambda: f64, mu: f64) -> Option<f64> {
    (lambda < mu).then(|| lambda / mu / (mu - lambda))
}

/// Erlang B, the share that a system without a queue would turn away, by the recursion
/// `B(0) = 1`, `B(k) = aB(k−1) / (k + aB(k−1))`.
pub(super) fn erlang_b(slots: u64, load: f64) -> f64 {
    (1..=slots).fold(1.0, |b, k| load * b / (k as f64 + load * b))
}

/// Erlang C, the probability that an arrival must wait: `C = B / (1 − ρ(1 − B))`. Nothing if the
/// queue grows for ever.
pub(super) fn erlang_c(slots: u64, load: f64) -> Option<f64> {
    let utilisation = load / slots as f64;
    let b = erlang_b(slots, load);
    (utilisation < 1.0).then(|| b / (1.0 - utilisation * (1.0 - b)))
}

/// Mean wait in the queue of c servers, M/M/c: `Wq = C(c, a) / (cμ − λ)`.
pub(super) fn erlang_wait(slots: u64, lambda: f64, mu: f64) -> Option<f64> {
    let c = erlang_c(slots, lambda / mu)?;
    Some(c / (slots as f64 * mu - lambda))
}

/// The least number of slots with which the mean wait is at most `target` seconds.
pub(super) fn slots_for(target: f64, lambda: f64, mu: f64) -> Option<u64> {
    let load = lambda / mu;
    // Below this the queue grows for ever. (B is carried on from step to step.)
    let (mut b, mut slots) = (1.0, 0_u64);
    while slots < MAX_SLOTS {
        slots += 1;
        let c = slots as f64;
        b = load * b / (c + load * b);
        let utilisation = load / c;
        if utilisation < 1.0 {
            let waits = b / (1.0 - utilisation * (1.0 - b));
            if waits / (c * mu - lambda) <= target {
                return Some(slots);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, published: f64, within: f64) {
        assert!(
            (found - published).abs() <= within,
            "{found} is not {published}"
        );
    }

    /// F. S. Hillier, G. J. Lieberman, "Introduction to Operations Research", the emergency room:
    /// λ = 2 and μ = 3 per hour.
    #[test]
    fn one_server_as_in_the_textbook() {
        let wait = mm1_wait(2.0, 3.0).unwrap();
        near(wait, 2.0 / 3.0, 1e-12);
        near(little(2.0, wait), 4.0 / 3.0, 1e-12);
        near(little(2.0, wait + 1.0 / 3.0), 2.0, 1e-12);
        assert_eq!(mm1_wait(3.0, 3.0), None);
    }

    /// The same with two doctors: Wq = 1/24 hour, Lq = 1/12.
    #[test]
    fn two_servers_as_in_the_textbook() {
        let wait = erlang_wait(2, 2.0, 3.0).unwrap();
        near(wait, 1.0 / 24.0, 1e-12);
        near(little(2.0, wait), 1.0 / 12.0, 1e-12);
        // One of two is the M/M/1 of its own.
        near(
            erlang_wait(1, 2.0, 3.0).unwrap(),
            mm1_wait(2.0, 3.0).unwrap(),
            1e-12,
        );
    }

    /// The tables of Erlang B: 1 erlang on 2 trunks blocks a fifth; 5 on 10 block 1.84 %.
    #[test]
    fn erlang_b_as_in_the_tables() {
        near(erlang_b(2, 1.0), 0.2, 1e-12);
        near(erlang_b(10, 5.0), 0.018_385, 5e-7);
        near(erlang_b(0, 5.0), 1.0, 0.0);
    }

    /// The example of call centres: 200 calls an hour of 3 minutes are 10 erlangs; with 14 agents
    /// 17.4 % wait, 7.8 s on average.
    #[test]
    fn erlang_c_as_in_the_call_centre() {
        near(erlang_c(14, 10.0).unwrap(), 0.174, 5e-4);
        let wait = erlang_wait(14, 200.0 / 3_600.0, 1.0 / 180.0).unwrap();
        near(wait, 7.8, 0.05);
        assert_eq!(erlang_c(10, 10.0), None, "the queue grows for ever");
        near(erlang_c(3, 2.0).unwrap(), 4.0 / 9.0, 1e-12);
    }

    #[test]
    fn the_least_number_of_slots_is_that_and_no_more() {
        let (lambda, mu) = (200.0 / 3_600.0, 1.0 / 180.0);
        let slots = slots_for(7.85, lambda, mu).unwrap();
        assert_eq!(slots, 14);
        assert!(erlang_wait(13, lambda, mu).unwrap() > 7.85);
        assert_eq!(slots_for(1.0, 0.0, mu), Some(1), "nothing comes");
        assert_eq!(slots_for(1e-9, 1e7, 1.0), None, "more than anyone has");
    }
}
