//! Redis that goes away, answers too late, or comes back as another.

use redis::Commands;
use serde_json::json;

use crate::support::fleet::id;
use crate::support::proxy::{Lost, Proxy};
use crate::support::{Fleet, event, eventually};

/// I1, I8: Redis killed and restarted under load, with everything it had promised on disk.
#[test]
fn redis_restarted_under_load() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let _workers = [
        fleet.worker("probe-service", "a"),
        fleet.worker("probe-service", "b"),
    ];
    let events: Vec<_> = (0..300)
        .map(|_| event(json!({"do": "sleep", "ms": 5})))
        .collect();
    fleet.publish(&events);
    for part in [40, 120] {
        eventually("it works", || {
            (fleet.handled("probe-service").len() >= part).then_some(())
        });
        fleet.kill();
        fleet.run();
    }
    fleet.handles_each_once("probe-service", 300);
    assert!(
        fleet.dead("probe-service").is_empty(),
        "an outage charges nobody"
    );
}

/// The answer of a commit is lost: it is sent again, found done, and counts once.
#[test]
fn a_lost_answer_repeats_no_effect() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let proxy = Proxy::start(&fleet.socket(), &fleet.dir.path().join("proxy.sock"));
    let worker = fleet.worker_at("probe-service", "w", &proxy.url(), "worker started");
    let first = event(json!({}));
    fleet.publish(std::slice::from_ref(&first));
    eventually("the way is open", || {
        fleet.handled("probe-service").get(&id(&first)).copied()
    });
    for _ in 0..3 {
        // The next commit reaches Redis, its answer does not reach the worker.
        proxy.lose_next(Lost::Answer, "commit");
        let event = event(json!({}));
        fleet.publish(std::slice::from_ref(&event));
        eventually("it is handled", || {
            fleet.handled("probe-service").get(&id(&event)).copied()
        });
        fleet.drained();
    }
    assert_eq!(proxy.struck(), 3, "the fault struck");
    assert!(
        fleet
            .handled("probe-service")
            .values()
            .all(|&times| times == 1)
    );
    assert!(fleet.dead("probe-service").is_empty());
    drop(worker);
}

/// A group that was lost halts its subscriber until the operator chooses; nothing is repeated
/// or lost by itself.
#[test]
fn a_lost_group_halts_until_it_is_recreated() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let worker = fleet.worker("probe-service", "w");
    let first = event(json!({}));
    fleet.publish(std::slice::from_ref(&first));
    eventually("the first is handled", || {
        fleet.handled("probe-service").get(&id(&first)).copied()
    });
    fleet.drained();
    let _: i64 = fleet.cli("XGROUP DESTROY test-events probe-service");
    let second = event(json!({}));
    fleet.publish(std::slice::from_ref(&second));
    worker.wait_for_log("HALTED: the group probe-service on test-events was lost");
    assert_eq!(fleet.handled("probe-service").len(), 1);
    // As `streamfleet group recreate probe-service test-events --from <id of the first>` does.
    let entries: redis::streams::StreamRangeReply =
        fleet.connection().xrange_all("test-events").unwrap();
    let _: () = fleet.cli(&format!(
        "XGROUP CREATE test-events probe-service {}",
        entries.ids[0].id
    ));
    eventually("it goes on", || {
        fleet.handled("probe-service").get(&id(&second)).copied()
    });
    assert_eq!(fleet.handled("probe-service").len(), 2);
}

/// A power loss takes Redis back to before the groups were made: nobody takes them for retired.
#[test]
fn groups_that_redis_does_not_remember_are_made_again() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let _worker = fleet.worker("probe-service", "w");
    let mut forget = redis::pipe();
    forget.atomic();
    for (stream, group) in [
        ("test-events", "probe-service"),
        ("redrive:probe-service", "probe-service"),
        ("inbox", "router"),
    ] {
        forget.cmd("XGROUP").arg("DESTROY").arg(stream).arg(group);
        let field = format!("group:{stream}:{group}");
        forget.cmd("HDEL").arg("fleet").arg(field);
    }
    let done: Vec<u64> = forget.query(&mut fleet.connection()).unwrap();
    assert_eq!(done, [1; 6]);
    let _: u64 = fleet.cli("CLIENT KILL TYPE normal SKIPME yes");
    let event = event(json!({}));
    fleet.publish(std::slice::from_ref(&event));
    eventually("it is handled", || {
        fleet.handled("probe-service").get(&id(&event)).copied()
    });
    fleet.drained();
}

