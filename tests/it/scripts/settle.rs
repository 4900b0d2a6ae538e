//! ack, retry_later, release, renew; and that a fenced settle changes nothing.

use std::time::Duration;

use streamfleet::store::{
    AckCounts, Committed, Holder, Parked, RELEASED, RETRY, Scope,
    Settled::{self, *},
};

use super::commit::Request;
use super::*;

fn parked(id: u64, count: u64, delay_ms: u64, log: &str) -> Parked {
    Parked {
        fence: fence(id, count),
        delay_ms,
        log: log.into(),
        starts: None,
    }
}

#[tokio::test]
async fn ack_settles_what_is_held_and_nothing_else() {
    let mut b = Bench::pending(4).await;
    b.run(&format!("XACK {STREAM} {GROUP} 2-0"));
    b.give(OTHER, 0, [3]);
    let batch = [fence(1, 1), fence(2, 1), fence(3, 1), fence(4, 2)].map(|f| (f, false));
    assert_eq!(
        b.me.ack(&mut b.redis, &batch).await.unwrap(),
        AckCounts {
            done: 1,
            gone: 1,
            fenced: 2
        }
    );
    assert_eq!(b.held_by(1), None);
    assert_eq!(b.held_by(3), Some((OTHER.into(), 1)));
    assert_eq!(b.held_by(4), Some((ME.into(), 1)));
    assert_eq!(b.ids(STREAM).len(), 4, "settled entries stay as history");
}

#[tokio::test]
async fn ack_on_a_redrive_stream_deletes_what_it_settled() {
    let mut b = Bench::pending(2).await;
    b.me.delete_settled = true;
    b.give(OTHER, 0, [2]);
    let batch = [(fence(1, 1), false), (fence(2, 1), false)];
    b.me.ack(&mut b.redis, &batch).await.unwrap();
    assert_eq!(b.ids(STREAM), ["2-0"]);
}

/// Where a consumer holds all there is, deliveries are not asked for one by one; what it claimed
/// anew in between is another delivery all the same.
#[tokio::test]
async fn where_one_holds_all_an_old_delivery_is_fenced_and_a_settled_one_gone() {
    let mut b = Bench::pending(4).await;
    let batch = [fence(1, 1), fence(2, 1)].map(|f| (f, false));
    b.run(&format!("XACK {STREAM} {GROUP} 2-0"));
    let counts = b.me.ack(&mut b.redis, &batch).await.unwrap();
    assert_eq!((counts.done, counts.gone, counts.fenced), (1, 1, 0));

    b.give(ME, LEASE, [3]);
    let claimed = b.me.reclaim(&mut b.redis, Scope::All, LEASE, 1).await;
    assert_eq!(claimed.unwrap().claimed[0].fence.id, fence(3, 1).id);
    let before = b.snapshot();
    let old = ack_one(&b.me, &mut b.redis, (fence(3, 1), false)).await;
    let request = Request::default().effect("SET x-service:a 1").encode();
    let committed = commit_one(&b.me, &mut b.redis, (fence(3, 1), false), request).await;
    assert_eq!(
        (old, committed.unwrap()),
        (Fenced, Committed::Settled(Fenced))
    );
    assert_eq!(b.snapshot(), before);
}

#[tokio::test]
async fn ack_clears_the_record_of_the_troubled_only() {
    let mut b = Bench::pending(2).await;
    b.run(&format!(
        "HSET {ATTEMPTS} 1-0 log 1-0:starts 1 1-0:due 5 2-0 log 2-0:starts 1"
    ));
    b.me.ack(&mut b.redis, &[(fence(1, 1), true), (fence(2, 1), false)])
        .await
        .unwrap();
    assert_eq!(b.show(ATTEMPTS), "2-0:starts=1, 2-0=log");
}

#[tokio::test]
async fn ack_takes_more_deliveries_than_lua_takes_arguments() {
    let mut b = Bench::pending(0).await;
    let mut adds = redis::pipe();
    for id in 1..=9000 {
        adds.add_command(words(&format!("XADD {STREAM} {id}-0 event {{}}")));
    }
    adds.exec(&mut b.connection()).unwrap();
    b.read(ME, 9000);
    let batch: Vec<_> = (1..=9000).map(|id| (fence(id, 1), true)).collect();
    let counts = b.me.ack(&mut b.redis, &batch).await.unwrap();
    assert_eq!(counts.done, 9000);
}

