//! Failures: three attempts, backoff, dead letters, and what is charged to whom.

use redis::Commands;
use serde_json::json;

use crate::support::fleet::id;
use crate::support::{Fleet, event, eventually};

#[test]
fn a_failing_event_is_tried_three_times_and_set_aside_with_its_history() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let _worker = fleet.worker("probe-service", "w");
    let (failing, fine) = (event(json!({"do": "fail"})), event(json!({})));
    fleet.publish(&[failing.clone(), fine.clone()]);
    let dead = eventually("a dead letter", || fleet.dead("probe-service").pop());
    fleet.drained();
    assert_eq!(
        (dead["id"].as_str(), dead["reason"].as_str()),
        (id(&failing).as_str(), "exhausted")
    );
    assert_eq!(dead["error"], "told to fail");
    assert_eq!(
        (dead["stream"].as_str(), dead["subscriber"].as_str()),
        ("test-events", "probe-service")
    );
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&dead["event"]).unwrap(),
        failing
    );
    let attempts: Vec<serde_json::Value> = serde_json::from_str(&dead["attempts"]).unwrap();
    assert_eq!(
        attempts
            .iter()
            .map(|a| a["attempt"].as_u64().unwrap())
            .collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert!(attempts[0]["worker"].as_str().unwrap().starts_with("w."));
    assert_eq!(fleet.starts(&failing).unwrap(), 3);
    assert_eq!(fleet.handled("probe-service"), [(id(&fine), 1)].into());
    assert!(
        !fleet.cli::<bool>("EXISTS attempts:test-events:probe-service"),
        "nothing is left behind"
    );
}

#[test]
fn each_kind_of_failure_ends_as_it_should() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let _worker = fleet.worker("probe-service", "w");
    let cases = [
        "fail twice",
        "reject",
        "panic",
        "unavailable once",
        "wrong type",
    ];
    let events: Vec<_> = cases
        .iter()
        .map(|case| event(json!({"do": case})))
        .collect();
    // The key `handled` is a hash already when "wrong type" writes a string to it.
    fleet.publish(&[event(json!({}))]);
    eventually("the first is handled", || {
        (fleet.handled("probe-service").len() == 1).then_some(())
    });
    fleet.publish(&events);
    eventually("three dead letters", || {
        (fleet.dead("probe-service").len() == 3).then_some(())
    });
    fleet.drained();
    let handled = fleet.handled("probe-service");
    assert_eq!(
        handled.get(&id(&events[0])),
        Some(&1),
        "the third attempt succeeds"
    );
    assert_eq!(
        handled.get(&id(&events[3])),
        Some(&1),
        "unavailable comes back"
    );
    let letter = |n: usize| {
        let wanted = id(&events[n]);
        fleet
            .dead("probe-service")
            .into_iter()
            .find(|letter| letter["id"] == wanted)
            .unwrap()
    };
    assert_eq!(letter(1)["reason"], "rejected");
    assert_eq!(fleet.starts(&events[1]).unwrap(), 1);
    assert_eq!(letter(2)["reason"], "exhausted");
    assert!(letter(2)["error"].contains("panicked: told to panic"));
    assert!(
        letter(4)["error"].contains("used as a string and as a hash")
            || letter(4)["error"].contains("is a hash")
    );
    assert_eq!(handled.len(), 3);
}

/// I6: infrastructure charges nobody.
#[test]
fn unavailable_charges_no_attempt() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let worker = fleet.worker("probe-service", "w");
    let unavailable = event(json!({"do": "unavailable once"}));
    fleet.publish(std::slice::from_ref(&unavailable));
    worker.wait_for_log("told to be unavailable");
    eventually("it is handled", || {
        fleet
            .handled("probe-service")
            .get(&id(&unavailable))
            .copied()
    });
    fleet.drained();
    assert!(fleet.dead("probe-service").is_empty());
    assert!(
        worker.log_text().contains("\"charged\":false"),
        "no failure was recorded"
    );
}

