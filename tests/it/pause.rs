//! `streamfleet pause` and `streamfleet resume`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::fleet::{ROUTING, id};
use crate::support::{Fleet, event, eventually};

/// Long enough for whoever would read or try again to have done so several times.
const WHILE: Duration = Duration::from_millis(1_500);

impl Fleet {
    fn is_handled(&self, event: &Value) -> bool {
        self.handled("probe-service").contains_key(&id(event))
    }

    fn subscriber(&self, name: &str) -> Value {
        let status = self.ask(&["status", "--output", "json"]).json();
        let subscribers = status["subscribers"].as_array().unwrap();
        subscribers
            .iter()
            .find(|s| s["name"] == name)
            .unwrap()
            .clone()
    }
}

#[test]
fn a_paused_subscriber_finishes_what_it_holds_and_leaves_the_rest() {
    let fleet = Fleet::new();
    fleet.configure(&ROUTING.replace("initial: 50ms, max: 200ms", "initial: 2s, max: 2s"));
    let _router = fleet.router("r");
    let a = fleet.worker("probe-service", "a");
    let b = fleet.worker("probe-service", "b");
    let long = event(json!({"do": "sleep", "ms": 3_000}));
    let again = event(json!({"do": "fail twice"}));
    fleet.publish(&[long.clone(), again.clone()]);
    eventually("both are started", || (fleet.started() == 2).then_some(()));

    let said = fleet
        .ask(&["pause", "probe-service", "--why", "deploy"])
        .ok();
    assert!(
        said.starts_with("probe-service is paused until it is resumed, by "),
        "{said}"
    );
    assert!(said.ends_with(": deploy\n"), "{said}");
    for worker in [&a, &b] {
        worker.wait_for_log("PAUSED: reading nothing");
    }
    let fresh = event(json!({}));
    let other = crate::support::fleet::typed("More.Happened", json!({}));
    fleet.publish(&[fresh.clone(), other]);
    eventually("it finishes what it holds", || {
        fleet.is_handled(&long).then_some(())
    });
    assert_eq!(fleet.cli::<u64>("XLEN test-events"), 3, "it is routed");
    std::thread::sleep(WHILE);
    assert_eq!(fleet.starts(&fresh), None, "nothing new is read");
    assert_eq!(fleet.starts(&again), Some(1), "nothing is tried again");
    let paused = &fleet.subscriber("probe-service")["paused"];
    assert_eq!(
        (&paused["why"], &paused["until"]),
        (&json!("deploy"), &Value::Null)
    );
    assert!(paused["by"].as_str().unwrap().contains('@'), "{paused}");
    assert_eq!(fleet.subscriber("other-service")["paused"], Value::Null);
    let status = fleet.ask(&["status"]).ok();
    assert!(
        status.contains("probe-service is paused until it is resumed, by "),
        "{status}"
    );

    // It outlives its workers.
    drop((a, b));
    let worker = fleet.worker("probe-service", "c");
    std::thread::sleep(WHILE);
    assert_eq!(
        (fleet.starts(&fresh), fleet.starts(&again)),
        (None, Some(1))
    );

    let said = fleet.ask(&["resume", "probe-service"]).ok();
    assert_eq!(said, "probe-service is resumed\n");
    fleet.handles_each_once("probe-service", 3);
    assert_eq!(fleet.starts(&again), Some(3));
    assert_eq!(fleet.subscriber("probe-service")["paused"], Value::Null);
    assert!(!fleet.cli::<bool>("EXISTS control:probe-service"));
    assert!(
        worker
            .log_text()
            .contains("reading whatever there is again")
    );
    let said = fleet.ask(&["resume", "probe-service"]).ok();
    assert_eq!(said, "probe-service was not paused\n");
}

#[test]
fn a_pause_can_end_by_itself() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let worker = fleet.worker("probe-service", "w");
    let said = fleet.ask(&["pause", "probe-service", "--for", "4s"]).ok();
    assert!(
        said.starts_with("probe-service is paused until 20"),
        "{said}"
    );
    worker.wait_for_log("PAUSED: reading nothing");
    let waiting = event(json!({}));
    fleet.publish(&[waiting.clone()]);
    std::thread::sleep(WHILE);
    assert_eq!(fleet.starts(&waiting), None);
    eventually("it ends", || fleet.is_handled(&waiting).then_some(()));
}

#[test]
fn only_a_subscriber_can_be_paused() {
    let fleet = Fleet::new();
    for command in ["pause", "resume"] {
        let said = fleet.ask(&[command, "nobody-service"]).failed(1);
        assert!(
            said.contains("there is no subscriber nobody-service"),
            "{said}"
        );
        let said = fleet.ask(&[command, "router"]).failed(1);
        assert!(said.contains("the router cannot be paused"), "{said}");
    }
    let said = fleet
        .ask(&["pause", "probe-service", "--for", "0s"])
        .failed(1);
    assert!(said.contains("--for must be longer"), "{said}");
    fleet
        .ask(&["pause", "probe-service", "--for", "tomorrow"])
        .failed(2);
    assert!(!fleet.cli::<bool>("EXISTS control:probe-service"));
    // Routed once, and not any more: its worker may still settle what it owes.
    drop(fleet.worker("probe-service", "w"));
    let routing = ROUTING.replace("[probe-service]", "[other-service]");
    fleet.configure(&routing);
    fleet.ask(&["pause", "probe-service"]).ok();
    fleet.ask(&["resume", "probe-service"]).ok();
}
