//! Handlers that ask for too much: nothing of it happens, and the others go on.

use serde_json::json;

use crate::support::fleet::id;
use crate::support::{Fleet, event};

#[test]
fn a_handler_that_asks_for_too_much_gets_nothing_of_it() {
    let fleet = Fleet::new();
    let rows = [
        ("too many effects", "10000 effects"),
        ("too large effects", "8388608 bytes"),
        ("too many follow-ups", "10000 effects"),
        ("too large follow-up", "too_large"),
        ("bad key", "no control characters"),
        ("long key", "1 to 1024 bytes"),
        ("bad entity", "must be made of letters"),
    ];
    let events: Vec<_> = rows
        .iter()
        .map(|(what, _)| event(json!({"do": what})))
        .collect();
    for greedy in &events {
        fleet.publish(&[event(json!({})), greedy.clone()]);
    }
    let _router = fleet.router("r");
    let _worker = fleet.worker("probe-service", "w");
    let good = rows.len();
    fleet.handles_each_once("probe-service", good);
    let letters = fleet.dead("probe-service");
    assert_eq!(letters.len(), rows.len());
    for ((what, says), greedy) in rows.iter().zip(&events) {
        let letter = letters
            .iter()
            .find(|letter| letter["id"] == id(greedy))
            .unwrap();
        assert_eq!(letter["reason"], "exhausted", "{what}");
        assert!(
            letter["error"].contains(says),
            "{what}: {}",
            letter["error"]
        );
        assert!(letter["attempts"].len() < 10_000, "{what}");
        assert_eq!(fleet.starts(greedy), Some(3), "{what}");
    }
    let routed: usize = fleet.cli("XLEN test-events");
    assert_eq!(routed, 2 * rows.len(), "no follow-up");
    let keys: Vec<String> = fleet.cli("KEYS probe-service:*");
    let of_the_probe = |key: &String| {
        let ends = [":handled", ":log", ":started"];
        ends.iter().any(|end| key.ends_with(end))
    };
    assert!(keys.iter().all(of_the_probe), "{keys:?}");
}
