//! ensure_group and retire_group: created once, never recreated by themselves, retired by consent.

use streamfleet::store::{
    Ensure, GroupState, HealthNote, Retired, ensure_group, join_fleet, note_health, retire_group,
};

use super::*;

const FIELD: &str = "group:order-events:x-service";

impl Bench {
    async fn ensure(&mut self, start: &str, lease: u64, how: Ensure) -> GroupState {
        let (me, redis) = (&self.me, &mut self.redis);
        ensure_group(redis, "fleet", me, FIELD, start, lease, how)
            .await
            .unwrap()
    }

    async fn retire(&mut self, give_up: bool) -> Retired {
        retire_group(&mut self.redis, "fleet", &self.me, FIELD, give_up)
            .await
            .unwrap()
    }

    fn record(&self) -> String {
        self.cli(&format!("HGET fleet {FIELD}"))
    }

    fn last_delivered(&self) -> String {
        let groups: Vec<BTreeMap<String, redis::Value>> =
            self.cli(&format!("XINFO GROUPS {STREAM}"));
        String::from_redis_value(groups[0]["last-delivered-id"].clone()).unwrap()
    }
}

#[tokio::test]
async fn a_new_group_is_created_with_its_stream_and_recorded() {
    let mut b = Bench::empty().await;
    assert_eq!(
        b.ensure("0", LEASE, Ensure::Create).await,
        GroupState::Created
    );
    assert_eq!(b.cli::<u64>(&format!("XLEN {STREAM}")), 0);
    assert_eq!(
        (b.record(), b.last_delivered()),
        ("30000:0-0".into(), "0-0".into())
    );
}

#[tokio::test]
async fn a_group_starts_where_it_was_told_and_remembers_when_it_joined() {
    for (start, last_delivered) in [("$", "5-0"), ("0", "0-0"), ("3-0", "3-0")] {
        let mut b = Bench::empty().await;
        b.add(1..=5);
        b.ensure(start, LEASE, Ensure::Create).await;
        assert_eq!(
            (b.record(), b.last_delivered()),
            ("30000:5-0".into(), last_delivered.into()),
            "{start}"
        );
    }
}

#[tokio::test]
async fn a_group_that_exists_keeps_its_place_and_its_lease_only_grows() {
    let mut b = Bench::pending(2).await;
    assert_eq!(
        b.ensure("$", LEASE, Ensure::Create).await,
        GroupState::Exists,
        "made by hand"
    );
    b.add([3]);
    for (lease, record) in [(5_000, "30000:2-0"), (60_000, "60000:2-0")] {
        let state = b.ensure("$", lease, Ensure::Create).await;
        assert_eq!(state, GroupState::Exists);
        assert_eq!(
            (b.record(), b.last_delivered()),
            (record.into(), "2-0".into())
        );
    }
}

#[tokio::test]
async fn a_lost_group_is_not_recreated_by_itself() {
    let mut b = Bench::empty().await;
    b.add(1..=2);
    b.ensure("0", LEASE, Ensure::Create).await;
    for loss in [
        format!("XGROUP DESTROY {STREAM} {GROUP}"),
        format!("DEL {STREAM}"),
    ] {
        b.run(&loss);
        let before = b.snapshot();
        assert_eq!(
            b.ensure("0", LEASE, Ensure::Create).await,
            GroupState::Lost,
            "{loss}"
        );
        assert_eq!(b.snapshot(), before);
    }
}

#[tokio::test]
async fn the_operator_recreates_a_lost_group_and_what_was_routed_to_it_still_is() {
    let mut b = Bench::empty().await;
    b.ensure("0", LEASE, Ensure::Create).await;
    b.run(&format!("XGROUP DESTROY {STREAM} {GROUP}"));
    b.run(&format!("HSET {ATTEMPTS} 1-0 [1] 1-0:claimed 2"));
    b.add(1..=4);
    assert_eq!(
        b.ensure("2-0", LEASE, Ensure::Recreate).await,
        GroupState::Created
    );
    assert_eq!(
        b.show(ATTEMPTS),
        "",
        "it was about deliveries that are no more"
    );
    assert_eq!(
        (b.record(), b.last_delivered()),
        ("30000:0-0".into(), "2-0".into())
    );
}

#[tokio::test]
async fn recreating_a_group_that_is_there_changes_nothing() {
    let mut b = Bench::empty().await;
    b.ensure("0", LEASE, Ensure::Create).await;
    b.run(&format!("HSET {ATTEMPTS} 1-0 [1]"));
    b.add(1..=4);
    assert_eq!(
        b.ensure("$", LEASE, Ensure::Recreate).await,
        GroupState::Exists
    );
    assert_eq!(b.show(ATTEMPTS), "1-0=[1]");
    assert_eq!(
        (b.record(), b.last_delivered()),
        ("30000:0-0".into(), "0-0".into())
    );
}

