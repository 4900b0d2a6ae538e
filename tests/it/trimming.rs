//! I4: history is trimmed, what is owed never.

use redis::Commands;
use serde_json::{Value, json};

use crate::support::fleet::{ROUTING, typed};
use crate::support::preload::Clock;
use crate::support::{Fleet, event, eventually};

#[test]
fn trimming_waits_for_the_slowest_group() {
    let fleet = Fleet::new();
    fleet.configure(
        &ROUTING
            .replace(
                r#"events: ["Test.**"]"#,
                r#"events: ["Test.**"], maxlen: 10"#,
            )
            .replace(
                "Test.Happened: [probe-service]",
                "Test.Happened: [probe-service, other-service]",
            ),
    );
    let router = fleet.router("r");
    let _probe = fleet.worker("probe-service", "p");
    let events: Vec<_> = (0..100).map(|_| event(json!({}))).collect();
    fleet.publish(&events);
    eventually("one group is done", || {
        (fleet.handled("probe-service").len() == 100).then_some(())
    });
    router.wait_for_log("kept above its limits");
    assert_eq!(
        fleet.cli::<usize>("XLEN test-events"),
        100,
        "the other group has read nothing"
    );
    let _other = fleet.worker("other-service", "o");
    eventually("the other is done", || {
        (fleet.handled("other-service").len() == 100).then_some(())
    });
    eventually("then it is trimmed", || {
        (fleet.cli::<usize>("XLEN test-events") == 10).then_some(())
    });
    assert!(
        fleet
            .handled("other-service")
            .values()
            .all(|&times| times == 1)
    );
}

/// A racing janitor never deletes an entry that is pending somewhere.
#[test]
fn trimming_races_a_lagging_group() {
    let fleet = Fleet::new();
    fleet.configure(
        &ROUTING
            .replace(
                r#"events: ["Test.**"]"#,
                r#"events: ["Test.**"], maxlen: 1"#,
            )
            .replace(
                "Test.Happened: [probe-service]",
                "Test.Happened: [probe-service, other-service]",
            ),
    );
    let _routers = [fleet.router("a"), fleet.router("b")];
    let _workers = [
        fleet.worker("probe-service", "p"),
        fleet.worker("other-service", "o"),
    ];
    let mut events = Vec::new();
    for _ in 0..12 {
        let batch: Vec<_> = (0..20)
            .map(|n| event(json!({"do": "sleep", "ms": n * 20})))
            .collect();
        fleet.publish(&batch);
        events.extend(batch);
        std::thread::sleep(std::time::Duration::from_millis(300)); // load over several passes of the janitor
    }
    for subscriber in ["probe-service", "other-service"] {
        eventually("all are handled", || {
            (fleet.handled(subscriber).len() == events.len()).then_some(())
        });
        assert_eq!(
            fleet.cli::<Option<u64>>(&format!("HGET stats:{subscriber} lost")),
            None
        );
    }
}

/// History is as old as Redis says: a router whose clock is wrong deletes nothing early.
#[test]
fn retention_goes_by_the_clock_of_redis() {
    let clock = Clock::build().unwrap();
    clock.set(60 * 24 * 3600);
    let fleet = Fleet::new();
    fleet.configure(
        &ROUTING
            .replace(
                r#"events: ["Test.**"]"#,
                r#"events: ["Test.**"], retention: 1d"#,
            )
            .replace(
                r#"events: ["More.**"]"#,
                r#"events: ["More.**"], maxlen: 1"#,
            ),
    );
    let mut router = fleet.router_command("r");
    router.envs(clock.environment());
    let _router = fleet.launch(router, "r", "router started");
    let _workers = ["probe-service", "other-service"].map(|s| fleet.worker(s, "w"));
    let letter: String = fleet.cli("XADD dead:probe-service * reason test");
    fleet.publish(&[event(json!({}))]);
    eventually("it is handled", || {
        (fleet.handled("probe-service").len() == 1).then_some(())
    });
    // Twice, so that a whole pass of the janitor lies in between.
    for _ in 0..2 {
        fleet.publish(&[
            typed("More.Happened", json!({})),
            typed("More.Happened", json!({})),
        ]);
        eventually("more are there", || {
            (fleet.cli::<u64>("XLEN inbox") == 0).then_some(())
        });
        eventually("what is too much is trimmed", || {
            (fleet.cli::<usize>("XLEN more-events") == 1).then_some(())
        });
    }
    assert_eq!(fleet.cli::<usize>("XLEN test-events"), 1);
    assert_eq!(fleet.dead("probe-service").len(), 1, "{letter}");
}

/// A configured group that is missing blocks trimming.
#[test]
fn a_missing_group_blocks_trimming() {
    let fleet = Fleet::new();
    fleet.configure(&ROUTING.replace(
        r#"events: ["More.**"]"#,
        r#"events: ["More.**"], maxlen: 1"#,
    ));
    let router = fleet.router("r");
    let events: Vec<_> = (0..5).map(|_| typed("More.Happened", json!({}))).collect();
    fleet.publish(&events);
    eventually("all are routed", || {
        (fleet.cli::<usize>("XLEN more-events") == 5).then_some(())
    });
    let _: i64 = fleet.cli("XGROUP DESTROY more-events other-service");
    router.wait_for_log("this group should exist and does not");
    assert_eq!(fleet.cli::<usize>("XLEN more-events"), 5);
}

#[test]
fn letters_are_cut_by_age_and_never_by_count() {
    let fleet = Fleet::new();
    let letter = "subscriber probe-service event {} reason exhausted error x";
    let _: String = fleet.cli(&format!("XADD dead:probe-service 1-1 {letter}"));
    for _ in 0..20 {
        let _: String = fleet.cli(&format!("XADD dead:probe-service * {letter}"));
    }
    let _router = fleet.router("r");
    eventually("the letter of 1970 is gone", || {
        let oldest: Vec<redis::Value> = fleet.cli("XRANGE dead:probe-service - 1-1");
        oldest.is_empty().then_some(())
    });
    assert_eq!(fleet.dead("probe-service").len(), 20);
}

/// Redis does not write to its append-only file how many entries a group has read. The janitor mends the count once
/// the group has read all, so that what waits later is told right.
#[test]
fn what_waits_is_counted_right_after_a_restart_of_redis() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let worker = fleet.worker("probe-service", "p");
    let publish = |events: usize| {
        let events: Vec<_> = (0..events).map(|_| event(json!({}))).collect();
        fleet.publish(&events);
    };
    publish(20);
    fleet.handles_each_once("probe-service", 20);
    fleet.kill();
    fleet.run();
    let group = || {
        let groups: redis::streams::StreamInfoGroupsReply =
            fleet.connection().xinfo_groups("test-events").unwrap();
        let mut groups = groups.groups.into_iter();
        groups.find(|group| group.name == "probe-service").unwrap()
    };
    eventually("the count is right", || {
        (group().entries_read == Some(20) && group().lag == Some(0)).then_some(())
    });
    worker.signal("STOP");
    publish(3);
    eventually("three are routed", || {
        (fleet.cli::<usize>("XLEN test-events") == 23).then_some(())
    });
    let status = fleet.ask(&["status", "--output", "json"]).json();
    let mut groups = status["groups"].as_array().unwrap().iter();
    let of = |g: &&Value| g["subscriber"] == "probe-service" && g["stream"] == "test-events";
    let waiting = groups.find(of).unwrap()["waiting"].as_u64().unwrap();
    assert!(waiting <= 3, "{waiting}");
    worker.signal("CONT");
    fleet.handles_each_once("probe-service", 23);
}
