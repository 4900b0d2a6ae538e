//! reclaim and take_over: what comes back, and how it is marked.

use std::time::Duration;

use streamfleet::store::{BEYOND_ANY_LEASE_MS, Claimed, RELEASED, RETRY, Scope, Settled};

use super::*;
use crate::support::eventually;
use crate::support::preload::Clock;

const DEAD: &str = "dead.33333333";

impl Bench {
    async fn reclaim(&mut self, limit: usize) -> (Vec<Claimed>, Vec<String>) {
        let back = self
            .me
            .reclaim(&mut self.redis, Scope::All, LEASE, limit)
            .await
            .unwrap();
        (back.claimed, back.lost)
    }
}

#[tokio::test]
async fn a_retry_that_is_due_comes_back_unmarked() {
    let mut b = Bench::pending(1).await;
    b.give(RETRY, LEASE, [1]);
    b.run(&format!("HSET {ATTEMPTS} 1-0 [1] 1-0:due 5"));
    let (claimed, lost) = b.reclaim(9).await;
    let back = &claimed[0];
    assert_eq!(
        (back.fence, back.starts, back.log.as_str()),
        (fence(1, 2), None, "[1]")
    );
    assert_eq!((back.fields.text("event"), lost.len()), (Some("{}"), 0));
    assert_eq!(b.held_by(1), Some((ME.into(), 2)));
    assert_eq!(b.show(ATTEMPTS), "1-0:claimed=2, 1-0=[1]");
}

/// Marked when it starts, not when it is claimed: what only waited for a slot is no suspect.
#[tokio::test]
async fn what_a_dead_worker_had_is_a_suspect_only_once_it_is_started() {
    let mut b = Bench::pending(1).await;
    for (round, marks) in [0, 0, 1, 2].into_iter().enumerate() {
        b.give(DEAD, LEASE, [1]);
        let (claimed, _) = b.reclaim(9).await;
        assert_eq!(claimed[0].starts, Some(marks), "claim {round}");
        let fence = claimed[0].fence;
        if round > 0 {
            for _resent in 0..2 {
                let answer = b.me.mark_started(&mut b.redis, fence, marks + 1).await;
                assert_eq!(answer.unwrap(), Settled::Done);
            }
            let starts: u64 = b.cli(&format!("HGET {ATTEMPTS} 1-0:starts"));
            assert_eq!(starts, marks as u64 + 1);
        }
    }
}

/// A start that had an outcome is no longer open.
#[tokio::test]
async fn parking_takes_the_mark_of_this_run_back() {
    let mut b = Bench::pending(1).await;
    b.me.mark_started(&mut b.redis, fence(1, 1), 2)
        .await
        .unwrap();
    let answer = b.me.release(&mut b.redis, &[(fence(1, 1), Some(1))]).await;
    assert_eq!(answer.unwrap(), [Settled::Done]);
    let (claimed, _) = b.reclaim(9).await;
    assert_eq!(claimed[0].starts, Some(1));
}

#[tokio::test]
async fn even_our_own_delivery_counts_as_having_lost_its_worker() {
    let mut b = Bench::pending(1).await;
    b.give(ME, LEASE, [1]);
    let (claimed, _) = b.reclaim(9).await;
    assert_eq!(
        (claimed[0].starts, claimed[0].fence),
        (Some(0), fence(1, 2))
    );
}

#[tokio::test]
async fn nothing_due_writes_nothing() {
    let mut b = Bench::pending(3).await;
    b.give(DEAD, LEASE - 20_000, [1]);
    b.give(RETRY, 0, [2]);
    b.run(&format!("HSET {ATTEMPTS} 2-0:due 5"));
    b.me.consumer = "fresh.44444444".into();
    let before = b.snapshot();
    let (claimed, lost) = b.reclaim(9).await;
    assert_eq!((claimed.len(), lost.len()), (0, 0));
    assert_eq!(b.snapshot(), before, "not even a consumer");
}

#[tokio::test]
async fn the_oldest_come_first_and_never_more_than_asked_for() {
    let mut b = Bench::pending(5).await;
    b.give(DEAD, LEASE, [2, 3, 4, 5]);
    let (claimed, _) = b.reclaim(2).await;
    let ids: Vec<u64> = claimed.iter().map(|c| c.fence.id.ms).collect();
    assert_eq!(ids, [2, 3]);
    assert_eq!(
        (b.held_by(1), b.held_by(4)),
        (Some((ME.into(), 1)), Some((DEAD.into(), 1)))
    );
}

#[tokio::test]
async fn a_deleted_entry_is_counted_as_lost() {
    let mut b = Bench::pending(3).await;
    b.give(DEAD, LEASE, [1, 2]);
    b.run(&format!("HSET {ATTEMPTS} 1-0 [1] 1-0:starts 1"));
    b.run(&format!("XDEL {STREAM} 1-0"));
    let (claimed, lost) = b.reclaim(9).await;
    assert_eq!((claimed.len(), lost), (1, vec!["1-0".to_owned()]));
    assert_eq!(
        (b.held_by(1), b.show(ATTEMPTS), b.show(STATS)),
        (None, "2-0:claimed=2".into(), "lost=1".into())
    );
}