#[test]
fn a_handler_that_takes_too_long_has_failed() {
    let fleet = Fleet::new();
    fleet.configure(&crate::support::fleet::ROUTING.replace("timeout: 20s", "timeout: 100ms"));
    let _router = fleet.router("r");
    let _worker = fleet.worker("probe-service", "w");
    fleet.publish(&[event(json!({"do": "sleep", "ms": 5000}))]);
    let dead = eventually("a dead letter", || fleet.dead("probe-service").pop());
    assert_eq!(dead["reason"], "exhausted");
    assert!(
        dead["error"].contains("timed out after 100ms"),
        "{}",
        dead["error"]
    );
}

/// One that never comes back costs threads, and nothing else: it has failed after its timeout, its
/// neighbours are handled, and a stop does not wait for it.
#[test]
fn a_handler_that_blocks_for_good_has_failed_and_holds_up_nobody() {
    let fleet = Fleet::new();
    fleet.configure(&crate::support::fleet::ROUTING.replace("timeout: 20s", "timeout: 300ms"));
    let _router = fleet.router("r");
    let mut command = fleet.worker_command("probe-service", "w", &fleet.server.url());
    command.env("TOKIO_WORKER_THREADS", "8");
    let mut worker = fleet.launch(command, "w", "worker started");
    fleet.publish(&[event(json!({"do": "block", "ms": 600_000}))]);
    let dead = eventually("a dead letter", || fleet.dead("probe-service").pop());
    assert_eq!(dead["reason"], "exhausted");
    let neighbours: Vec<_> = (0..20).map(|_| event(json!({}))).collect();
    fleet.publish(&neighbours);
    fleet.handles_each_once("probe-service", neighbours.len());
    worker.signal("TERM");
    assert_eq!(worker.exit_code(), Some(0));
}

/// Where nothing but a retry keeps a thread, nobody else may be awake to see that its time is up.
#[test]
fn a_retry_that_blocks_for_good_on_a_quiet_worker_has_failed() {
    let fleet = Fleet::new();
    fleet.configure(&crate::support::fleet::ROUTING.replace("timeout: 20s", "timeout: 300ms"));
    let _router = fleet.router("r");
    let mut command = fleet.worker_command("probe-service", "w", &fleet.server.url());
    command.env("TOKIO_WORKER_THREADS", "4");
    let mut worker = fleet.launch(command, "w", "worker started");
    fleet.publish(&[event(json!({"do": "fail, then block", "ms": 600_000}))]);
    let dead = eventually("a dead letter", || fleet.dead("probe-service").pop());
    assert_eq!(dead["reason"], "exhausted");
    worker.signal("TERM");
    assert_eq!(worker.exit_code(), Some(0));
}

/// What was read together with one that blocks: what had ended before it is settled, and what
/// comes after it is handled, on whatever threads are left; also when more of them block than
/// there are lanes at first.
#[test]
fn those_that_were_read_with_one_that_blocks_are_handled_meanwhile() {
    let fleet = Fleet::new();
    fleet.configure(&crate::support::fleet::ROUTING.replace("concurrency: 8", "concurrency: 100"));
    let _router = fleet.router("r");
    let (ordinary, blocks) = (
        || event(json!({})),
        || event(json!({"do": "block", "ms": 600_000})),
    );
    let mut events: Vec<_> = (0..30).map(|_| ordinary()).collect();
    events.insert(20, blocks());
    events.insert(10, blocks());
    fleet.publish(&events);
    eventually("all are routed", || {
        (fleet.cli::<usize>("XLEN test-events") == events.len()).then_some(())
    });
    let mut command = fleet.worker_command("probe-service", "w", &fleet.server.url());
    command.env("TOKIO_WORKER_THREADS", "4");
    let mut worker = fleet.launch(command, "w", "worker started");
    eventually("only those that block are still owed", || {
        let pending = fleet
            .connection()
            .xpending("test-events", "probe-service")
            .unwrap();
        let count: redis::streams::StreamPendingReply = pending;
        (count.count() == 2 && fleet.handled("probe-service").len() == 30).then_some(())
    });
    worker.signal("TERM");
    worker.wait_for_log("stopping");
    worker.signal("TERM");
    assert_eq!(worker.exit_code(), Some(0));
}

