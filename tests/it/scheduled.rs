//! Scheduled delivery: an event arrives when it is due, once, by the routes of then.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use redis::Commands;
use serde_json::{Value, json};

use crate::support::fleet::{ROUTING, id, typed};
use crate::support::{Fleet, event, eventually};

/// An event that is due in so many milliseconds.
pub fn later(mut event: Value, ms: i64) -> Value {
    let due = Timestamp::now() + SignedDuration::from_millis(ms);
    event["deliver_at"] = json!(due);
    event
}

fn due_ms(event: &Value) -> u64 {
    let due: Timestamp = event["deliver_at"].as_str().unwrap().parse().unwrap();
    due.as_millisecond() as u64
}

/// When (by the clock of Redis) each event entered a stream: its ID, and the entry's time.
fn arrivals(fleet: &Fleet, stream: &str) -> Vec<(String, u64)> {
    let reply: redis::streams::StreamRangeReply = fleet.connection().xrange_all(stream).unwrap();
    let arrival = |entry: &redis::streams::StreamId| {
        let event = redis::from_redis_value(entry.map["id"].clone()).unwrap();
        let ms = entry.id.split_once('-').unwrap().0.parse().unwrap();
        (event, ms)
    };
    reply.ids.iter().map(arrival).collect()
}

fn scheduled(fleet: &Fleet) -> (u64, u64) {
    (
        fleet.cli("ZCARD scheduled"),
        fleet.cli("HLEN scheduled:events"),
    )
}

fn wait_until_scheduled(fleet: &Fleet, events: u64) {
    eventually("they are scheduled", || {
        (scheduled(fleet) == (events, events)).then_some(())
    });
}

#[test]
fn an_event_arrives_within_a_second_of_its_time_and_not_before() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let _worker = fleet.worker("probe-service", "w");
    let events: Vec<_> = [2_500, 1_200, 1_800, 40]
        .iter()
        .map(|ms| later(event(json!({})), *ms))
        .collect();
    let at_once = event(json!({}));
    fleet.publish(&events);
    fleet.publish(&events[..1]); // a duplicate
    fleet.publish(&[at_once.clone(), later(event(json!({})), -5_000)]);
    eventually("the others are handled", || {
        (fleet.handled("probe-service").len() >= 2).then_some(())
    });
    assert!(fleet.handled("probe-service").contains_key(&id(&at_once)));
    fleet.handles_each_once("probe-service", 6);
    assert_eq!(scheduled(&fleet), (0, 0));
    let arrived = arrivals(&fleet, "test-events");
    for event in &events {
        let mut at = arrived.iter().filter(|(found, _)| *found == id(event));
        let at = at.next().unwrap().1;
        let due = due_ms(event);
        assert!(
            (due..due + 1_000).contains(&at),
            "due at {due}, arrived at {at}"
        );
    }
    assert_eq!(arrived.len(), 6);
    assert_eq!(fleet.cli::<u64>("HGET stats:router duplicates"), 1);
    assert_eq!(fleet.cli::<u64>("HGET stats:router routed"), 6);
    let sent: Vec<Value> = {
        let reply: redis::streams::StreamRangeReply =
            fleet.connection().xrange_all("test-events").unwrap();
        let bytes = |entry: &redis::streams::StreamId| {
            redis::from_redis_value::<Vec<u8>>(entry.map["event"].clone()).unwrap()
        };
        let read = |entry| serde_json::from_slice(&bytes(entry)).unwrap();
        reply.ids.iter().map(read).collect()
    };
    assert!(
        events.iter().all(|event| sent.contains(event)),
        "as it was sent"
    );
}

#[test]
fn an_event_survives_the_death_of_router_and_redis_before_it_is_due() {
    let fleet = Fleet::new();
    let mut router = fleet.router("r");
    let _worker = fleet.worker("probe-service", "w");
    let events = [
        later(event(json!({})), 1_500),
        later(event(json!({})), 1_600),
    ];
    fleet.publish(&events);
    wait_until_scheduled(&fleet, 2);
    router.child.kill().unwrap();
    router.child.wait().unwrap();
    fleet.server.kill();
    fleet.server.run();
    assert_eq!(scheduled(&fleet), (2, 2));
    std::thread::sleep(Duration::from_millis(1_700)); // past their time, with no router
    assert_eq!(fleet.handled("probe-service").len(), 0);
    let _router = fleet.router("r");
    fleet.handles_each_once("probe-service", 2);
    assert_eq!(scheduled(&fleet), (0, 0));
}

