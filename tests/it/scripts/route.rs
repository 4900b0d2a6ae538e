//! route: each entry of the inbox ends in one place, and leaves the inbox in the same step.

use streamfleet::store::{Audit, RouteBatch, RouteCounts, Routed, Scope, route};

use super::*;

pub(super) const SEEN: [&str; 3] = ["seen:7", "seen:6", "seen:5"];
pub(super) const TARGETS: [&str; 2] = ["order-events", "user-events"];
pub(super) const SCHEDULED: [&str; 2] = ["scheduled", "scheduled:events"];

impl Bench {
    /// An inbox whose entries 1-0 to n-0 are delivered to us.
    pub(super) async fn inbox(n: u64) -> Self {
        let mut bench = Self::empty().await;
        bench.me.stream = "inbox".into();
        bench.me.attempts = "attempts:inbox:router".into();
        bench.me.stats = "stats:router".into();
        bench.me.group = "router".into();
        bench.run("XGROUP CREATE inbox router 0 MKSTREAM");
        (1..=n).for_each(|id| bench.run(&format!("XADD inbox {id}-0 event {{}}")));
        bench.run(&format!(
            "XREADGROUP GROUP router {ME} COUNT {n} STREAMS inbox >"
        ));
        bench
    }

    pub(super) async fn try_route(
        &mut self,
        entries: &[(Fence, Routed)],
    ) -> redis::RedisResult<RouteCounts> {
        self.try_route_as(entries, false).await
    }

    pub(super) async fn try_route_as(
        &mut self,
        entries: &[(Fence, Routed)],
        contiguous: bool,
    ) -> redis::RedisResult<RouteCounts> {
        self.try_route_audited(entries, contiguous, None).await
    }

    pub(super) async fn try_route_audited(
        &mut self,
        entries: &[(Fence, Routed)],
        contiguous: bool,
        audit: Option<Audit<'_>>,
    ) -> redis::RedisResult<RouteCounts> {
        let (seen, targets) = (SEEN.map(String::from), TARGETS.map(String::from));
        let batch = RouteBatch {
            inbox: &self.me,
            dead: "dead:router",
            seen: &seen,
            seen_ttl_ms: 60_000,
            targets: &targets,
            scheduled: SCHEDULED,
            now: "2026-01-01T00:00:00Z",
            entries,
            contiguous,
            audit,
        };
        route(&mut self.redis, &batch).await
    }

    pub(super) async fn route(&mut self, entries: &[(Fence, Routed)]) -> RouteCounts {
        self.try_route(entries).await.unwrap()
    }

    pub(super) fn owed(&self) -> u64 {
        let (pending, ..): (u64, redis::Value, redis::Value, redis::Value) =
            self.cli("XPENDING inbox router");
        pending
    }
}

/// Event `event_id` with some content, to the first target.
pub(super) fn append(event_id: &str, content: &str) -> Routed {
    Routed::Append {
        event_id: event_id.into(),
        content: content.into(),
        target: 0,
        event_type: "Order.Created".into(),
        to: "x-service,y-service".into(),
        hops: 0,
        event: b"{}".to_vec(),
    }
}

pub(super) fn follow_up(event_id: &str, to_target: usize) -> Routed {
    match append(event_id, "c") {
        Routed::Append {
            event_id,
            content,
            event_type,
            to,
            event,
            ..
        } => Routed::Append {
            event_id,
            content,
            target: to_target,
            event_type,
            to,
            hops: 2,
            event,
        },
        dead => dead,
    }
}

/// An event of content `c` that is due in the far future.
pub(super) fn later(event_id: &str) -> Routed {
    Routed::Schedule {
        event_id: event_id.into(),
        content: "c".into(),
        event_type: "Order.Created".into(),
        due_ms: 4_000_000_000_000,
        hops: 3,
        event: b"{ }".to_vec(),
    }
}

pub(super) fn refusal() -> Routed {
    Routed::Dead(fields(&[("reason", "unknown_type"), ("event", "?")]))
}

pub(super) fn counts(
    routed: u64,
    duplicates: u64,
    conflicts: u64,
    refused: u64,
    fenced: u64,
) -> RouteCounts {
    RouteCounts {
        routed,
        duplicates,
        conflicts,
        refused,
        fenced,
        scheduled: 0,
    }
}

