//! route, of what is to be delivered later: it waits in `scheduled`, and leaves the inbox.

use streamfleet::store::{RouteCounts, Routed};

use super::route::{append, counts, counts_of_routed, counts_of_scheduled, later};
use super::*;

#[tokio::test]
async fn what_is_to_be_delivered_later_waits_and_leaves_the_inbox() {
    let mut b = Bench::inbox(3).await;
    let batch = [
        (fence(1, 1), later("e1")),
        (fence(2, 1), append("e2", "c")),
        (fence(3, 1), later("e3")),
    ];
    let routed = RouteCounts {
        scheduled: 2,
        ..counts_of_routed(1)
    };
    assert_eq!(b.try_route_as(&batch, true).await.unwrap(), routed);
    assert_eq!(b.show("scheduled"), "e1=4000000000000 e3=4000000000000");
    assert_eq!(b.show("scheduled:events"), "e1=3 c { }, e3=3 c { }");
    assert_eq!(b.entries("order-events").len(), 1);
    assert_eq!((b.ids("inbox").len(), b.owed()), (0, 0));
    assert_eq!(b.show("seen:7"), "e1=c, e2=c, e3=c");
    assert_eq!(b.show("stats:router"), "routed=1, scheduled=2");
    assert!((50_000..=60_000).contains(&b.cli::<i64>("PTTL seen:7")));
    let before = b.snapshot();
    assert_eq!(b.route(&batch).await, counts(0, 0, 0, 0, 3));
    assert_eq!(b.snapshot(), before, "sent again");
}

/// Also after its mark as seen has expired: what waits is not overwritten.
#[tokio::test]
async fn what_waits_already_is_a_duplicate_or_a_conflict() {
    for forgotten in [false, true] {
        let mut b = Bench::inbox(4).await;
        assert_eq!(
            b.route(&[(fence(1, 1), later("e1"))]).await,
            counts_of_scheduled(1)
        );
        if forgotten {
            b.run("DEL seen:7");
        }
        let waiting = [b.show("scheduled"), b.show("scheduled:events")];
        let mut other = later("e1");
        if let Routed::Schedule {
            content, due_ms, ..
        } = &mut other
        {
            *content = "d".into();
            *due_ms = 1;
        }
        let batch = [(fence(2, 1), later("e1")), (fence(3, 1), other)];
        assert_eq!(b.route(&batch).await, counts(0, 1, 1, 0, 0));
        assert_eq!([b.show("scheduled"), b.show("scheduled:events")], waiting);
        assert_eq!(b.ids("dead:router").len(), 1);
    }
}

#[tokio::test]
async fn a_batch_that_cannot_be_kept_for_later_is_stopped_before_anything_is_written() {
    let mut b = Bench::inbox(2).await;
    let batch = [(fence(1, 1), append("e1", "c")), (fence(2, 1), later("e2"))];
    for (key, other) in [("scheduled", "SET"), ("scheduled:events", "SET")] {
        b.run(&format!("{other} {key} wrong"));
        let before = b.snapshot();
        let error = b.try_route(&batch).await.unwrap_err();
        assert_eq!(error.code(), Some("WRONGTYPE"), "{error}");
        assert!(error.to_string().contains(key), "{error}");
        assert_eq!(b.snapshot(), before, "{key}");
        b.run(&format!("DEL {key}"));
    }
    let before = b.snapshot();
    for right in ["ZADD", "HGET"] {
        b.rights(&format!("-{}", right.to_lowercase()));
        let refused = b.try_route(&batch).await.unwrap_err().to_string();
        assert!(refused.contains(right), "{refused}");
        b.rights("+@all");
        assert_eq!(b.snapshot(), before, "{right}");
    }
    // What is routed at once needs none of this.
    b.rights("-zadd -hget");
    b.run("SET scheduled wrong");
    assert_eq!(b.route(&batch[..1]).await, counts_of_routed(1));
}