/// A handler may run longer than the lease: it is renewed, also when it blocks its thread.
#[test]
fn a_long_handler_keeps_its_delivery() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let _workers = [
        fleet.worker("probe-service", "a"),
        fleet.worker("probe-service", "b"),
    ];
    let events = [
        event(json!({"do": "sleep", "ms": 3500})),
        event(json!({"do": "block", "ms": 3500})),
    ];
    fleet.publish(&events);
    eventually("both are handled", || {
        (fleet.handled("probe-service").len() == 2).then_some(())
    });
    fleet.drained();
    for one in &events {
        assert_eq!(fleet.starts(one).unwrap(), 1, "started once");
    }
}

#[test]
fn conflicting_commits_are_run_again_until_each_has_counted_once() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let _workers = [
        fleet.worker("probe-service", "a"),
        fleet.worker("probe-service", "b"),
    ];
    let events: Vec<_> = (0..40)
        .map(|_| event(json!({"do": "read and add", "ms": 2})))
        .collect();
    fleet.publish(&events);
    eventually("all are handled", || {
        (fleet.handled("probe-service").len() == 40).then_some(())
    });
    fleet.drained();
    assert_eq!(fleet.cli::<u64>("GET probe-service:sum"), 40);
    assert!(
        fleet.dead("probe-service").is_empty(),
        "a conflict charges nobody"
    );
}

/// I5: follow-ups exist if and only if their parent committed.
#[test]
fn a_follow_up_exists_only_with_its_parent() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let _workers = [
        fleet.worker("probe-service", "w"),
        fleet.worker("other-service", "o"),
    ];
    let events = [
        event(json!({"do": "follow"})),
        event(json!({"do": "follow and fail"})),
    ];
    fleet.publish(&events);
    eventually("the failing one is dead", || {
        fleet.dead("probe-service").pop()
    });
    eventually("the follow-up is handled", || {
        (!fleet.handled("other-service").is_empty()).then_some(())
    });
    fleet.drained();
    assert_eq!(fleet.handled("other-service").len(), 1);
    let entries: redis::streams::StreamRangeReply =
        fleet.connection().xrange_all("test-events").unwrap();
    let follow_up = &entries.ids.last().unwrap().map;
    let json: String = redis::from_redis_value(follow_up["event"].clone()).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["causation_id"], events[0]["event_id"]);
    assert_eq!(json["correlation_id"], events[0]["correlation_id"]);
    let hops: String = redis::from_redis_value(follow_up["hops"].clone()).unwrap();
    assert_eq!(hops, "1");
}

#[test]
fn a_loop_of_follow_ups_ends_at_the_hop_limit() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let _worker = fleet.worker("probe-service", "w");
    fleet.publish(&[event(json!({"do": "loop"}))]);
    let refused = eventually("the router refuses", || fleet.dead("router").pop());
    fleet.drained();
    assert_eq!(refused["reason"], "too_many_hops");
    assert_eq!(
        fleet.handled("probe-service").len(),
        33,
        "the first and 32 follow-ups"
    );
}

#[test]
fn an_undecodable_entry_is_set_aside_and_its_batch_goes_on() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let _: String =
        fleet.cli("XADD test-events * to probe-service type Test.Happened event {broken");
    let _: String = fleet.cli("XADD test-events * foreign entry");
    let _worker = fleet.worker("probe-service", "w");
    let fine = event(json!({}));
    fleet.publish(std::slice::from_ref(&fine));
    eventually("two dead letters", || {
        (fleet.dead("probe-service").len() == 2).then_some(())
    });
    fleet.drained();
    assert!(
        fleet
            .dead("probe-service")
            .iter()
            .all(|letter| letter["reason"] == "undecodable")
    );
    assert_eq!(fleet.handled("probe-service"), [(id(&fine), 1)].into());
}

