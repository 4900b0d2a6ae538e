//! `streamfleet pending` and `streamfleet workers`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::fleet::{Process, ROUTING, id};
use crate::support::{Fleet, event, eventually};

/// A fleet with one delivery in flight and one that waits for an hour; both settle nothing.
fn two_owed() -> (Fleet, [Value; 2], Vec<Process>) {
    let fleet = Fleet::new();
    fleet.configure(&ROUTING.replace("initial: 50ms, max: 200ms", "initial: 1h, max: 1h"));
    let processes = vec![fleet.router("r"), fleet.worker("probe-service", "p")];
    let events = [
        event(json!({"do": "sleep", "ms": 20_000})),
        event(json!({"do": "fail"})),
    ];
    fleet.publish(&events);
    eventually("one runs and one waits", || {
        let of = |consumer: &str| {
            let line = format!("XPENDING test-events probe-service - + 10 {consumer}");
            fleet.cli::<Vec<redis::Value>>(&line).len()
        };
        (of("") == 2 && of("retry") == 1).then_some(())
    });
    (fleet, events, processes)
}

fn workers(fleet: &Fleet) -> BTreeMap<String, Value> {
    let ran = fleet.ask(&["workers", "--output", "json"]);
    let items = crate::support::cli::items(&ran.out).into_iter();
    items
        .map(|one| {
            (
                format!(
                    "{} {}",
                    one["name"].as_str().unwrap(),
                    one["state"].as_str().unwrap()
                ),
                one,
            )
        })
        .collect()
}

#[test]
fn what_is_owed_says_who_holds_it_and_how_it_fared() {
    let (fleet, events, mut processes) = two_owed();
    let before = fleet.cli::<Vec<redis::Value>>("XPENDING test-events probe-service - + 10");
    let owed = fleet
        .ask(&["pending", "probe-service", "--output", "json"])
        .items();
    let find = |event: &Value| {
        owed.iter()
            .find(|one| one["event_id"] == id(event))
            .unwrap()
    };
    let runs = find(&events[0]);
    assert_eq!(
        (&runs["stream"], &runs["attempt"]),
        (&json!("test-events"), &json!(1))
    );
    assert!(
        runs["holder"]["worker"].as_str().unwrap().starts_with("p."),
        "{runs}"
    );
    assert!(
        runs["idle_ms"].is_u64() && runs["due"].is_null() && runs["error"].is_null(),
        "{runs}"
    );
    let waits = find(&events[1]);
    assert_eq!(
        (&waits["holder"], &waits["attempt"]),
        (&json!("retry"), &json!(2))
    );
    assert_eq!(
        (&waits["error"], &waits["event_type"]),
        (&json!("told to fail"), &json!("Test.Happened"))
    );
    let due: jiff::Timestamp = waits["due"].as_str().unwrap().parse().unwrap();
    assert!(due > jiff::Timestamp::now(), "{waits}");
    let after = fleet.cli::<Vec<redis::Value>>("XPENDING test-events probe-service - + 10");
    let count = |rows: &[redis::Value]| format!("{rows:?}").matches("int(1)").count();
    assert_eq!(
        count(&before),
        count(&after),
        "looking bumps no delivery count"
    );

    let text = fleet.ask(&["pending"]).ok();
    assert!(text.lines().next().unwrap().starts_with("STREAM"), "{text}");
    assert!(
        text.contains("told to fail") && text.contains("  retry  "),
        "{text}"
    );
    let one = fleet.ask(&["pending", "--limit", "1"]);
    assert!(one.err.contains("there are more"), "{one:?}");
    assert_eq!(one.ok().lines().count(), 2);
    let none = fleet.ask(&["pending", "--limit", "0"]).failed(2);
    assert!(none.contains("write a whole number, 1 at least"), "{none}");
    assert_eq!(
        fleet.ask(&["pending", "other-service"]).ok(),
        "nothing is pending\n"
    );
    let slip = fleet.ask(&["pending", "other-servce"]).failed(1);
    assert!(
        slip.contains("there is no subscriber other-servce: did you mean other-service?"),
        "{slip}"
    );

    // Its worker dies: what it held is a ghost's, until another claims it.
    let worker = processes.remove(1);
    drop(worker);
    let _: u64 = fleet.cli("DEL worker:probe-service:p");
    let text = fleet.ask(&["pending"]).ok();
    assert!(text.contains("(ghost)"), "{text}");
}

#[test]
fn workers_are_alive_draining_or_ghosts() {
    let (fleet, _, mut processes) = two_owed();
    let found = workers(&fleet);
    let p = &found["p alive"];
    assert_eq!(
        (&p["subscriber"], &p["in_flight"]),
        (&json!("probe-service"), &json!(1))
    );
    assert_eq!(p["pid"], processes[1].child.id());
    assert_eq!(p["version"], env!("CARGO_PKG_VERSION"));
    let started: jiff::Timestamp = p["started"].as_str().unwrap().parse().unwrap();
    assert!(started <= jiff::Timestamp::now());
    assert!(p["heartbeat_ms"].as_u64().unwrap() < 15_000, "{p}");
    assert_eq!(found["r alive"]["subscriber"], "router");
    // Nobody serves the other one.
    let said = fleet.ask(&["workers"]).failed(1);
    assert!(
        said.contains("other-service has no process that is alive"),
        "{said}"
    );
    fleet.ask(&["workers", "probe-service"]).ok();

    processes[1].signal("TERM");
    eventually("it drains", || {
        workers(&fleet).contains_key("p draining").then_some(())
    });
    let said = fleet.ask(&["workers", "probe-service"]);
    assert!(said.out.contains("draining"), "{said:?}");
    said.failed(1);

    processes[1].signal("KILL");
    let _ = processes[1].exit_code();
    let _: u64 = fleet.cli("DEL worker:probe-service:p");
    let ghost = &workers(&fleet)["p ghost"];
    assert_eq!(
        (&ghost["in_flight"], &ghost["pid"]),
        (&json!(1), &Value::Null)
    );
    let text = fleet.ask(&["workers"]).out;
    assert!(
        text.contains("GHOST") && text.contains("1 ghost: "),
        "{text}"
    );
}
