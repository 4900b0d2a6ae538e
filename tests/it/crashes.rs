//! Processes that die, freeze and come back.

use redis::Commands;
use serde_json::json;

use crate::support::fleet::id;
use crate::support::{Fleet, event, eventually};

/// I1, I8: kill -9 in the middle of a batch, again and again; each effect happens once.
#[test]
fn killed_workers_lose_nothing_and_repeat_nothing() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let events: Vec<_> = (0..120)
        .map(|_| event(json!({"do": "sleep", "ms": 20})))
        .collect();
    fleet.publish(&events);
    let mut started = 0;
    for round in 1..=3 {
        let worker = fleet.worker("probe-service", "w");
        eventually("it works", || {
            let now: usize = fleet.cli("HLEN probe-service:started");
            (now >= (started + 15).min(120)).then(|| started = now)
        });
        worker.signal("KILL");
        eventually("deliveries are left behind", || {
            (round > 0
                && fleet.cli::<redis::Value>("XPENDING test-events probe-service")
                    != redis::Value::Nil)
                .then_some(())
        });
    }
    let _worker = fleet.worker("probe-service", "w");
    fleet.handles_each_once("probe-service", 120);
    assert!(
        fleet.dead("probe-service").is_empty(),
        "a crash charges nobody"
    );
}

/// A restarted worker has its predecessor's deliveries at once, not after the lease.
#[test]
fn a_restarted_worker_takes_over_at_once() {
    let fleet = Fleet::new();
    fleet.configure(&crate::support::fleet::ROUTING.replace("lease: 1s", "lease: 10m"));
    let _router = fleet.router("r");
    let worker = fleet.worker("probe-service", "w");
    let slow = event(json!({"do": "sleep", "ms": 300}));
    fleet.publish(std::slice::from_ref(&slow));
    eventually("it is started", || fleet.starts(&slow));
    worker.signal("KILL");
    let _worker = fleet.worker("probe-service", "w");
    eventually("it is handled", || {
        fleet.handled("probe-service").get(&id(&slow)).copied()
    });
    fleet.drained();
    let consumers: redis::streams::StreamInfoConsumersReply = fleet
        .connection()
        .xinfo_consumers("test-events", "probe-service")
        .unwrap();
    let lives = consumers
        .consumers
        .iter()
        .filter(|c| c.name.starts_with("w."))
        .count();
    assert_eq!(lives, 1, "the earlier life's consumer is gone");
}

/// A worker frozen beyond its lease wakes up to find its deliveries another's: it writes nothing.
#[test]
fn a_frozen_worker_is_fenced() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let frozen = fleet.worker("probe-service", "frozen");
    let events: Vec<_> = (0..4)
        .map(|_| event(json!({"do": "sleep", "ms": 400})))
        .collect();
    fleet.publish(&events);
    eventually("all are started", || (fleet.started() == 4).then_some(()));
    frozen.signal("STOP");
    let _other = fleet.worker("probe-service", "other");
    eventually("the other handles them", || {
        (fleet.handled("probe-service").len() == 4).then_some(())
    });
    frozen.signal("CONT");
    let late = event(json!({}));
    fleet.publish(std::slice::from_ref(&late));
    eventually("work goes on", || {
        fleet.handled("probe-service").get(&id(&late)).copied()
    });
    fleet.drained();
    assert!(
        fleet
            .handled("probe-service")
            .values()
            .all(|&times| times == 1)
    );
}

/// What Redis had handed to a worker that was frozen before it knew of it is another's when it
/// wakes up: it does not even start it.
#[test]
fn what_a_worker_learns_of_too_late_is_not_started() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let mut frozen = fleet.worker("probe-service", "frozen");
    let owed = || -> usize {
        let pending: redis::streams::StreamPendingReply = fleet
            .connection()
            .xpending("test-events", "probe-service")
            .unwrap();
        pending.count()
    };
    // Until it is frozen while its read waits: then the reply waits as well.
    let late = eventually("Redis hands something to the frozen worker", || {
        frozen.signal("STOP");
        let events = fleet.cli::<usize>("XLEN test-events");
        let late = event(json!({}));
        fleet.publish(std::slice::from_ref(&late));
        eventually("it is routed", || {
            (fleet.cli::<usize>("XLEN test-events") > events).then_some(())
        });
        if owed() == 1 {
            return Some(late);
        }
        frozen.signal("CONT");
        eventually("it is handled", || {
            fleet.handled("probe-service").get(&id(&late)).copied()
        });
        fleet.drained();
        None
    });
    let _other = fleet.worker("probe-service", "other");
    eventually("the other handles it", || {
        fleet.handled("probe-service").get(&id(&late)).copied()
    });
    frozen.signal("CONT");
    // A stop is answered when all that was read is dealt with.
    frozen.signal("TERM");
    assert_eq!(frozen.exit_code(), Some(0));
    assert_eq!(fleet.starts(&late), Some(1));
}