#[tokio::test]
async fn a_start_that_is_no_id_creates_nothing() {
    let mut b = Bench::empty().await;
    let answer = ensure_group(
        &mut b.redis,
        "fleet",
        &b.me,
        FIELD,
        "soon",
        LEASE,
        Ensure::Create,
    )
    .await;
    assert!(answer.is_err());
    assert!(b.snapshot().is_empty());
}

#[tokio::test]
async fn a_group_that_owes_is_retired_only_by_consent() {
    let undelivered = Bench::pending(1).await;
    undelivered.run(&format!("XACK {STREAM} {GROUP} 1-0"));
    undelivered.add([2]);
    for mut b in [Bench::pending(1).await, undelivered] {
        b.ensure("0", LEASE, Ensure::Create).await;
        b.run(&format!("HSET {ATTEMPTS} 1-0 [1]"));
        let before = b.snapshot();
        assert_eq!(b.retire(false).await, Retired::Owes);
        assert_eq!(b.snapshot(), before);
        assert_eq!(b.retire(true).await, Retired::Done);
        assert_eq!(
            (b.show("fleet"), b.show(ATTEMPTS)),
            (String::new(), String::new())
        );
        assert!(
            b.cli::<Vec<redis::Value>>(&format!("XINFO GROUPS {STREAM}"))
                .is_empty()
        );
        assert!(
            b.cli::<u64>(&format!("XLEN {STREAM}")) > 0,
            "the history stays"
        );
    }
}

#[tokio::test]
async fn a_settled_a_lost_and_an_absent_group() {
    let mut b = Bench::pending(1).await;
    b.ensure("0", LEASE, Ensure::Create).await;
    b.run(&format!("XACK {STREAM} {GROUP} 1-0"));
    assert_eq!(b.retire(false).await, Retired::Done);
    assert_eq!(b.retire(false).await, Retired::Absent);
    assert_eq!(
        b.ensure("0", LEASE, Ensure::Create).await,
        GroupState::Created,
        "retired, not lost"
    );
    b.run(&format!("DEL {STREAM}"));
    assert_eq!(b.retire(false).await, Retired::Done, "its record goes");
    assert!(b.snapshot().is_empty());
}

/// Else no worker could start to drain a Redis that is full.
#[tokio::test]
async fn joining_works_when_redis_is_full() {
    let mut b = Bench::pending(1).await;
    b.run("CONFIG SET maxmemory 1");
    let joined = join_fleet(&mut b.redis, "fleet", "d1", "a").await.unwrap();
    assert_eq!(joined.generation, 1);
    assert_eq!(
        b.ensure("0", LEASE, Ensure::Create).await,
        GroupState::Exists
    );
    let settled = ack_one(&b.me, &mut b.redis, (fence(1, 1), false)).await;
    assert_eq!(settled, Settled::Done);
}

#[tokio::test]
async fn a_look_creates_nothing_and_tells_retired_from_lost() {
    let mut b = Bench::empty().await;
    assert_eq!(
        b.ensure("$", LEASE, Ensure::Look).await,
        GroupState::Retired
    );
    assert!(b.snapshot().is_empty());
    b.ensure("0", LEASE, Ensure::Create).await;
    assert_eq!(b.ensure("$", LEASE, Ensure::Look).await, GroupState::Exists);
    b.run(&format!("XGROUP DESTROY {STREAM} {GROUP}"));
    assert_eq!(b.ensure("$", LEASE, Ensure::Look).await, GroupState::Lost);
}

#[tokio::test]
async fn what_is_not_well_is_noted_and_told_by_one() {
    let mut b = Bench::empty().await;
    let note = |before: &str, after: &str, event: &str| HealthNote {
        field: "health:x-service:workers".to_owned(),
        before: before.to_owned(),
        after: after.to_owned(),
        event: event.into(),
    };
    let table = [
        (note("", "5", ""), true, Some("5"), 0),
        (note("", "6", ""), false, Some("5"), 0),
        (note("5", "5:9", "{}"), true, Some("5:9"), 1),
        (note("5", "5:9", "{}"), false, Some("5:9"), 1),
        (note("5:9", "", ""), true, None, 1),
        (note("5:9", "", ""), false, None, 1),
    ];
    for (note, noted, mark, told) in table {
        let did = note_health(&mut b.redis, "fleet", "inbox", &note).await;
        assert_eq!(did.unwrap(), noted, "{note:?}");
        let found: Option<String> = b.cli("HGET fleet health:x-service:workers");
        assert_eq!(found.as_deref(), mark, "{note:?}");
        assert_eq!(b.cli::<u64>("XLEN inbox"), told, "{note:?}");
    }
    b.run("SET other x");
    let before = b.snapshot();
    let refused = note_health(&mut b.redis, "fleet", "other", &note("", "1:2", "{}")).await;
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("key other is a string")
    );
    assert_eq!(b.snapshot(), before);
}
