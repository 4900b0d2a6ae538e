//! due, deliver, refuse_due, cancel_scheduled: a scheduled event leaves once, to one place.

use streamfleet::store::{
    Deliver, Due, DueEvents, RefuseDue, ScheduledKeys, cancel_scheduled, deliver, due_events,
    list_scheduled, refuse_due,
};

use super::route::{SCHEDULED, SEEN};
use super::*;

const FAR: u64 = 4_000_000_000_000;
const KEYS: ScheduledKeys<'_> = ScheduledKeys {
    scheduled: SCHEDULED,
    stats: "stats:router",
    audit: None,
    now: "2026-01-01T00:00:00Z",
};
const AUDITED: ScheduledKeys<'_> = ScheduledKeys {
    audit: Some("audit"),
    ..KEYS
};

fn ids(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

fn deliveries(events: &[(&str, u32)]) -> Vec<Deliver> {
    let delivery = |&(id, hops): &(&str, u32)| Deliver {
        id: id.as_bytes().to_vec(),
        event_type: "Order.Created".into(),
        to: "x-service,y-service".into(),
        hops,
        event: b"{}".to_vec(),
        source: (hops > 0).then(|| "x-service".to_owned()),
    };
    events.iter().map(delivery).collect()
}

impl Bench {
    /// Events by due time, each with these bytes.
    async fn scheduled(events: &[(&str, u64, &str)]) -> Self {
        let bench = Self::empty().await;
        for (id, due, kept) in events {
            bench.run(&format!("ZADD scheduled {due} {id}"));
            let mut connection = bench.connection();
            let set = redis::cmd("HSET")
                .arg("scheduled:events")
                .arg(id)
                .arg(kept)
                .clone();
            set.exec(&mut connection).unwrap();
        }
        bench
    }

    async fn due(&mut self, most: usize, bytes: usize) -> DueEvents {
        let due = due_events(&mut self.redis, SCHEDULED, most, bytes).await;
        due.unwrap()
    }

    async fn deliver(&mut self, events: &[(&str, u32)]) -> redis::RedisResult<u64> {
        self.deliver_as(KEYS, events).await
    }

    async fn deliver_as(
        &mut self,
        keys: ScheduledKeys<'_>,
        events: &[(&str, u32)],
    ) -> redis::RedisResult<u64> {
        deliver(&mut self.redis, keys, "order-events", &deliveries(events)).await
    }

    async fn refuse(&mut self, names: &[&str]) -> redis::RedisResult<u64> {
        self.refuse_as(KEYS, names).await
    }

    async fn refuse_as(
        &mut self,
        keys: ScheduledKeys<'_>,
        names: &[&str],
    ) -> redis::RedisResult<u64> {
        let letter = fields(&[("reason", "expired"), ("event", "?")]);
        let events: Vec<_> = ids(names)
            .into_iter()
            .map(|id| RefuseDue {
                id,
                letter: letter.clone(),
                source: Some("x-service".into()),
            })
            .collect();
        let seen = SEEN.map(String::from);
        refuse_due(&mut self.redis, keys, "dead:router", &seen, &events).await
    }
}

fn names(due: &DueEvents) -> Vec<String> {
    let name = |due: &Due| String::from_utf8(due.id.clone()).unwrap();
    due.events.iter().map(name).collect()
}

#[tokio::test]
async fn what_is_due_is_found_oldest_first_and_in_bounded_pieces() {
    let mut b = Bench::empty().await;
    let none = b.due(9, 99).await;
    assert_eq!((none.next_ms, none.events.len()), (None, 0));

    let events = [
        ("c", 3_000, "0 h {\"n\": 3}"),
        ("a", 1_000, "2 h {\"n\": 1}"),
        ("z", FAR, "0 h {}"),
        ("b", 2_000, "{}"),
    ];
    let mut b = Bench::scheduled(&events).await;
    b.run("ZADD scheduled 2500 deleted");
    let before = b.snapshot();
    let due = b.due(9, 1_000).await;
    assert_eq!(names(&due), ["a", "b", "deleted", "c"]);
    assert_eq!(due.next_ms, Some(FAR));
    assert!(due.now_ms > 1_700_000_000_000 && due.now_ms < FAR);
    let kept: Vec<_> = due.events.iter().map(|due| due.kept.clone()).collect();
    let expected = [
        Some((2, b"{\"n\": 1}".to_vec())),
        Some((0, b"{}".to_vec())),
        None,
        Some((0, b"{\"n\": 3}".to_vec())),
    ];
    assert_eq!(kept, expected);

    for (most, bytes, found, next) in [
        (2, 1_000, 2, 2_500),
        (9, 1, 1, 2_000),  // the first, however large
        (9, 14, 3, 3_000), // a, b, and what has no bytes
    ] {
        let due = b.due(most, bytes).await;
        assert_eq!(
            (due.events.len(), due.next_ms),
            (found, Some(next)),
            "{most} {bytes}"
        );
    }
    let listed = list_scheduled(&mut b.redis, SCHEDULED, 3, 9).await.unwrap();
    let listed: Vec<_> = listed.into_iter().map(|(due, at)| (due.id, at)).collect();
    assert_eq!(listed, [(b"c".to_vec(), 3_000), (b"z".to_vec(), FAR)]);
    assert_eq!(b.snapshot(), before, "looking changes nothing");
}

#[tokio::test]
async fn a_due_event_is_moved_once_and_a_cancelled_one_never() {
    let mut b = Bench::scheduled(&[("e1", 1, "0 c {}"), ("e2", 1, "2 c {}")]).await;
    let batch = [("e1", 0), ("cancelled", 0), ("e2", 2)];
    assert_eq!(b.deliver(&batch).await.unwrap(), 2);
    assert_eq!(
        b.entries("order-events"),
        [
            "id=e1 type=Order.Created to=x-service,y-service event={}",
            "id=e2 type=Order.Created to=x-service,y-service event={} hops=2"
        ]
    );
    assert_eq!(
        [b.show("scheduled"), b.show("scheduled:events")],
        ["", ""].map(String::from)
    );
    assert_eq!(b.show("stats:router"), "routed=2");
    let before = b.snapshot();
    assert_eq!(b.deliver(&batch).await.unwrap(), 0);
    assert_eq!(b.snapshot(), before, "sent again");
}

/// And is forgotten as seen, so that a redrive is not taken for a duplicate.
#[tokio::test]
async fn a_refused_event_becomes_one_letter() {
    let mut b = Bench::scheduled(&[("e1", 1, "0 c {}"), ("e2", 1, "0 c {}")]).await;
    b.run("HSET seen:6 e1 c e2 c");
    assert_eq!(b.refuse(&["e1", "cancelled"]).await.unwrap(), 1);
    assert_eq!(b.entries("dead:router"), ["reason=expired event=?"]);
    assert_eq!(
        [
            b.show("scheduled"),
            b.show("seen:6"),
            b.show("stats:router")
        ],
        ["e2=1", "e2=c", "refused=1"].map(String::from)
    );
    let before = b.snapshot();
    assert_eq!(b.refuse(&["e1"]).await.unwrap(), 0);
    assert_eq!(b.snapshot(), before, "sent again");
}

#[tokio::test]
async fn cancelling_says_what_was_there() {
    let mut b = Bench::scheduled(&[("e1", FAR, "0 c {}"), ("e2", FAR, "0 c {}")]).await;
    let asked = ids(&["e2", "nobody", "e2"]);
    let cancelled = cancel_scheduled(&mut b.redis, SCHEDULED, &asked).await;
    assert_eq!(cancelled.unwrap(), [true, false, false]);
    assert_eq!(b.show("scheduled"), "e1=4000000000000");
    assert_eq!(b.show("scheduled:events"), "e1=0 c {}");
}

#[tokio::test]
async fn wrong_keys_missing_rights_and_a_full_redis_stop_them_before_anything_is_written() {
    let mut b = Bench::scheduled(&[("e1", 1, "0 c {}")]).await;
    let batch = [("e1", 0)];
    for key in ["order-events", "dead:router", "stats:router", "seen:5"] {
        b.run(&format!("SET {key} wrong"));
        let before = b.snapshot();
        if key != "dead:router" && key != "seen:5" {
            let error = b.deliver(&batch).await.unwrap_err();
            assert_eq!(error.code(), Some("WRONGTYPE"), "{error}");
        }
        if key != "order-events" {
            let error = b.refuse(&["e1"]).await.unwrap_err();
            assert_eq!(error.code(), Some("WRONGTYPE"), "{error}");
        }
        assert_eq!(b.snapshot(), before, "{key}");
        b.run(&format!("DEL {key}"));
    }
    let before = b.snapshot();
    for right in ["ZREM", "HDEL", "HINCRBY", "XADD"] {
        b.rights(&format!("-{}", right.to_lowercase()));
        let refused = b.deliver(&batch).await.unwrap_err().to_string();
        assert!(refused.contains(right), "{refused}");
        let refused = b.refuse(&["e1"]).await.unwrap_err().to_string();
        assert!(refused.contains(right), "{refused}");
        if right == "ZREM" || right == "HDEL" {
            let asked = ids(&["e1"]);
            let refused = cancel_scheduled(&mut b.redis, SCHEDULED, &asked).await;
            assert!(refused.unwrap_err().to_string().contains(right));
        }
        b.rights("+@all");
        assert_eq!(b.snapshot(), before, "{right}");
    }
    b.run("CONFIG SET maxmemory 1");
    let full = b.deliver(&batch).await.unwrap_err();
    assert_eq!(full.code(), Some("OOM"));
    assert_eq!(b.snapshot(), before);
    let asked = ids(&["e1"]);
    let cancelled = cancel_scheduled(&mut b.redis, SCHEDULED, &asked).await;
    assert_eq!(cancelled.unwrap(), [true], "it frees memory");
}

#[tokio::test]
async fn what_is_audited_is_recorded_when_it_moves_and_only_then() {
    let mut b = Bench::scheduled(&[
        ("e1", 1, "0 c {}"),
        ("e2", 1, "2 c {}"),
        ("e3", 1, "0 c {}"),
    ])
    .await;
    b.run("SET audit wrong");
    let before = b.snapshot();
    for refused in [
        b.deliver_as(AUDITED, &[("e1", 0)]).await,
        b.refuse_as(AUDITED, &["e3"]).await,
    ] {
        assert_eq!(refused.unwrap_err().code(), Some("WRONGTYPE"));
    }
    assert_eq!(b.snapshot(), before);
    b.run("DEL audit");
    let batch = [("e1", 0), ("cancelled", 0), ("e2", 2)];
    assert_eq!(b.deliver_as(AUDITED, &batch).await.unwrap(), 2);
    assert_eq!(b.refuse_as(AUDITED, &["e3", "cancelled"]).await.unwrap(), 1);
    let at = "at=2026-01-01T00:00:00Z";
    let expected = [
        format!("id=e1 type=Order.Created {at} outcome=routed stream=order-events"),
        format!(
            "id=e2 type=Order.Created source=x-service {at} outcome=routed stream=order-events"
        ),
        format!("source=x-service {at} outcome=refused:expired stream=dead:router"),
    ];
    assert_eq!(b.entries("audit"), expected);
}