/// An event that kills its process does so three times and takes no neighbour with it.
#[test]
fn a_poison_event_is_isolated_and_its_neighbours_are_not_charged() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let mut events: Vec<_> = (0..6)
        .map(|_| event(json!({"do": "sleep", "ms": 150})))
        .collect();
    let poison = event(json!({"do": "abort", "ms": 50}));
    events.insert(3, poison.clone());
    fleet.publish(&events);
    let mut deaths = 0;
    let mut worker = fleet.worker("probe-service", "w");
    let letter = eventually("the poison is set aside", || {
        if worker.child.try_wait().unwrap().is_some() {
            deaths += 1;
            worker = fleet.worker("probe-service", "w");
        }
        fleet.dead("probe-service").pop()
    });
    fleet.drained();
    assert_eq!(
        (letter["id"].clone(), letter["reason"].as_str()),
        (id(&poison), "crashed")
    );
    assert_eq!(deaths, 3);
    assert_eq!(fleet.dead("probe-service").len(), 1);
    let handled = fleet.handled("probe-service");
    assert_eq!(handled.len(), 6, "every neighbour is handled");
    assert!(handled.values().all(|&times| times == 1));
}

/// SIGTERM: nothing new is read, what was started is finished, the process leaves cleanly.
#[test]
fn a_stopped_worker_drains_and_leaves_no_trace() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let mut worker = fleet.worker("probe-service", "w");
    let events: Vec<_> = (0..20)
        .map(|_| event(json!({"do": "sleep", "ms": 300})))
        .collect();
    fleet.publish(&events);
    eventually("some are started", || (fleet.started() >= 8).then_some(()));
    worker.signal("TERM");
    assert_eq!(worker.exit_code(), Some(0));
    let started: usize = fleet.cli("HLEN probe-service:started");
    assert_eq!(
        fleet.handled("probe-service").len(),
        started,
        "what was started is finished"
    );
    let consumers: redis::streams::StreamInfoConsumersReply = fleet
        .connection()
        .xinfo_consumers("test-events", "probe-service")
        .unwrap();
    assert!(
        consumers
            .consumers
            .iter()
            .all(|c| !c.name.starts_with("w.")),
        "its consumer is gone"
    );
    assert!(!fleet.cli::<bool>("EXISTS worker:probe-service:w"));
    let _next = fleet.worker("probe-service", "x");
    fleet.handles_each_once("probe-service", 20);
}

/// What is not done at the drain deadline is given back uncharged, and claimed at once.
#[test]
fn what_does_not_finish_in_time_is_released() {
    is_released_in_time(&event(json!({"do": "sleep", "ms": 1500})));
}

/// The same for one that keeps its thread.
#[test]
fn what_blocks_is_released_in_time() {
    is_released_in_time(&event(json!({"do": "block", "ms": 1500})));
}

fn is_released_in_time(slow: &serde_json::Value) {
    let fleet = Fleet::new();
    fleet.configure(&crate::support::fleet::ROUTING.replace("lease: 1s", "lease: 10m"));
    let _router = fleet.router("r");
    let mut worker = fleet.worker("probe-service", "w");
    fleet.publish(std::slice::from_ref(slow));
    eventually("it is started", || fleet.starts(slow));
    worker.signal("TERM");
    worker.wait_for_log("stopping");
    worker.signal("TERM"); // the second asks to end at once, as the deadline does
    assert_eq!(worker.exit_code(), Some(0));
    let pending: redis::streams::StreamPendingCountReply = fleet
        .connection()
        .xpending_count("test-events", "probe-service", "-", "+", 10)
        .unwrap();
    assert_eq!(pending.ids[0].consumer, "released");
    let _other = fleet.worker("probe-service", "other");
    eventually("another handles it", || {
        fleet.handled("probe-service").get(&id(slow)).copied()
    });
    fleet.drained();
    assert!(!fleet.cli::<bool>("EXISTS attempts:test-events:probe-service"));
}

