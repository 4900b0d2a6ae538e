//! `streamfleet status`.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::cli::{items, streamfleet};
use crate::support::fleet::{ROUTING, typed};
use crate::support::{Fleet, event, eventually};

fn found<'a>(list: &'a Value, field: &str, name: &str) -> &'a Value {
    let mut list = list.as_array().unwrap().iter();
    list.find(|one| one[field] == name).unwrap()
}

#[test]
fn the_numbers_are_those_of_redis() {
    let fleet = Fleet::new();
    fleet.configure(&ROUTING.replace("initial: 50ms, max: 200ms", "initial: 1h, max: 1h"));
    let router = fleet.router("r");
    let _workers = [
        fleet.worker("probe-service", "p"),
        fleet.worker("probe-service", "q"),
    ];
    let sleep = json!({"do": "sleep", "ms": 15_000});
    fleet.publish(&[event(sleep.clone()), event(sleep.clone()), event(sleep)]);
    fleet.publish(&[event(json!({"do": "fail"})), event(json!({"do": "fail"}))]);
    fleet.publish(&[event(json!({"do": "reject"})), event(json!({}))]);
    fleet.publish(&[
        event(json!({"amount": -1})),
        typed("Nobody.Knows", json!({})),
    ]);
    let once = typed("More.Happened", json!({}));
    fleet.publish(&[once.clone(), typed("More.Happened", json!({})), once]);
    let pending = |consumer: &str| {
        let line = format!("XPENDING test-events probe-service - + 100 {consumer}");
        fleet.cli::<Vec<redis::Value>>(&line).len()
    };
    eventually("everything is where it stays", || {
        let dead = ["router", "probe-service"].map(|owner| fleet.dead(owner).len());
        let routed = fleet.cli::<u64>("XLEN more-events") == 2;
        let held = pending("").saturating_sub(pending("retry"));
        (routed && dead == [2, 1] && (pending("retry"), held) == (2, 3)).then_some(())
    });
    drop(router);
    let unrouted = typed("More.Happened", json!({}));
    fleet.publish(&[unrouted]);

    let status = fleet.ask(&["status", "--output", "json"]).json();
    assert_eq!(status["drained"], false);
    let door = &status["router"];
    for (field, number) in [
        ("inbox", 1),
        ("routed", 9),
        ("refused", 2),
        ("duplicates", 1),
        ("dead", 2),
    ] {
        assert_eq!(door[field], number, "{field}: {door}");
    }
    assert!(door["oldest_ms"].as_u64().unwrap() < 60_000);
    assert_eq!(
        found(&status["streams"], "name", "test-events")["length"],
        7
    );
    let of = |stream: &str, subscriber: &str| {
        let groups = status["groups"].as_array().unwrap().iter();
        let mut of = groups.filter(|g| g["stream"] == stream && g["subscriber"] == subscriber);
        of.next().unwrap()
    };
    let probe = of("test-events", "probe-service");
    let numbers = ["waiting", "in_flight", "retrying", "released"].map(|f| probe[f].as_u64());
    assert_eq!(numbers, [Some(0), Some(3), Some(2), Some(0)], "{probe}");
    let other = of("more-events", "other-service");
    assert_eq!(
        (&other["waiting"], &other["in_flight"]),
        (&json!(2), &json!(0))
    );
    assert!(other["oldest_waiting_ms"].is_u64());
    let inbox = of("inbox", "router");
    assert_eq!(inbox["waiting"], 1);
    let probe = found(&status["subscribers"], "name", "probe-service");
    assert_eq!(
        (&probe["dead"], &probe["workers"]),
        (&json!(1), &json!(["p", "q"]))
    );
    let other = found(&status["subscribers"], "name", "other-service");
    assert_eq!((&other["dead"], &other["workers"]), (&json!(0), &json!([])));
    assert_eq!(status["dataset"], fleet.cli::<String>("HGET fleet dataset"));
    assert_eq!(
        status["generation"],
        fleet.cli::<u64>("HGET fleet generation")
    );

    let text = fleet.ask(&["status"]).ok();
    let row = |start: &str| {
        let line = text.lines().find(|line| line.starts_with(start)).unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert!(
        row("test-events  probe").starts_with("test-events probe-service 0 - 3 2 0 ok"),
        "{text}"
    );
    assert!(row("probe-service").ends_with("1 0 p q"), "{text}");
    assert!(
        text.contains("working; routed 9, refused 2, duplicates 1; configuration 1;"),
        "{text}"
    );
}

#[test]
fn an_empty_fleet_is_drained_and_a_lost_group_is_not() {
    let fleet = Fleet::new();
    let before = fleet.ask(&["status", "--output", "json"]).json();
    assert_eq!(
        (&before["drained"], &before["dataset"]),
        (&json!(true), &Value::Null)
    );
    assert!(fleet.snapshot().is_empty(), "looking changes nothing");
    let router = fleet.router("r");
    assert!(
        fleet
            .ask(&["status"])
            .ok()
            .contains("drained: nothing is owed to anybody")
    );
    drop(router);
    let _: u64 = fleet.cli("XGROUP DESTROY test-events probe-service");
    let status = fleet.ask(&["status", "--output", "json"]).json();
    assert_eq!(status["drained"], false);
    let text = fleet.ask(&["status"]).ok();
    assert!(text.contains("LOST: streamfleet group recreate"), "{text}");
}

#[test]
fn watching_goes_on_until_it_is_told_to_stop() {
    let fleet = Fleet::new();
    let mut command = streamfleet(&[
        "status",
        "--watch",
        "--interval",
        "100ms",
        "--output",
        "json",
    ]);
    command.env("STREAMFLEET_CONFIG", fleet.config());
    command.env("STREAMFLEET_REDIS_URL", fleet.url());
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in lines.take(3) {
        let snapshots = items(&line.unwrap());
        assert_eq!(snapshots[0]["drained"], true);
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
