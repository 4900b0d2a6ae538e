//! route, when it is audited: a record of each entry, in the step that settles it.

use streamfleet::store::{Audit, RouteCounts, Routed};

use super::route::{append, counts, counts_of_routed, later};
use super::*;

/// What became of each entry, in the same step; of what was not ours, nothing.
#[tokio::test]
async fn an_audited_batch_leaves_a_record_of_each_entry() {
    let mut b = Bench::inbox(7).await;
    b.run(&format!("XCLAIM inbox router {OTHER} 0 7-0 JUSTID"));
    let letter = fields(&[
        ("id", "e9"),
        ("type", "No.Type"),
        ("event", "?"),
        ("reason", "unknown_type"),
        ("x:id", "another"),
    ]);
    let batch = [
        (fence(1, 1), append("e1", "c")),
        (fence(2, 1), later("e2")),
        (fence(3, 1), append("e1", "c")),
        (fence(4, 1), append("e1", "d")),
        (fence(5, 1), Routed::Dead(letter)),
        (
            fence(6, 1),
            Routed::Dead(fields(&[("reason", "invalid_json")])),
        ),
        (fence(7, 1), append("e7", "c")),
    ];
    let sources: Vec<_> = ["web", "app", "", "web", "erp", "", "web"]
        .iter()
        .map(|source| (!source.is_empty()).then(|| (*source).to_owned()))
        .collect();
    let audit = Some(Audit {
        stream: "audit",
        sources: &sources,
    });
    let routed = RouteCounts {
        scheduled: 1,
        ..counts(1, 1, 1, 2, 1)
    };
    let done = b.try_route_audited(&batch, true, audit).await.unwrap();
    assert_eq!(done, routed);
    let at = "at=2026-01-01T00:00:00Z";
    let expected = [
        format!("id=e1 type=Order.Created source=web {at} outcome=routed stream=order-events"),
        format!("id=e2 type=Order.Created source=app {at} outcome=scheduled stream=scheduled"),
        format!("id=e1 type=Order.Created {at} outcome=duplicate"),
        format!(
            "id=e1 type=Order.Created source=web {at} outcome=refused:event_id_conflict stream=dead:router"
        ),
        format!(
            "id=e9 type=No.Type source=erp {at} outcome=refused:unknown_type stream=dead:router"
        ),
        format!("{at} outcome=refused:invalid_json stream=dead:router"),
    ];
    assert_eq!(b.entries("audit"), expected);
    let before = b.snapshot();
    let again = b.try_route_audited(&batch, true, audit).await.unwrap();
    assert_eq!(again, counts(0, 0, 0, 0, 7));
    assert_eq!(b.snapshot(), before, "sent again");
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_routed() {
    let mut b = Bench::inbox(1).await;
    b.run("SET audit wrong");
    let before = b.snapshot();
    let batch = [(fence(1, 1), append("e1", "c"))];
    let audit = Some(Audit {
        stream: "audit",
        sources: &[None],
    });
    let error = b.try_route_audited(&batch, false, audit).await.unwrap_err();
    assert_eq!(error.code(), Some("WRONGTYPE"));
    assert_eq!(b.snapshot(), before);
    assert_eq!(b.route(&batch).await, counts_of_routed(1), "not audited");
}