/// The clock goes on while the script runs: what becomes due then must wait for the next call.
#[tokio::test]
async fn what_becomes_due_during_the_call_is_neither_lost_nor_marked_wrongly() {
    const N: u64 = 400;
    let mut b = Bench::pending(N).await;
    let mut park = redis::pipe();
    for id in 1..=N {
        // One falls due in each millisecond.
        let consumer = if id % 2 == 0 { RETRY } else { DEAD };
        let (id, idle) = (format!("{id}-0"), LEASE - id);
        park.cmd("XCLAIM")
            .arg(&[STREAM, GROUP, consumer, "0", &id, "IDLE"])
            .arg(idle)
            .arg("JUSTID")
            .ignore();
    }
    park.exec(&mut b.connection()).unwrap();
    let (mut marked, mut unmarked) = (0, 0);
    while marked + unmarked < N {
        for claimed in b.reclaim(128).await.0 {
            let id = claimed.fence.id.ms;
            assert_eq!(claimed.starts.is_some(), id % 2 == 1, "{id}");
            assert_eq!(claimed.fence.count, 2, "{id}");
            if id % 2 == 0 {
                unmarked += 1
            } else {
                marked += 1
            }
        }
    }
    assert_eq!((marked, unmarked), (N / 2, N / 2));
}

#[tokio::test]
async fn keys_of_the_wrong_type_stop_reclaiming_before_it_claims() {
    for key in [ATTEMPTS, STATS] {
        let mut b = Bench::pending(1).await;
        b.give(DEAD, LEASE, [1]);
        b.run(&format!("SET {key} wrong"));
        let before = b.snapshot();
        let error =
            b.me.reclaim(&mut b.redis, Scope::All, LEASE, 9)
                .await
                .unwrap_err();
        assert_eq!(error.code(), Some("WRONGTYPE"), "{error}");
        assert_eq!(b.snapshot(), before);
    }
}

#[tokio::test]
async fn a_predecessors_deliveries_are_released_as_suspects_and_its_consumer_deleted() {
    let mut b = Bench::pending(4).await;
    b.give(DEAD, 0, [1, 2]);
    b.run(&format!(
        "XCLAIM {STREAM} {GROUP} {DEAD} 0 3-0 RETRYCOUNT 7 JUSTID"
    ));
    b.run(&format!("HSET {ATTEMPTS} 3-0 [1] 3-0:starts 1 3-0:due 5"));
    assert_eq!(b.me.take_over(&mut b.redis, DEAD, 2).await.unwrap(), 2);
    assert!(
        b.consumers().contains(&DEAD.to_owned()),
        "it still owns one"
    );
    assert_eq!(b.me.take_over(&mut b.redis, DEAD, 2).await.unwrap(), 1);
    assert!(!b.consumers().contains(&DEAD.to_owned()));
    assert_eq!(b.held_by(1), Some((RELEASED.into(), 1)));
    assert_eq!(
        b.held_by(3),
        Some((RELEASED.into(), 7)),
        "the count is kept"
    );
    assert_eq!(b.held_by(4), Some((ME.into(), 1)), "not the predecessor's");
    assert_eq!(
        b.show(ATTEMPTS),
        "1-0:starts=0, 2-0:starts=0, 3-0:starts=1, 3-0=[1]"
    );

    let (claimed, _) = b.reclaim(9).await;
    let starts: Vec<_> = claimed.iter().map(|c| c.starts).collect();
    assert_eq!(
        starts,
        [Some(0), Some(0), Some(1)],
        "claimable at once, not marked by waiting"
    );
}

#[tokio::test]
async fn a_predecessors_deleted_entry_is_counted_as_lost() {
    let mut b = Bench::pending(1).await;
    b.give(DEAD, 0, [1]);
    b.run(&format!("XDEL {STREAM} 1-0"));
    b.me.take_over(&mut b.redis, DEAD, 9).await.unwrap();
    assert_eq!(
        (b.held_by(1), b.show(ATTEMPTS), b.show(STATS)),
        (None, String::new(), "lost=1".into())
    );
}

#[tokio::test]
async fn a_predecessor_that_comes_back_is_fenced() {
    let mut b = Bench::pending(1).await;
    b.give(DEAD, 0, [1]);
    b.me.take_over(&mut b.redis, DEAD, 9).await.unwrap();
    let late = Holder {
        consumer: DEAD.into(),
        ..b.me.clone()
    };
    let before = b.snapshot();
    let answer = ack_one(&late, &mut b.redis, (fence(1, 1), false)).await;
    assert_eq!(answer, Settled::Fenced);
    assert_eq!(b.snapshot(), before);
}