pub(super) fn counts_of_scheduled(n: u64) -> RouteCounts {
    RouteCounts {
        scheduled: n,
        ..counts(0, 0, 0, 0, 0)
    }
}

#[tokio::test]
async fn events_are_routed_with_their_fields_and_leave_the_inbox() {
    let mut b = Bench::inbox(2).await;
    let batch = [
        (fence(1, 1), append("e1", "c1")),
        (fence(2, 1), follow_up("e2", 1)),
    ];
    assert_eq!(b.route(&batch).await, counts(2, 0, 0, 0, 0));
    assert_eq!(
        b.entries("order-events"),
        ["id=e1 type=Order.Created to=x-service,y-service event={}"]
    );
    assert_eq!(
        b.entries("user-events"),
        ["id=e2 type=Order.Created to=x-service,y-service event={} hops=2"]
    );
    assert_eq!((b.ids("inbox").len(), b.owed()), (0, 0));
    assert_eq!(b.show("seen:7"), "e1=c1, e2=c");
    assert_eq!(b.show("stats:router"), "routed=2");
}

/// Cutting the head of the inbox off takes nothing along that was not routed.
#[tokio::test]
async fn a_contiguous_batch_leaves_the_inbox_and_nothing_else_does() {
    let batch = [
        (fence(2, 1), append("e2", "c")),
        (fence(3, 1), append("e3", "c")),
    ];
    for (settled_before, left) in [(true, vec!["4-0"]), (false, vec!["1-0", "4-0"])] {
        let mut b = Bench::inbox(4).await;
        if settled_before {
            b.route(&[(fence(1, 1), append("e1", "c"))]).await;
        }
        let counts = b.try_route_as(&batch, true).await.unwrap();
        assert_eq!(counts, counts_of_routed(2));
        assert_eq!(
            (b.ids("inbox"), b.owed() as usize),
            (left.iter().map(ToString::to_string).collect(), left.len())
        );
    }
}

/// Neither what another router holds between its entries, nor what was never in the batch.
#[tokio::test]
async fn what_lies_between_stays_in_the_inbox() {
    let entry = |id: u64| (fence(id, 1), append(&format!("e{id}"), "c"));
    let mut b = Bench::inbox(3).await;
    b.run(&format!("XCLAIM inbox router {OTHER} 0 2-0 JUSTID"));
    let batch = [entry(1), entry(2), entry(3)];
    let routed = b.try_route_as(&batch, true).await.unwrap();
    assert_eq!(routed, counts(2, 0, 0, 0, 1));
    assert_eq!((b.ids("inbox"), b.owed()), (vec!["2-0".into()], 1));

    let mut b = Bench::inbox(3).await;
    assert_eq!(b.route(&[entry(1), entry(3)]).await, counts_of_routed(2));
    assert_eq!((b.ids("inbox"), b.owed()), (vec!["2-0".into()], 1));
}

pub(super) fn counts_of_routed(n: u64) -> RouteCounts {
    counts(n, 0, 0, 0, 0)
}

/// What was routed already left the inbox, whether it is the first of a batch or another.
#[tokio::test]
async fn of_a_batch_that_was_partly_routed_only_the_rest_is() {
    let entry = |n: u64| (fence(n, 1), append(&format!("e{n}"), "c"));
    for settled in [1, 2] {
        let mut b = Bench::inbox(4).await;
        b.route(&[entry(settled)]).await;
        let batch = [entry(1), entry(2), entry(3)];
        assert_eq!(b.route(&batch).await, counts(2, 0, 0, 0, 1));
        assert_eq!((b.ids("order-events").len(), b.owed()), (3, 1));
        assert_eq!(b.ids("inbox"), ["4-0"]);
        assert_eq!(b.show("stats:router"), "routed=3");
    }
}

#[tokio::test]
async fn a_conflict_that_is_sent_again_leaves_one_letter() {
    let mut b = Bench::inbox(3).await;
    b.run("HSET seen:6 e1 c1");
    let batch = [
        (fence(1, 1), append("e1", "c2")),
        (fence(2, 1), append("e2", "c")),
    ];
    assert_eq!(b.route(&batch[..1]).await, counts(0, 0, 1, 0, 0));
    assert_eq!(b.route(&batch).await, counts(1, 0, 0, 0, 1));
    assert_eq!(b.ids("dead:router").len(), 1);
    assert_eq!(b.show("stats:router"), "refused=1, routed=1");
}