#[tokio::test]
async fn a_retry_is_found_exactly_when_it_is_due() {
    let mut b = Bench::pending(1).await;
    let settled =
        b.me.retry_later(&mut b.redis, LEASE, &[parked(1, 1, 300, "[1]")])
            .await;
    assert_eq!(settled.unwrap(), [Done]);
    let (owner, idle, count) = b.owner(1).unwrap();
    assert_eq!(
        (owner.as_str(), count),
        (RETRY, 1),
        "the delivery count is not lowered"
    );
    assert!((LEASE - 300..LEASE - 100).contains(&idle), "{idle}");
    let due: u64 = b.cli(&format!("HGET {ATTEMPTS} 1-0:due"));
    let before = b.snapshot();
    assert!(
        b.me.reclaim(&mut b.redis, Scope::All, LEASE, 9)
            .await
            .unwrap()
            .claimed
            .is_empty()
    );
    assert_eq!(b.snapshot(), before, "not yet due: untouched");

    let claim = async {
        loop {
            let claimed =
                b.me.reclaim(&mut b.redis, Scope::All, LEASE, 9)
                    .await
                    .unwrap()
                    .claimed;
            if let Some(claimed) = claimed.into_iter().next() {
                break claimed;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let claimed = tokio::time::timeout(Duration::from_secs(10), claim)
        .await
        .unwrap();
    let (seconds, micros): (u64, u64) = b.cli("TIME");
    let late = (seconds * 1000 + micros / 1000)
        .checked_sub(due)
        .expect("not before it is due");
    assert!(late < 2_000, "{late} ms late");
    assert_eq!(
        (claimed.starts, claimed.log.as_str()),
        (None, "[1]"),
        "unmarked, with its log"
    );
    assert_eq!(b.show(ATTEMPTS), "1-0:claimed=2, 1-0=[1]");
}

#[tokio::test]
async fn a_retry_without_a_failure_keeps_the_log() {
    let mut b = Bench::pending(1).await;
    b.run(&format!("HSET {ATTEMPTS} 1-0 [1] 1-0:starts 1"));
    b.me.retry_later(&mut b.redis, LEASE, &[parked(1, 1, 50, "")])
        .await
        .unwrap();
    assert_eq!(b.cli::<String>(&format!("HGET {ATTEMPTS} 1-0")), "[1]");
    assert_eq!(b.cli::<u64>(&format!("HGET {ATTEMPTS} 1-0:starts")), 1);
}

#[tokio::test]
async fn a_delay_longer_than_the_lease_is_parked_again() {
    let mut b = Bench::pending(1).await;
    let long = [parked(1, 1, 3 * LEASE, "[1]")];
    b.me.retry_later(&mut b.redis, LEASE, &long).await.unwrap();
    let record = b.show(ATTEMPTS);
    b.give(RETRY, LEASE, [1]); // a lease later
    assert!(
        b.me.reclaim(&mut b.redis, Scope::All, LEASE, 9)
            .await
            .unwrap()
            .claimed
            .is_empty()
    );
    let (owner, idle, count) = b.owner(1).unwrap();
    assert_eq!((owner.as_str(), count), (RETRY, 1));
    assert!(idle < 1_000, "{idle}");
    assert_eq!(b.show(ATTEMPTS), record, "log and due time are kept");
}

#[tokio::test]
async fn a_retry_of_a_deleted_entry_is_counted_as_lost() {
    let mut b = Bench::pending(1).await;
    b.run(&format!("XDEL {STREAM} 1-0"));
    b.run(&format!("HSET {ATTEMPTS} 1-0 [1]"));
    let settled =
        b.me.retry_later(&mut b.redis, LEASE, &[parked(1, 1, 50, "[1]")])
            .await;
    assert_eq!(settled.unwrap(), [Lost]);
    assert_eq!((b.held_by(1), b.show(ATTEMPTS)), (None, String::new()));
    assert_eq!(b.show(STATS), "lost=1");
}

#[tokio::test]
async fn released_deliveries_are_claimed_at_once_and_uncharged() {
    let mut b = Bench::pending(2).await;
    b.run(&format!("HSET {ATTEMPTS} 1-0 [1] 1-0:starts 1"));
    let settled =
        b.me.release(&mut b.redis, &[(fence(1, 1), None), (fence(2, 1), None)])
            .await
            .unwrap();
    assert_eq!(settled, [Done, Done]);
    assert_eq!(b.held_by(1), Some((RELEASED.into(), 1)));
    let other = Holder {
        consumer: OTHER.into(),
        ..b.me.clone()
    };
    let claimed = other
        .reclaim(&mut b.redis, Scope::All, 3_600_000, 9)
        .await
        .unwrap()
        .claimed;
    let seen: Vec<_> = claimed
        .iter()
        .map(|c| (c.fence, c.starts, c.log.as_str()))
        .collect();
    assert_eq!(
        seen,
        [(fence(1, 2), Some(1), "[1]"), (fence(2, 2), None, "")]
    );
    assert_eq!(
        b.show(ATTEMPTS),
        "1-0:claimed=2, 1-0:starts=1, 1-0=[1], 2-0:claimed=2",
        "no more than was there, and that they were claimed"
    );
}

#[tokio::test]
async fn renewing_restarts_the_lease_and_keeps_the_count() {
    let mut b = Bench::pending(3).await;
    b.give(ME, 20_000, [1, 2]);
    b.give(OTHER, 20_000, [3]);
    let fences = [fence(1, 1), fence(2, 7), fence(3, 1), fence(4, 1)];
    let answers = b.me.renew(&mut b.redis, &fences).await.unwrap();
    assert_eq!(answers, [Done, Fenced, Fenced, Gone]);
    let (owner, idle, count) = b.owner(1).unwrap();
    assert_eq!((owner.as_str(), count), (ME, 1));
    assert!(idle < 10_000, "{idle}");
    for fenced in [2, 3] {
        assert!(b.owner(fenced).unwrap().1 >= 20_000, "{fenced}");
    }
}

#[tokio::test]
async fn renewing_a_deleted_entry_counts_it_as_lost() {
    let mut b = Bench::pending(1).await;
    b.run(&format!("XDEL {STREAM} 1-0"));
    b.run(&format!("HSET {ATTEMPTS} 1-0:starts 1"));
    assert_eq!(
        b.me.renew(&mut b.redis, &[fence(1, 1)]).await.unwrap(),
        [Lost]
    );
    assert_eq!(
        (b.show(STATS), b.show(ATTEMPTS)),
        ("lost=1".into(), String::new())
    );
}

/// Invariant I7.
#[tokio::test]
async fn a_fenced_settle_changes_no_byte() {
    let mut b = Bench::pending(4).await;
    b.me.delete_settled = true;
    b.run(&format!("XACK {STREAM} {GROUP} 1-0"));
    b.give(OTHER, 0, [2]);
    b.give(RETRY, 0, [3]);
    b.run(&format!(
        "HSET {ATTEMPTS} 2-0 [1] 2-0:starts 1 3-0 [1] 3-0:due 5 4-0:starts 1"
    ));
    b.run("SET x-service:sum 1");
    let asked = Request::default()
        .require("x-service:sum", Some("1"))
        .effect("INCRBY x-service:sum 1")
        .follow_up("{}", 1)
        .encode();
    let letter = fields(&[("id", "e")]);
    let cases = [
        ("settled", fence(1, 1), Gone),
        ("never delivered", fence(9, 1), Gone),
        ("another's", fence(2, 1), Fenced),
        ("parked", fence(3, 1), Fenced),
        ("ours under another count", fence(4, 2), Fenced),
    ];
    for (what, fence, expected) in cases {
        let before = b.snapshot();
        let (me, redis) = (&b.me, &mut b.redis);
        let mut answers: Vec<Settled> = Vec::new();
        answers.push(ack_one(me, redis, (fence, true)).await);
        let parked = [Parked {
            fence,
            delay_ms: 10,
            log: "[2]".into(),
            starts: None,
        }];
        answers.extend(me.retry_later(redis, LEASE, &parked).await.unwrap());
        answers.extend(me.release(redis, &[(fence, None)]).await.unwrap());
        answers.extend(me.renew(redis, &[fence]).await.unwrap());
        answers.push(
            me.dead_letter(redis, fence, "dead:x", &letter)
                .await
                .unwrap(),
        );
        assert_eq!(answers, [expected; 5], "{what}");
        let committed = commit_one(me, redis, (fence, true), asked.clone())
            .await
            .unwrap();
        assert_eq!(committed, Committed::Settled(expected), "{what}");
        assert_eq!(b.snapshot(), before, "{what}");
    }
}

/// Only settling makes room.
#[tokio::test]
async fn settling_works_when_redis_is_full() {
    let mut b = Bench::pending(6).await;
    b.give(OTHER, LEASE, [6]);
    b.run("CONFIG SET maxmemory 1");
    let (me, redis) = (&b.me, &mut b.redis);
    let mut answers = vec![ack_one(me, redis, (fence(1, 1), false)).await];
    answers.extend(
        me.retry_later(redis, LEASE, &[parked(2, 1, 50, "[1]")])
            .await
            .unwrap(),
    );
    answers.extend(me.release(redis, &[(fence(3, 1), None)]).await.unwrap());
    answers.extend(me.renew(redis, &[fence(4, 1)]).await.unwrap());
    answers.push(me.mark_started(redis, fence(4, 1), 1).await.unwrap());
    let letter = fields(&[("id", "e")]);
    answers.push(
        me.dead_letter(redis, fence(5, 1), "dead:x", &letter)
            .await
            .unwrap(),
    );
    assert_eq!(answers, [Done; 6]);
    let back = me.reclaim(redis, Scope::All, LEASE, 9).await.unwrap();
    assert_eq!(back.claimed.len(), 2, "the released and the abandoned");
}
