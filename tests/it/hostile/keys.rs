//! A key of ours that somebody made another type: the fleet says which, waits without spinning,
//! loses nothing, and goes on by itself when the key is repaired.

use std::time::{Duration, Instant};

use redis::Commands;
use serde_json::{Value, json};

use crate::scheduled::later;
use crate::support::fleet::{Process, ROUTING, id};
use crate::support::{Fleet, event, eventually};

/// Far more than a fleet that waits asks of Redis in a second, far less than one that spins.
const BUSY: u64 = 1_500;

struct Case {
    fleet: Fleet,
    router: Process,
    worker: Process,
}

impl Case {
    /// A fleet that works, so that all its keys are there.
    fn new() -> Self {
        let fleet = Fleet::new();
        let router = fleet.router("r");
        let worker = fleet.worker("probe-service", "w");
        fleet.publish(&[event(json!({"do": "fail twice"}))]);
        eventually("it works", || {
            (fleet.handled("probe-service").len() == 1).then_some(())
        });
        fleet.drained();
        Self {
            fleet,
            router,
            worker,
        }
    }

    /// Makes `key` a text, lets `events` run into it, repairs it; then every event must have been
    /// handled once, but for those of `dead`, which must be in that dead-letter stream once.
    fn survives(self, key: &str, events: &[Value], dead: Option<&str>) {
        let Self {
            fleet,
            mut router,
            mut worker,
        } = self;
        let mut connection = fleet.connection();
        let existed: bool = connection.exists(key).unwrap();
        if existed {
            let _: () = connection.rename(key, "aside").unwrap();
        }
        let _: () = connection.set(key, "oops").unwrap();
        if key != "inbox" {
            fleet.publish(events);
        }
        let named = format!("key {key} is a string, expected a ");
        eventually(&named, || {
            let said = |process: &Process| process.log_text().contains(&named);
            (said(&router) || said(&worker)).then_some(())
        });
        let commands = || -> u64 {
            let info: redis::InfoDict = redis::cmd("INFO").query(&mut fleet.connection()).unwrap();
            info.get("total_commands_processed").unwrap()
        };
        let (before, start) = (commands(), Instant::now());
        std::thread::sleep(Duration::from_secs(1)); // it is the rate that is looked at
        let rate = (commands() - before) as f64 / start.elapsed().as_secs_f64();
        assert!(rate < BUSY as f64, "{rate} commands a second");
        for process in [&mut router, &mut worker] {
            assert_eq!(process.child.try_wait().unwrap(), None, "it still runs");
            assert!(
                process.log_text().lines().count() < 200,
                "it does not flood its log"
            );
        }

        let _: () = connection.del(key).unwrap();
        if existed {
            let _: () = connection.rename("aside", key).unwrap();
        }
        if key == "inbox" {
            fleet.publish(events);
        }
        let good: Vec<_> = events
            .iter()
            .filter(|event| event["data"]["do"] != "reject" && event["version"] == "1")
            .collect();
        eventually("all good events are handled", || {
            (fleet.handled("probe-service").len() == 1 + good.len()).then_some(())
        });
        let lost = events.len() - good.len();
        if let Some(owner) = dead {
            eventually("the others are set aside", || {
                (fleet.dead(owner).len() == lost).then_some(())
            });
        }
        fleet.drained();
        let handled = fleet.handled("probe-service");
        assert!(good.iter().all(|event| handled.get(&id(event)) == Some(&1)));
    }
}

fn good() -> Value {
    event(json!({}))
}

fn of_no_known_version() -> Value {
    let mut event = good();
    event["version"] = json!("7");
    event
}

#[test]
fn the_inbox() {
    Case::new().survives("inbox", &[good(), good()], None);
}

#[test]
fn a_domain_stream() {
    Case::new().survives("test-events", &[good(), good()], None);
}

#[test]
fn the_redriven_letters() {
    Case::new().survives("redrive:probe-service", &[good(), good()], None);
}

#[test]
fn the_dead_letters_of_the_router() {
    let events = [good(), of_no_known_version(), good()];
    Case::new().survives("dead:router", &events, Some("router"));
}

#[test]
fn the_dead_letters_of_a_subscriber() {
    let events = [good(), event(json!({"do": "reject"})), good()];
    Case::new().survives("dead:probe-service", &events, Some("probe-service"));
}

#[test]
fn the_record_of_troubled_deliveries() {
    let events = [good(), event(json!({"do": "fail twice"})), good()];
    Case::new().survives("attempts:test-events:probe-service", &events, None);
}

#[test]
fn the_ids_that_were_seen() {
    let case = Case::new();
    let keys: Vec<String> = case.fleet.cli("KEYS seen:*");
    let key = keys.iter().max().unwrap().clone();
    case.survives(&key, &[good(), good()], None);
}

/// Whether it is the one that tells when, or the one that tells what.
#[test]
fn the_scheduled_events() {
    for key in ["scheduled", "scheduled:events"] {
        let soon = later(good(), 300);
        Case::new().survives(key, &[good(), soon, good()], None);
    }
}

#[test]
fn the_audit() {
    let case = Case::new();
    let audited = ROUTING.replace("version: 1", "version: 1\naudit: { maxlen: 9 }");
    case.fleet.configure(&audited);
    case.router.wait_for_log("is in force");
    case.survives("audit", &[good(), good()], None);
}

#[test]
fn the_counters_of_the_router() {
    Case::new().survives("stats:router", &[good(), good()], None);
}

#[test]
fn the_record_of_the_fleet() {
    Case::new().survives(
        "fleet",
        &[good(), of_no_known_version(), good()],
        Some("router"),
    );
}

#[test]
fn the_record_of_a_worker() {
    Case::new().survives("worker:probe-service:w", &[good(), good()], None);
}

#[test]
fn what_may_pause_a_subscriber() {
    Case::new().survives("control:probe-service", &[good(), good()], None);
}

/// A handler reads its own key of another type: its fault, charged, and it names the key.
#[test]
fn the_key_of_an_effect() {
    let case = Case::new();
    let (fleet, _worker) = (case.fleet, case.worker);
    let _router = case.router;
    let mut connection = fleet.connection();
    let _: () = connection.rename("probe-service:handled", "aside").unwrap();
    let _: () = connection.set("probe-service:handled", "oops").unwrap();
    fleet.publish(&[good()]);
    let letter = eventually("it is given up", || fleet.dead("probe-service").pop());
    assert_eq!(letter["reason"], "exhausted");
    assert!(
        letter["error"].contains("probe-service:handled is a string, expected a hash"),
        "{letter:?}"
    );
    let _: () = connection.rename("aside", "probe-service:handled").unwrap();
    fleet.ask(&["dead", "redrive", "--all"]).ok();
    fleet.handles_each_once("probe-service", 2);
}