#[tokio::test]
async fn a_bucket_lives_from_its_first_event_on() {
    let mut b = Bench::inbox(2).await;
    b.route(&[(fence(1, 1), append("e1", "c"))]).await;
    assert!((50_000..=60_000).contains(&b.cli::<i64>("PTTL seen:7")));
    b.run("PEXPIRE seen:7 20000");
    b.route(&[(fence(2, 1), append("e2", "c"))]).await;
    assert!(
        b.cli::<i64>("PTTL seen:7") <= 20_000,
        "its life is not prolonged"
    );
}

#[tokio::test]
async fn a_duplicate_is_dropped_and_counted_whichever_bucket_remembers_it() {
    for bucket in SEEN {
        let mut b = Bench::inbox(1).await;
        b.run(&format!("HSET {bucket} e1 c1"));
        let before = b.show(bucket);
        assert_eq!(
            b.route(&[(fence(1, 1), append("e1", "c1"))]).await,
            counts(0, 1, 0, 0, 0)
        );
        assert_eq!(
            (b.ids("inbox").len(), b.ids("order-events").len(), b.owed()),
            (0, 0, 0)
        );
        assert_eq!(
            (b.show(bucket), b.show("stats:router")),
            (before, "duplicates=1".into())
        );
    }
}

#[tokio::test]
async fn duplicates_and_conflicts_within_one_batch_are_found() {
    let mut b = Bench::inbox(3).await;
    let batch = [append("e1", "c1"), append("e1", "c1"), append("e1", "c2")];
    let batch: Vec<_> = (1..).map(|id| fence(id, 1)).zip(batch).collect();
    assert_eq!(b.route(&batch).await, counts(1, 1, 1, 0, 0));
    assert_eq!(
        (b.ids("order-events").len(), b.ids("dead:router").len()),
        (1, 1)
    );
    assert_eq!(b.show("seen:7"), "e1=c1");
    assert_eq!(b.show("stats:router"), "duplicates=1, refused=1, routed=1");
}

#[tokio::test]
async fn another_event_under_a_known_id_becomes_a_dead_letter_with_its_reason() {
    let mut b = Bench::inbox(1).await;
    b.run("HSET seen:6 e1 c1");
    assert_eq!(
        b.route(&[(fence(1, 1), append("e1", "c2"))]).await,
        counts(0, 0, 1, 0, 0)
    );
    let letter = &b.entries("dead:router")[0];
    for part in [
        "id=e1",
        "event={}",
        "stream=inbox entry=1-0",
        "reason=event_id_conflict",
        "died=2026-01-01T00:00:00Z",
    ] {
        assert!(letter.contains(part), "{part} in {letter}");
    }
    assert_eq!(
        (b.show("seen:7"), b.show("seen:6"), b.owed()),
        (String::new(), "e1=c1".into(), 0)
    );
}

#[tokio::test]
async fn a_refused_entry_becomes_a_letter_and_is_not_marked_as_seen() {
    let mut b = Bench::inbox(2).await;
    let batch = [(fence(1, 1), refusal()), (fence(2, 1), append("e2", "c"))];
    assert_eq!(b.route(&batch).await, counts(1, 0, 0, 1, 0));
    assert_eq!(b.entries("dead:router"), ["reason=unknown_type event=?"]);
    assert_eq!(
        (b.show("seen:7"), b.ids("inbox").len(), b.owed()),
        ("e2=c".into(), 0, 0)
    );
    assert_eq!(b.show("stats:router"), "refused=1, routed=1");
}