#[test]
fn a_process_whose_name_was_taken_over_stops() {
    let fleet = Fleet::new();
    let mut first = fleet.worker("probe-service", "same");
    let _second = fleet.worker("probe-service", "same");
    assert_eq!(first.exit_code(), Some(1));
    assert!(
        first
            .log_text()
            .contains("another process has taken over the name same")
    );
}

/// I2: two routers side by side, one of them killed, and duplicates among the events.
#[test]
fn routers_share_the_inbox_and_drop_duplicates() {
    let fleet = Fleet::new();
    let routers = [fleet.router("a"), fleet.router("b")];
    let _worker = fleet.worker("probe-service", "w");
    let events: Vec<_> = (0..400).map(|_| event(json!({}))).collect();
    for chunk in events.chunks(50) {
        fleet.publish(chunk);
        fleet.publish(&chunk[..10]);
    }
    routers[0].signal("KILL");
    fleet.publish(&events[..20]);
    let _again = fleet.router("a");
    fleet.handles_each_once("probe-service", 400);
    assert_eq!(fleet.cli::<usize>("XLEN test-events"), 400);
    assert_eq!(fleet.cli::<usize>("HGET stats:router duplicates"), 100);
}

/// Redis away and a stop asked for: the process ends by its drain deadline all the same.
#[test]
fn a_stop_does_not_wait_for_a_redis_that_is_away() {
    let fleet = Fleet::new();
    let router = fleet.router("r");
    let mut worker = fleet.worker("probe-service", "w");
    let events: Vec<_> = (0..30)
        .map(|_| event(json!({"do": "sleep", "ms": 100})))
        .collect();
    fleet.publish(&events);
    eventually("some are started", || (fleet.started() >= 8).then_some(()));
    drop(router);
    fleet.kill();
    worker.signal("TERM");
    worker.wait_for_log("stopping");
    worker.signal("TERM"); // as the drain deadline does
    assert_eq!(worker.exit_code(), Some(0));
    fleet.run();
    let _router = fleet.router("r");
    let _worker = fleet.worker("probe-service", "w");
    fleet.handles_each_once("probe-service", 30);
}

/// A handler that asks to be told of a stop and gives way is not charged for it.
#[test]
fn giving_way_to_a_stop_is_not_charged() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let giving = event(json!({"do": "give way", "ms": 300}));
    fleet.publish(std::slice::from_ref(&giving));
    for life in 1..=4 {
        let mut worker = fleet.worker("probe-service", "w");
        eventually("it is started", || {
            let started = fleet.starts(&giving);
            (started == Some(life)).then_some(())
        });
        worker.signal("TERM");
        assert_eq!(worker.exit_code(), Some(0));
    }
    let _worker = fleet.worker("probe-service", "w");
    eventually("it is handled", || {
        fleet.handled("probe-service").get(&id(&giving)).copied()
    });
    assert!(fleet.dead("probe-service").is_empty());
}

/// A worker that wakes up after its lease learns that its deliveries are another's, and stops
/// what it was doing for them.
#[test]
fn a_worker_that_wakes_up_too_late_stops_what_it_ran() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let frozen = fleet.worker("probe-service", "frozen");
    let slow = event(json!({"do": "sleep", "ms": 5000}));
    fleet.publish(std::slice::from_ref(&slow));
    eventually("it is started", || fleet.starts(&slow));
    let _other = fleet.worker("probe-service", "other");
    frozen.signal("STOP");
    eventually("the other has it", || {
        (fleet.starts(&slow) == Some(2)).then_some(())
    });
    frozen.signal("CONT");
    fleet.handles_each_once("probe-service", 1);
    assert!(
        !frozen.log_text().contains("came too late"),
        "it did not run to its end"
    );
}

/// Who still renews by a longer lease loses nothing to a process with a newer file.
#[test]
fn a_shorter_lease_takes_nothing_from_those_who_run_by_a_longer_one() {
    let fleet = Fleet::new();
    fleet.configure(&crate::support::fleet::ROUTING.replace("lease: 1s", "lease: 10m"));
    let _router = fleet.router("r");
    let _long = fleet.worker("probe-service", "long");
    let slow = event(json!({"do": "sleep", "ms": 4000}));
    fleet.publish(std::slice::from_ref(&slow));
    eventually("it is started", || fleet.starts(&slow));
    fleet.configure(crate::support::fleet::ROUTING);
    let _short = fleet.worker("probe-service", "short");
    fleet.handles_each_once("probe-service", 1);
    assert_eq!(fleet.starts(&slow), Some(1), "started once");
}
