//! A model of the protocol, checked exhaustively, and checked against the real scripts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    unreachable_pub
)]

#[path = "../support/mod.rs"]
#[allow(
    dead_code,
    reason = "the fleet, the probe and the proxy serve other tests"
)]
mod support;

mod bounds;
mod claims;
mod invariants;

mod mutants;
mod process;
mod scripts;
mod side_by_side;
mod steps;
mod store;
mod story;
mod system;

use std::collections::BTreeSet;
use std::time::Instant;

use stateright::{Checker, Expectation, HasDiscoveries, Model};

use system::System;

#[test]
fn the_protocol_keeps_its_invariants() {
    let mut witnessed = BTreeSet::new();
    for bounds in bounds::scenarios() {
        let start = Instant::now();
        let checker = System::faithful(bounds)
            .checker()
            .threads(2)
            .spawn_bfs()
            .join();
        println!(
            "{:<14} {:>9} states, depth {:>3}, {:?}",
            bounds.name,
            checker.unique_state_count(),
            checker.max_depth(),
            start.elapsed()
        );
        for property in checker.model().properties() {
            let found = checker.discovery(property.name);
            match (property.expectation, found) {
                (Expectation::Sometimes, Some(_)) => drop(witnessed.insert(property.name)),
                (Expectation::Sometimes, None) => {}
                (_, Some(path)) => panic!(
                    "{}: {} violated:\n{}",
                    bounds.name,
                    property.name,
                    story::tell(path).join("\n")
                ),
                (_, None) => {}
            }
        }
        assert!(checker.is_done());
    }
    for (name, _) in invariants::WITNESSED {
        assert!(witnessed.contains(name), "never seen: {name}");
    }
}

#[test]
fn every_mutant_is_caught() {
    for (mutant, bounds, property) in mutants::MUTANTS {
        let start = Instant::now();
        let model = System::broken(bounds, mutant, property);
        let checker = model
            .checker()
            .threads(1)
            .finish_when(HasDiscoveries::AnyFailures)
            .spawn_bfs()
            .join();
        let path = checker.discovery(property);
        let Some(path) = path else {
            println!(
                "!!!!! {mutant:?} survives {property} {} states",
                checker.unique_state_count()
            );
            continue;
        };
        println!(
            "{}: violates {property} {:?} {}",
            checker.model().title(),
            start.elapsed(),
            checker.unique_state_count()
        );
        story::tell(path).iter().for_each(|l| println!("    {l}"));
    }
}

#[test]
fn the_model_and_redis_agree() {
    let start = Instant::now();
    let steps =
        side_by_side::compare(scripts::Scripts::default()).unwrap_or_else(|e| panic!("{e}"));
    println!(
        "{} sequences, {steps} steps, {:?}",
        side_by_side::SEQUENCES,
        start.elapsed()
    );
}