/// A backlog in batches, by two routers, each event once.
#[test]
fn two_routers_deliver_ten_thousand_due_events_once() {
    const EVENTS: usize = 10_000;
    let fleet = Fleet::new();
    let mut pipeline = redis::pipe();
    for n in 0..EVENTS {
        let event = event(json!({"n": n}));
        pipeline.zadd("scheduled", id(&event), 1_000 + n).ignore();
        let kept = format!("0 hash {event}");
        pipeline.hset("scheduled:events", id(&event), kept).ignore();
    }
    pipeline.exec(&mut fleet.connection()).unwrap();
    let _routers = [fleet.start_router("a"), fleet.start_router("b")];
    eventually("all are delivered", || {
        (scheduled(&fleet) == (0, 0)).then_some(())
    });
    let arrived = arrivals(&fleet, "test-events");
    let distinct: BTreeSet<_> = arrived.iter().map(|(id, _)| id).collect();
    assert_eq!((arrived.len(), distinct.len()), (EVENTS, EVENTS));
    assert_eq!(fleet.cli::<usize>("HGET stats:router routed"), EVENTS);
}

/// Who gets it, and whether anyone may, is decided when it is due. What is refused then can be
/// redriven like what is refused at the door.
#[test]
fn the_routes_of_the_day_it_is_due_decide() {
    let fleet = Fleet::new();
    let router = fleet.router("r");
    let (moved, refused) = (
        later(event(json!({})), 4_000),
        later(typed("More.Happened", json!({})), 4_000),
    );
    fleet.publish(&[moved.clone(), refused.clone()]);
    wait_until_scheduled(&fleet, 2);
    let routing = ROUTING.replace(
        "Test.Happened: [probe-service]",
        "Test.Happened: [other-service]",
    );
    let more = "  more-events: { events: [\"More.**\"] }\n";
    let without_more = routing
        .replace(more, "")
        .replace("  More.Happened: [other-service]\n", "");
    fleet.configure(&without_more);
    router.wait_for_log("is in force");
    assert_eq!(scheduled(&fleet), (2, 2), "not due yet");
    let letter = eventually("one is refused", || fleet.dead("router").pop());
    assert_eq!(
        [&letter["reason"], &letter["id"], &letter["stream"]],
        ["unknown_type", &id(&refused), "scheduled"]
    );
    assert_eq!(letter["entry"], id(&refused));
    eventually("the other is delivered", || {
        (scheduled(&fleet) == (0, 0)).then_some(())
    });
    let entries: redis::streams::StreamRangeReply =
        fleet.connection().xrange_all("test-events").unwrap();
    let to: String = redis::from_redis_value(entries.ids[0].map["to"].clone()).unwrap();
    assert_eq!((entries.ids.len(), to.as_str()), (1, "other-service"));

    fleet.configure(&routing);
    eventually("the type is known again", || {
        (router.log_text().matches("is in force").count() == 2).then_some(())
    });
    fleet.ask(&["dead", "redrive", "--all"]).ok();
    eventually("it is delivered after all", || {
        (arrivals(&fleet, "more-events").len() == 1).then_some(())
    });
}

#[test]
fn a_stream_that_is_not_a_stream_holds_up_only_what_is_its_own() {
    let fleet = Fleet::new();
    let router = fleet.router("r");
    let (stuck, other) = (
        later(typed("More.Happened", json!({})), 800),
        later(event(json!({})), 900),
    );
    let _: () = fleet.cli("RENAME more-events aside");
    let _: () = fleet.cli("SET more-events oops");
    fleet.publish(&[stuck.clone(), other]);
    eventually("the other is delivered", || {
        (arrivals(&fleet, "test-events").len() == 1).then_some(())
    });
    router.wait_for_log("HALTED for these scheduled events");
    assert!(
        router
            .log_text()
            .contains("key more-events is a string, expected a stream")
    );
    assert_eq!(scheduled(&fleet), (1, 1), "it is not lost");
    let _: u64 = fleet.cli("DEL more-events");
    let _: () = fleet.cli("RENAME aside more-events");
    // It would be tried again in 20 s.
    let _: u64 = fleet.cli(&format!("ZADD scheduled XX CH 1 {}", id(&stuck)));
    eventually("it is delivered after all", || {
        (arrivals(&fleet, "more-events").len() == 1 && scheduled(&fleet) == (0, 0)).then_some(())
    });
}

