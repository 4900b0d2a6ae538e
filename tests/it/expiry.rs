//! Expiry: after `expires_at` no handler starts, wherever the event is by then.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::scheduled::later;
use crate::support::fleet::{ROUTING, id};
use crate::support::{Fleet, event, eventually};

/// An event that expires in so many milliseconds.
fn expiring(mut event: Value, ms: i64) -> Value {
    event["expires_at"] = json!(Timestamp::now() + SignedDuration::from_millis(ms));
    event
}

fn reasons(fleet: &Fleet, owner: &str) -> Vec<(String, String)> {
    let letters = fleet.dead(owner).into_iter();
    letters
        .map(|letter| (letter["id"].clone(), letter["reason"].clone()))
        .collect()
}

#[test]
fn at_the_door_and_when_it_is_due_an_expired_event_is_refused() {
    let fleet = Fleet::new();
    let router = fleet.router("r");
    let _worker = fleet.worker("probe-service", "w");
    let (old, good) = (
        expiring(event(json!({})), -1_000),
        expiring(event(json!({})), 60_000),
    );
    fleet.publish(&[old.clone(), good.clone()]);
    eventually("one is refused", || {
        (reasons(&fleet, "router") == [(id(&old), "expired".to_owned())]).then_some(())
    });
    fleet.handles_each_once("probe-service", 1);

    let late = later(expiring(event(json!({})), 1_200), 1_000);
    fleet.publish(&[late.clone()]);
    eventually("it is scheduled", || {
        (fleet.cli::<u64>("ZCARD scheduled") == 1).then_some(())
    });
    drop(router);
    std::thread::sleep(Duration::from_millis(1_400)); // until it has expired
    let _router = fleet.router("r");
    eventually("it is refused when a router finds it", || {
        let refused = (id(&late), "expired".to_owned());
        reasons(&fleet, "router").contains(&refused).then_some(())
    });
    assert_eq!(fleet.cli::<u64>("ZCARD scheduled"), 0);
    assert_eq!(fleet.handled("probe-service").len(), 1);
}

/// Whether it waited for a worker or for its next attempt.
#[test]
fn at_the_worker_no_handler_starts_for_an_expired_event() {
    let fleet = Fleet::new();
    fleet.configure(&ROUTING.replace("initial: 50ms, max: 200ms", "initial: 1500ms, max: 1500ms"));
    let _router = fleet.router("r");
    let fresh = expiring(event(json!({})), 1_000);
    fleet.publish(&[fresh.clone()]);
    eventually("it is routed", || {
        (fleet.cli::<u64>("XLEN test-events") == 1).then_some(())
    });
    std::thread::sleep(Duration::from_millis(1_100)); // until it has expired
    let _worker = fleet.worker("probe-service", "w");
    eventually("it is given up", || {
        (reasons(&fleet, "probe-service") == [(id(&fresh), "expired".to_owned())]).then_some(())
    });
    assert_eq!(fleet.starts(&fresh), None);

    let retried = expiring(event(json!({"do": "fail"})), 1_000);
    let neighbour = event(json!({}));
    fleet.publish(&[retried.clone(), neighbour.clone()]);
    let letter = eventually("it is given up instead of tried again", || {
        let mut letters = fleet.dead("probe-service").into_iter();
        letters.find(|letter| letter["id"] == id(&retried))
    });
    assert_eq!(letter["reason"], "expired");
    let attempts: Vec<Value> = serde_json::from_str(&letter["attempts"]).unwrap();
    assert_eq!((attempts.len(), fleet.starts(&retried)), (1, Some(1)));
    fleet.drained();
    assert_eq!(fleet.handled("probe-service").len(), 1);
}

/// It has not become younger: it comes back as a letter that says so, and does not go round.
#[test]
fn an_expired_letter_that_is_redriven_comes_back_once() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let old = expiring(event(json!({})), 700);
    fleet.publish(&[old.clone()]);
    eventually("it is routed", || {
        (fleet.cli::<u64>("XLEN test-events") == 1).then_some(())
    });
    std::thread::sleep(Duration::from_millis(800)); // until it has expired
    let _worker = fleet.worker("probe-service", "w");
    for redrives in ["0", "1"] {
        let letter = eventually("it is given up", || {
            let letter = fleet.dead("probe-service").pop()?;
            (letter["redrives"] == redrives).then_some(letter)
        });
        assert_eq!(letter["reason"], "expired");
        fleet.drained();
        assert_eq!(fleet.dead("probe-service").len(), 1);
        if redrives == "0" {
            fleet.ask(&["dead", "redrive", "--all"]).ok();
        }
    }
    assert_eq!(fleet.started(), 0);
}
