//! The protocol as a model: a state machine that is pure data, every state of which is visited, and
//! the same scripts beside the real ones. It is also the protocol's shortest description.
//!
//! Read in this order:
//!
//! | file | what |
//! |---|---|
//! | store | what Redis holds |
//! | scripts, claims | the Lua scripts, as built |
//! | process | what a worker or router does with a delivery |
//! | system, steps | the whole, and all that can happen next: crashes, lost answers, late requests … |
//! | invariants | what must hold in every state, I1 to I8 |
//! | witnesses | what must happen, so that the invariants mean something |
//! | mutants | what breaks if the protocol is changed |
//! | bounds | how far it is explored |
//! | side_by_side | the proof that the model is a model of the code |
//! | story, report | paths in words, results for programs |
//!
//! # What is abstracted
//!
//! - Time. A delivery is idle beyond its lease if nobody alive holds it, or by the fault `Freeze`;
//!   what is parked may be due at any moment; the dedupe window never ends. That reclaiming is
//!   restrained after an outage only makes `Freeze` rarer, so it is not modelled.
//! - Batches and concurrency: a process has one slot, a script has one delivery. (Side by side,
//!   reclaiming and routing take several.)
//! - Where the guarantee ends: Redis loses nothing that it answered. Lost groups, retiring,
//!   reloading and partial failures of keys (`WRONGTYPE`) are not modelled.
//!
//! # Running it
//!
//! `cargo test --test model -- --nocapture` explores small bounds. With `STREAMFLEET_MODEL=large` (and
//! `--release`: minutes, not an hour) the bounds are larger, and so is the number of sequences
//! side by side. Both are explored to their end. Each run writes `target/reliability/model.json`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    unreachable_pub
)]

#[path = "../support/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "the fleet and the command line serve other suites"
)]
mod support;

mod bounds;
mod claims;
mod invariants;
mod mutants;
mod process;
mod report;
mod scripts;
mod side_by_side;
mod steps;
mod store;
mod story;
mod system;
mod witnesses;

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::json;
use stateright::{Checker, Expectation, HasDiscoveries, Model};

use scripts::Scripts;
use system::System;

#[test]
fn the_protocol_keeps_its_invariants() {
    let (start, mut witnessed, mut rows) = (Instant::now(), BTreeSet::new(), Vec::new());
    let (mut states, mut depth) = (0, 0);
    for &bounds in bounds::scenarios() {
        let start = Instant::now();
        let checker = System::faithful(bounds)
            .checker()
            .threads(2)
            .spawn_bfs()
            .join();
        // Nothing bounds the search but the model: done means that every state was visited.
        assert!(
            checker.is_done(),
            "{}: not explored to its end",
            bounds.name
        );
        for property in checker.model().properties() {
            let Some(path) = checker.discovery(property.name) else {
                continue;
            };
            let seen = property.expectation == Expectation::Sometimes;
            assert!(
                seen,
                "{}: violated: {}\n{}",
                bounds.name,
                property.name,
                story::tell(path).join("\n")
            );
            witnessed.insert(property.name);
        }
        let seconds = start.elapsed().as_secs_f64();
        let (unique, deepest) = (checker.unique_state_count(), checker.max_depth());
        println!(
            "{:<13} {unique:>9} states, {deepest:>2} steps deep, {seconds:>6.1} s",
            bounds.name
        );
        states += unique;
        depth = depth.max(deepest);
        let mut row = bounds.describe();
        row["unique_states"] = unique.into();
        row["max_depth"] = deepest.into();
        row["seconds"] = seconds.into();
        rows.push(row);
    }
    for (name, _) in witnesses::WITNESSES {
        assert!(witnessed.contains(name), "never seen: {name}");
    }
    let size = if bounds::is_large() { "large" } else { "small" };
    report::add(json!({
        "size": size,
        "bounds": rows,
        "unique_states": states,
        "max_depth": depth,
        "seconds": start.elapsed().as_secs_f64(),
    }));
}

#[test]
fn every_mutant_is_caught() {
    let mut rows = Vec::new();
    for (mutant, bounds, property) in mutants::MUTANTS {
        let model = System::broken(bounds, mutant, property).checker();
        let first = model
            .finish_when(HasDiscoveries::AnyFailures)
            .spawn_bfs()
            .join();
        let path = first.discovery(property);
        let path = path.unwrap_or_else(|| panic!("{mutant:?} does not violate: {property}"));
        let steps = story::tell(path);
        println!("{mutant:?} violates: {property}");
        steps.iter().for_each(|step| println!("    {step}"));
        rows.push(json!({ "name": format!("{mutant:?}"), "property": property, "steps": steps }));
    }
    for (name, _) in invariants::INVARIANTS {
        let violated = mutants::MUTANTS
            .iter()
            .any(|(.., property)| *property == name);
        assert!(violated, "no mutant violates: {name}");
    }
    report::add(json!({ "mutants": rows }));
}

#[test]
fn the_model_and_redis_agree() {
    let tally = side_by_side::compare(Scripts::default(), true).unwrap_or_else(|e| panic!("{e}"));
    let missing = side_by_side::missing(&tally);
    assert!(missing.is_empty(), "never answered: {missing:?}");
    let (sequences, steps) = (side_by_side::sequences(), tally.values().sum::<usize>());
    println!("side by side: {sequences} sequences, {steps} steps; answers: {tally:?}");
    report::add(
        json!({ "side_by_side": { "sequences": sequences, "steps": steps, "answers": tally } }),
    );
}

#[test]
fn a_broken_script_does_not_agree_with_redis() {
    for mutant in mutants::OF_SCRIPTS {
        let scripts = Scripts {
            mutant: Some(mutant),
        };
        let agreed = side_by_side::compare(scripts, false);
        assert!(agreed.is_err(), "{mutant:?} was not noticed");
    }
}