/// With one slot and two streams, what waits for the slot is held like what runs in it.
#[test]
fn what_waits_for_a_slot_is_not_taken_away() {
    let fleet = Fleet::new();
    fleet.configure(
        &crate::support::fleet::ROUTING
            .replace("concurrency: 8", "concurrency: 1")
            .replace(
                "More.Happened: [other-service]",
                "More.Happened: [probe-service]",
            ),
    );
    let _router = fleet.router("r");
    let long = event(json!({"do": "sleep", "ms": 2500}));
    let waiting = crate::support::fleet::typed("More.Happened", json!({}));
    fleet.publish(&[long.clone(), waiting.clone()]);
    eventually("both are routed", || {
        (fleet.cli::<usize>("XLEN test-events") + fleet.cli::<usize>("XLEN more-events") == 2)
            .then_some(())
    });
    let first = fleet.worker("probe-service", "a");
    eventually("the long one is started", || fleet.starts(&long));
    let _second = fleet.worker("probe-service", "b");
    eventually("both are handled", || {
        (fleet.handled("probe-service").len() == 2).then_some(())
    });
    for one in [&long, &waiting] {
        assert_eq!(fleet.starts(one).unwrap(), 1);
    }
    assert!(!first.log_text().contains("came too late"));
}

/// I1: what a handler asked for before it failed has not happened.
#[test]
fn the_effects_of_a_failed_attempt_do_not_exist() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let _worker = fleet.worker("probe-service", "w");
    fleet.publish(&[event(json!({"do": "add and fail"}))]);
    eventually("a dead letter", || fleet.dead("probe-service").pop());
    fleet.drained();
    assert!(fleet.handled("probe-service").is_empty());
}

#[test]
fn every_attempt_has_the_same_idempotency_key() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let _worker = fleet.worker("probe-service", "w");
    let told = event(json!({"do": "tell its key"}));
    fleet.publish(std::slice::from_ref(&told));
    eventually("the third attempt succeeds", || {
        fleet.handled("probe-service").get(&id(&told)).copied()
    });
    assert_eq!(fleet.starts(&told), Some(3));
    let keys: Vec<String> = fleet.cli("SMEMBERS keys");
    assert_eq!(keys, [format!("probe-service:{}", id(&told))]);
}

#[test]
fn a_retry_waits_for_its_backoff() {
    let fleet = Fleet::new();
    fleet.configure(
        &crate::support::fleet::ROUTING
            .replace("initial: 50ms, max: 200ms", "initial: 1h, max: 1h"),
    );
    let _router = fleet.router("r");
    let _worker = fleet.worker("probe-service", "w");
    let (seconds, _): (u64, u64) = fleet.cli("TIME");
    fleet.publish(&[event(json!({"do": "fail"}))]);
    let due = eventually("it is parked", || {
        let record: std::collections::BTreeMap<String, String> =
            fleet.cli("HGETALL attempts:test-events:probe-service");
        let due = record.into_iter().find(|(name, _)| name.ends_with(":due"));
        due.map(|(_, due)| due.parse::<u64>().unwrap())
    });
    assert!(
        due >= (seconds + 3600) * 1000,
        "{due}, published at {seconds} s"
    );
}

/// A lease is renewed even when every thread of the process is taken.
#[test]
fn handlers_that_block_every_thread_keep_their_deliveries() {
    let threads = std::thread::available_parallelism().unwrap().get();
    let fleet = Fleet::new();
    let slots = format!("concurrency: {}", threads * 8);
    fleet.configure(&crate::support::fleet::ROUTING.replace("concurrency: 8", &slots));
    let _router = fleet.router("r");
    let events: Vec<_> = (0..threads * 2)
        .map(|_| event(json!({"do": "block", "ms": 2000})))
        .collect();
    fleet.publish(&events);
    eventually("all are routed", || {
        (fleet.cli::<usize>("XLEN test-events") == events.len()).then_some(())
    });
    let _blocked = fleet.worker("probe-service", "a");
    eventually("every thread is taken", || {
        (fleet.started() >= threads).then_some(())
    });
    let _other = fleet.worker("probe-service", "b");
    fleet.handles_each_once("probe-service", events.len());
    for one in &events {
        assert_eq!(fleet.starts(one), Some(1), "started once");
    }
}
