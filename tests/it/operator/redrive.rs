//! `streamfleet dead redrive`: what failed goes back to whom it failed, and keeps its history.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::fleet::{ROUTING, id, typed};
use crate::support::{Fleet, event, eventually};

/// The only letter of `owner`, once it has died again after `redrives`.
fn died_again(fleet: &Fleet, owner: &str, redrives: u64) -> BTreeMap<String, String> {
    eventually(
        &format!("a letter of {owner} redriven {redrives} times"),
        || {
            let letter = fleet.dead(owner).pop()?;
            (letter["redrives"] == redrives.to_string()).then_some(letter)
        },
    )
}

fn attempts(letter: &BTreeMap<String, String>) -> Vec<u64> {
    let attempts: Vec<Value> = serde_json::from_str(&letter["attempts"]).unwrap();
    attempts
        .iter()
        .map(|a| a["attempt"].as_u64().unwrap())
        .collect()
}

fn letter_id(fleet: &Fleet, owner: &str) -> String {
    let list = ["dead", "list", "--output", "json", "--subscriber", owner];
    fleet.ask(&list).json()["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_letter_goes_back_to_the_subscriber_that_failed_and_to_nobody_else() {
    let fleet = Fleet::new();
    fleet.configure(&ROUTING.replace(
        "Test.Happened: [probe-service]",
        "Test.Happened: [probe-service, other-service]",
    ));
    let _processes = [
        fleet.router("r"),
        fleet.worker("probe-service", "p"),
        fleet.worker("other-service", "o"),
    ];
    // What probe-service finds here is no number: it fails until that is repaired.
    let _: () = fleet.cli("SET probe-service:sum broken");
    let event = event(json!({"do": "read and add"}));
    fleet.publish(&[event.clone()]);
    let first = died_again(&fleet, "probe-service", 0);
    fleet.drained();
    assert_eq!(attempts(&first), [1, 2, 3]);
    assert_eq!(fleet.handled("other-service"), [(id(&event), 1)].into());

    let before = fleet.snapshot();
    let letter = letter_id(&fleet, "probe-service");
    let would = fleet.ask(&["dead", "redrive", &letter, "--dry-run"]).ok();
    assert!(would.ends_with("would redrive 1 letter\n"), "{would}");
    let ours = |all: Vec<(String, Vec<u8>)>| -> Vec<_> {
        // Workers say that they live.
        all.into_iter()
            .filter(|(key, _)| !key.starts_with("worker:"))
            .collect()
    };
    assert_eq!(
        ours(fleet.snapshot()),
        ours(before),
        "a dry run changes nothing"
    );

    assert_eq!(
        fleet.ask(&["dead", "redrive", &letter]).ok(),
        "redriven 1 letter\n"
    );
    let second = died_again(&fleet, "probe-service", 1);
    assert_eq!(
        attempts(&second),
        [1, 2, 3, 1, 2, 3],
        "its first life is not forgotten"
    );
    assert_eq!(
        (&second["stream"], &second["entry"], &second["event"]),
        (&first["stream"], &first["entry"], &first["event"])
    );
    let said = fleet.ask(&["dead", "redrive", &letter]).failed(1);
    assert!(said.contains("there is no such dead letter"), "{said}");

    let _: () = fleet.cli("SET probe-service:sum 41");
    let redrive = ["dead", "redrive", "--subscriber", "probe-service"];
    assert_eq!(fleet.ask(&redrive).ok(), "redriven 1 letter\n");
    eventually("it is handled", || {
        fleet.handled("probe-service").get(&id(&event)).copied()
    });
    fleet.drained();
    assert_eq!(fleet.cli::<u64>("GET probe-service:sum"), 42);
    assert!(fleet.dead("probe-service").is_empty());
    assert_eq!(fleet.cli::<u64>("XLEN redrive:probe-service"), 0);
    let started = format!("HGET other-service:started {}", id(&event));
    assert_eq!(fleet.cli::<u64>(&started), 1, "the other was left in peace");
}

#[test]
fn what_was_rejected_is_tried_once_per_life() {
    let fleet = Fleet::new();
    let _processes = [fleet.router("r"), fleet.worker("probe-service", "p")];
    fleet.publish(&[event(json!({"do": "reject"}))]);
    for life in 0..3 {
        let letter = died_again(&fleet, "probe-service", life);
        assert_eq!(letter["reason"], "rejected");
        assert_eq!(attempts(&letter).len() as u64, life + 1);
        if life < 2 {
            fleet.ask(&["dead", "redrive", "--all"]).ok();
        }
    }
}

#[test]
fn what_was_refused_at_the_door_goes_through_the_door_again() {
    let fleet = Fleet::new();
    let _processes = [fleet.worker("probe-service", "p")];
    let router = fleet.router("r");
    let event = typed("Test.Added", json!({}));
    fleet.publish(&[event.clone()]);
    let _: String = fleet.cli("XADD inbox * evnt typo");
    eventually("both are refused", || {
        (fleet.dead("router").len() == 2).then_some(())
    });
    assert_eq!(fleet.dead("router")[0]["reason"], "unknown_type");

    fleet.write_schema("Test.Added");
    fleet.configure(&ROUTING.replace(
        "Test.Looped:",
        "Test.Added: [probe-service]\n  Test.Looped:",
    ));
    router.signal("HUP");
    router.wait_for_log("the new routing.yaml is in force");
    let answer = fleet
        .ask(&["dead", "redrive", "--subscriber", "router"])
        .ok();
    assert_eq!(answer, "redriven 2 letters\n");
    eventually("it is handled", || {
        fleet.handled("probe-service").get(&id(&event)).copied()
    });
    fleet.drained();
    let entry: redis::streams::StreamRangeReply = fleet.cli("XRANGE test-events - +");
    let sent: String = redis::from_redis_value(entry.ids[0].map["event"].clone()).unwrap();
    assert_eq!(sent, event.to_string(), "byte for byte");
    let still = died_again(&fleet, "router", 1);
    assert_eq!(
        (&still["reason"], &still["x:evnt"]),
        (&"bad_envelope".into(), &"typo".into())
    );
    assert_eq!(fleet.dead("router").len(), 1);
}

#[test]
fn letters_are_redriven_in_portions_and_at_a_pace() {
    let fleet = Fleet::new();
    let router = fleet.router("r");
    let worker = fleet.worker("probe-service", "p");
    let events: Vec<_> = (0..5).map(|_| event(json!({"do": "reject"}))).collect();
    fleet.publish(&events);
    eventually("five letters", || {
        (fleet.dead("probe-service").len() == 5).then_some(())
    });
    drop((worker, router));
    let waiting = || fleet.cli::<u64>("XLEN redrive:probe-service");
    fleet
        .ask(&["dead", "redrive", "--reason", "rejected", "--limit", "2"])
        .ok();
    assert_eq!((waiting(), fleet.dead("probe-service").len()), (2, 3));
    let start = std::time::Instant::now();
    let answer = fleet
        .ask(&["dead", "redrive", "--all", "--rate", "10"])
        .ok();
    assert_eq!(answer, "redriven 3 letters\n");
    assert!(
        start.elapsed().as_millis() >= 200,
        "two pauses of 100 ms: {:?}",
        start.elapsed()
    );
    assert_eq!((waiting(), fleet.dead("probe-service").len()), (5, 0));
    let fastest = ["dead", "redrive", "--all", "--rate", "4294967295"];
    assert_eq!(fleet.ask(&fastest).ok(), "redriven 0 letters\n");
}

#[test]
fn nothing_is_sent_where_nobody_reads() {
    let fleet = Fleet::new();
    let letter = "event {} stream test-events entry 1-1 reason exhausted error x";
    let _: String = fleet.cli(&format!(
        "XADD dead:gone-service * subscriber gone-service {letter}"
    ));
    let _: String = fleet.cli(&format!(
        "XADD dead:probe-service * subscriber other-service {letter}"
    ));
    let before = fleet.snapshot();
    let ran = fleet.ask(&["dead", "redrive", "--all"]);
    assert_eq!(ran.out, "redriven 0 letters\n");
    let said = ran.failed(1);
    assert!(
        said.contains("routing.yaml has no gone-service: nobody would read it"),
        "{said}"
    );
    assert!(said.contains("was not written by streamfleet"), "{said}");
    assert_eq!(fleet.snapshot(), before);
    let said = fleet.ask(&["dead", "redrive"]).failed(2);
    assert!(said.contains("Give IDs, a filter, or --all"), "{said}");
}