/// FLUSHALL under running processes: they stop with an error and never work on the new data
/// with the old view.
#[test]
fn another_dataset_stops_the_processes() {
    let fleet = Fleet::new();
    let mut router = fleet.router("r");
    let mut worker = fleet.worker("probe-service", "w");
    let _: () = fleet.cli("FLUSHALL");
    assert_eq!((router.exit_code(), worker.exit_code()), (Some(1), Some(1)));
    assert!(
        worker
            .log_text()
            .contains("the data in Redis were replaced")
    );
    let _router = fleet.router("r");
    let _worker = fleet.worker("probe-service", "w");
    let fresh = event(json!({}));
    fleet.publish(std::slice::from_ref(&fresh));
    eventually("a restart begins on the new data", || {
        fleet.handled("probe-service").get(&id(&fresh)).copied()
    });
}

/// A full Redis still lets the fleet settle, and routing resumes when there is room.
#[test]
fn a_full_redis_drains() {
    let fleet = Fleet::new();
    let router = fleet.router("r");
    let events: Vec<_> = (0..50).map(|_| event(json!({}))).collect();
    fleet.publish(&events);
    eventually("all are routed", || {
        (fleet.cli::<usize>("XLEN test-events") == 50).then_some(())
    });
    let _: () = fleet.cli("CONFIG SET maxmemory 1mb");
    router.wait_for_log("PAUSED: Redis is nearly full");
    let worker = fleet.worker("probe-service", "w");
    eventually("what was routed is handled", || {
        (fleet.handled("probe-service").len() == 50).then_some(())
    });
    let _: () = fleet.cli("CONFIG SET maxmemory 0");
    let late = event(json!({}));
    fleet.publish(std::slice::from_ref(&late));
    eventually("routing goes on", || {
        fleet.handled("probe-service").get(&id(&late)).copied()
    });
    drop(worker);
}

#[test]
fn scripts_that_redis_forgot_are_loaded_again() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let _worker = fleet.worker("probe-service", "w");
    for n in 1..=3 {
        let _: () = fleet.cli("SCRIPT FLUSH");
        fleet.publish(&[event(json!({}))]);
        eventually("it is handled", || {
            (fleet.handled("probe-service").len() == n).then_some(())
        });
    }
}

/// Redis frozen for longer than a lease: nobody's running deliveries are taken away.
#[test]
fn a_frozen_redis_takes_nothing_from_the_living() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let _workers = [
        fleet.worker("probe-service", "a"),
        fleet.worker("probe-service", "b"),
    ];
    let events: Vec<_> = (0..6)
        .map(|_| event(json!({"do": "sleep", "ms": 4000})))
        .collect();
    fleet.publish(&events);
    eventually("all are started", || (fleet.started() == 6).then_some(()));
    fleet.signal("STOP");
    std::thread::sleep(std::time::Duration::from_millis(2500)); // how long the fault lasts
    fleet.signal("CONT");
    eventually("all are handled", || {
        (fleet.handled("probe-service").len() == 6).then_some(())
    });
    fleet.drained();
    for one in &events {
        let started: u64 = fleet.cli(&format!("HGET probe-service:started {}", id(one)));
        assert_eq!(started, 1, "started once");
    }
}

/// I6: Redis away while a handler reads from it is nobody's fault.
#[test]
fn a_read_that_finds_redis_away_charges_nobody() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let worker = fleet.worker("probe-service", "w");
    let reading = event(json!({"do": "sleep and read", "ms": 500}));
    fleet.publish(std::slice::from_ref(&reading));
    eventually("it is started", || fleet.starts(&reading));
    fleet.server.kill();
    worker.wait_for_log("a delivery failed");
    fleet.server.run();
    eventually("it is handled", || {
        fleet.handled("probe-service").get(&id(&reading)).copied()
    });
    assert!(!worker.log_text().contains("\"charged\":true"));
}