/// A deadline that a handler sets, and another cancels: with their commits, or not at all.
#[test]
fn handlers_schedule_and_cancel_with_their_commit() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let _workers = [
        fleet.worker("probe-service", "p"),
        fleet.worker("other-service", "o"),
    ];
    let schedule = |ms: u64| {
        let asked = event(json!({"do": "schedule", "ms": ms}));
        let before: Option<String> = fleet.cli("GET probe-service:scheduled");
        fleet.publish(&[asked.clone()]);
        let deadline = eventually("it is scheduled", || {
            let id: Option<String> = fleet.cli("GET probe-service:scheduled");
            let id = id.filter(|id| Some(id) != before.as_ref())?;
            let waits: Option<f64> = fleet.cli(&format!("ZSCORE scheduled {id}"));
            waits.map(|_| id)
        });
        (asked, deadline)
    };
    let (_, deadline) = schedule(60_000);
    let kept: String = fleet.cli(&format!("HGET scheduled:events {deadline}"));
    assert!(
        kept.starts_with("1 "),
        "it is a follow-up, one hop from its cause: {kept}"
    );
    fleet.publish(&[event(json!({"do": "cancel and reject", "text": deadline}))]);
    eventually("the handler has rejected", || {
        fleet.dead("probe-service").pop()
    });
    assert_eq!(scheduled(&fleet), (1, 1), "nothing of it happened");
    let cancel = event(json!({"do": "cancel", "text": deadline}));
    fleet.publish(&[cancel.clone()]);
    eventually("the handler has committed", || {
        fleet.handled("probe-service").get(&id(&cancel)).copied()
    });
    assert_eq!(scheduled(&fleet), (0, 0));

    let (asked, deadline) = schedule(1_000);
    eventually("it is handled when it is due", || {
        fleet.handled("other-service").get(&deadline).copied()
    });
    let log: redis::streams::StreamRangeReply =
        fleet.connection().xrange_all("other-service:log").unwrap();
    let parent: String = redis::from_redis_value(log.ids[0].map["parent"].clone()).unwrap();
    assert_eq!((log.ids.len(), parent), (1, id(&asked)));
    // Too late, and harmless.
    let late = event(json!({"do": "cancel", "text": deadline}));
    fleet.publish(&[late.clone()]);
    eventually("cancelling does nothing", || {
        fleet.handled("probe-service").get(&id(&late)).copied()
    });
    fleet.drained();
    assert_eq!(fleet.handled("other-service").len(), 1);
}

#[test]
fn the_namespace_comes_before_every_key() {
    let fleet = Fleet::new();
    fleet.configure(&ROUTING.replace("version: 1", "version: 1\nnamespace: shop"));
    let _router = fleet.router("r");
    let events = [
        later(event(json!({})), 700),
        later(event(json!({})), 60_000),
    ];
    for event in &events {
        let _: String = fleet
            .connection()
            .xadd("shop:inbox", "*", &[("event", event.to_string())])
            .unwrap();
    }
    eventually("one is delivered, one waits", || {
        let waits: (u64, u64) = (
            fleet.cli("ZCARD shop:scheduled"),
            fleet.cli("HLEN shop:scheduled:events"),
        );
        (arrivals(&fleet, "shop:test-events").len() == 1 && waits == (1, 1)).then_some(())
    });
    let keys: Vec<String> = fleet.cli("KEYS *");
    assert!(keys.iter().all(|key| key.starts_with("shop:")), "{keys:?}");
    let listed = fleet.ask(&["scheduled", "list", "--output", "json"]).json();
    assert_eq!(listed["event_id"], id(&events[1]));
}