#[tokio::test]
async fn what_another_router_has_is_left_alone() {
    let mut b = Bench::inbox(4).await;
    b.run(&format!("XCLAIM inbox router {OTHER} 0 1-0 JUSTID"));
    b.run("XCLAIM inbox router retry 0 2-0 JUSTID");
    b.run("XACK inbox router 4-0");
    let batch: Vec<_> = [(1, 1), (2, 1), (3, 2), (4, 1)]
        .map(|(id, count)| (fence(id, count), append(&format!("e{id}"), "c")))
        .into();
    let before = b.snapshot();
    assert_eq!(b.route(&batch).await, counts(0, 0, 0, 0, 4));
    assert_eq!(b.snapshot(), before);
    let batch = [batch[0].clone(), (fence(3, 1), append("e3", "c"))];
    assert_eq!(b.route(&batch).await, counts(1, 0, 0, 0, 1));
    assert_eq!(
        (b.ids("inbox"), b.show("seen:7")),
        (
            vec!["1-0".into(), "2-0".into(), "4-0".into()],
            "e3=c".into()
        )
    );
}

#[tokio::test]
async fn a_batch_that_is_sent_again_changes_nothing() {
    let mut b = Bench::inbox(2).await;
    let batch = [(fence(1, 1), append("e1", "c")), (fence(2, 1), refusal())];
    b.route(&batch).await;
    let before = b.snapshot();
    assert_eq!(b.route(&batch).await, counts(0, 0, 0, 0, 2));
    assert_eq!(b.snapshot(), before);
}

#[tokio::test]
async fn the_record_of_a_reclaimed_entry_goes_with_it() {
    let mut b = Bench::inbox(1).await;
    b.run("XCLAIM inbox router dead.33333333 0 1-0 IDLE 60000 JUSTID");
    b.run("HSET attempts:inbox:router 1-0:starts 0");
    let claimed =
        b.me.reclaim(&mut b.redis, Scope::All, LEASE, 9)
            .await
            .unwrap()
            .claimed;
    b.route(&[(claimed[0].fence, append("e1", "c"))]).await;
    assert_eq!(b.show("attempts:inbox:router"), "");
}

#[tokio::test]
async fn a_key_of_the_wrong_type_stops_the_batch_before_anything_is_written() {
    for key in [
        "user-events",
        "dead:router",
        "seen:7",
        "seen:5",
        "stats:router",
        "attempts:inbox:router",
    ] {
        let mut b = Bench::inbox(2).await;
        b.run(&format!("SET {key} wrong"));
        let before = b.snapshot();
        let batch = [
            (fence(1, 1), append("e1", "c")),
            (fence(2, 1), follow_up("e2", 1)),
        ];
        let error = b.try_route(&batch).await.unwrap_err();
        assert_eq!(error.code(), Some("WRONGTYPE"), "{error}");
        assert_eq!(b.snapshot(), before, "{key}");
    }
}

#[tokio::test]
async fn a_missing_right_stops_the_batch_before_anything_is_written() {
    let mut b = Bench::inbox(1).await;
    let batch = [(fence(1, 1), append("e1", "c"))];
    let before = b.snapshot();
    for right in [
        "XACK", "XDEL", "XTRIM", "XRANGE", "XADD", "HSET", "HDEL", "HINCRBY", "PTTL", "PEXPIRE",
    ] {
        b.rights(&format!("-{}", right.to_lowercase()));
        let refused = b.try_route(&batch).await.unwrap_err().to_string();
        assert!(refused.contains(right), "{refused}");
        b.rights("+@all");
        assert_eq!(b.snapshot(), before, "{right}");
    }
    assert_eq!(b.route(&batch).await, counts_of_routed(1));
}

#[tokio::test]
async fn a_letter_with_too_many_fields_stops_the_batch_before_anything_is_written() {
    let mut b = Bench::inbox(2).await;
    let large = Fields(vec![(b"n".to_vec(), b"v".to_vec()); 4_500]);
    let batch = [
        (fence(1, 1), append("e1", "c")),
        (fence(2, 1), Routed::Dead(large)),
    ];
    let before = b.snapshot();
    assert!(b.try_route(&batch).await.is_err());
    assert_eq!(b.snapshot(), before);
}

/// New work makes Redis grow: what is left of its memory is for settling.
#[tokio::test]
async fn nothing_is_routed_when_redis_is_full() {
    let mut b = Bench::inbox(1).await;
    b.run("CONFIG SET maxmemory 1");
    let before = b.snapshot();
    let error = b.try_route(&[(fence(1, 1), append("e1", "c"))]).await;
    assert_eq!(error.unwrap_err().code(), Some("OOM"));
    assert_eq!(b.snapshot(), before);
}