/// Delays longer than the lease surface early; what is due behind them is found all the same.
#[tokio::test]
async fn long_delays_starve_nothing_behind_them() {
    let mut b = Bench::pending(5).await;
    b.give(RETRY, LEASE, [1, 2, 3, 4]);
    for id in 1..=4 {
        b.run(&format!("HSET {ATTEMPTS} {id}-0:due 99999999999999"));
    }
    b.give(DEAD, LEASE, [5]);
    let found = b.me.reclaim(&mut b.redis, Scope::All, LEASE, 1).await;
    let found = found.unwrap();
    assert_eq!(found.claimed[0].fence.id.ms, 5);
    assert_eq!((found.claimed.len(), found.parked_again), (1, 4));
    assert!(found.found_any(), "so that the caller asks again");
    assert_eq!(b.held_by(1), Some((RETRY.into(), 1)));
}

/// Right after an outage only what no living worker can be running.
#[tokio::test]
async fn in_the_grace_period_only_the_parked_come_back() {
    let mut b = Bench::pending(3).await;
    b.give(DEAD, LEASE, [1]);
    b.give(RETRY, LEASE, [2]);
    b.give(RELEASED, LEASE, [3]);
    let mut back = Vec::new();
    for _ in 0..2 {
        let reclaimed =
            b.me.reclaim(&mut b.redis, Scope::Parked, LEASE, 9)
                .await
                .unwrap();
        back.extend(reclaimed.claimed.iter().map(|c| c.fence.id.ms));
    }
    assert_eq!(back, [2, 3]);
    assert_eq!(b.held_by(1), Some((DEAD.into(), 1)));
}

/// A request that a frozen server runs late claims nothing from the living.
#[tokio::test]
async fn a_late_request_claims_nothing() {
    let mut b = Bench::pending(1).await;
    b.give(DEAD, LEASE, [1]);
    let before = b.snapshot();
    let mut moment = 5;
    for _long_ago_and_just_now in 0..2 {
        let scope = Scope::AllBefore(moment);
        let late = b.me.reclaim(&mut b.redis, scope, LEASE, 9).await.unwrap();
        assert!(late.late && !late.found_any());
        assert_eq!(b.snapshot(), before);
        moment = late.server_ms - 1;
    }
    let soon = Scope::AllBefore(moment + 60_000);
    let back = b.me.reclaim(&mut b.redis, soon, LEASE, 9).await.unwrap();
    assert!(!back.late && back.claimed.len() == 1);
}

/// What was under way when the clock was set back is idle for less than nothing.
#[tokio::test]
async fn a_clock_set_back_holds_nothing_up_for_longer_than_a_lease() {
    const HOUR: i64 = 3_600;
    let clock = Clock::build().unwrap();
    let mut b = Bench::on(clock.server()).await;
    b.add(1..=5);
    b.read(ME, 5);
    b.give(RETRY, LEASE - 50, [1]);
    b.give(DEAD, 20, [2]);
    b.give(RELEASED, BEYOND_ANY_LEASE_MS, [3]);
    b.run(&format!(
        "HSET {ATTEMPTS} 1-0 [1] 1-0:due 9999999999999 3-0:due 9999999999999 4-0:starts 1"
    ));
    b.run(&format!("XDEL {STREAM} 5-0"));
    clock.set(-HOUR);
    // Shown as nothing, as soon as the server looks at its clock again.
    for id in [1, 2, 4] {
        eventually("it is idle for less than nothing", || {
            (b.owner(id).unwrap().1 == 0).then_some(())
        });
    }
    let released = b.owner(3).unwrap().1;
    assert!(released > BEYOND_ANY_LEASE_MS - 3_600_000 - 1_000);

    // In two steps, as for a long list.
    let (restarted, last) =
        b.me.restart_idle(&mut b.redis, LEASE, None, 3)
            .await
            .unwrap();
    assert_eq!((restarted, last.as_deref()), (2, Some("3-0")));
    let after = last.as_deref();
    let rest = b.me.restart_idle(&mut b.redis, LEASE, after, 3).await;
    assert_eq!(rest.unwrap(), (2, None));

    assert_eq!(b.held_by(1), Some((RETRY.into(), 1)), "the count is kept");
    assert!(b.owner(1).unwrap().1 >= LEASE, "what was parked is due");
    assert_eq!(b.held_by(2), Some((DEAD.into(), 1)));
    assert_eq!(b.held_by(4), Some((ME.into(), 1)));
    assert!(b.owner(3).unwrap().1 >= released, "left alone");
    assert_eq!(b.held_by(5), None);
    assert_eq!(
        b.show(ATTEMPTS),
        "1-0=[1], 3-0:due=9999999999999, 4-0:starts=1"
    );
    assert_eq!(b.show(STATS), "lost=1");
    let (claimed, _) = b.reclaim(9).await;
    let ids: Vec<u64> = claimed.iter().map(|c| c.fence.id.ms).collect();
    assert_eq!(ids, [1, 3], "the others have a lease from now on");
    tokio::time::sleep(Duration::from_millis(5)).await;
    let again = b.me.restart_idle(&mut b.redis, LEASE, None, 9).await;
    assert_eq!(
        again.unwrap(),
        (0, None),
        "nothing is held up a second time"
    );
}
