//! dead_letter and redrive: a delivery is given up in one step, and comes back once.

use streamfleet::store::{
    Settled::{Done, Gone},
    redrive,
};

use super::*;

#[tokio::test]
async fn a_dead_letter_is_written_and_the_entry_settled() {
    let mut b = Bench::pending(2).await;
    b.run(&format!(
        "HSET {ATTEMPTS} 1-0 [1] 1-0:starts 1 1-0:due 5 2-0 [2]"
    ));
    let letter = fields(&[("id", "e"), ("reason", "exhausted"), ("event", "{}")]);
    let settled =
        b.me.dead_letter(&mut b.redis, fence(1, 1), "dead:x", &letter)
            .await;
    assert_eq!(settled.unwrap(), Done);
    assert_eq!(b.entries("dead:x"), ["id=e reason=exhausted event={}"]);
    assert_eq!((b.held_by(1), b.show(ATTEMPTS)), (None, "2-0=[2]".into()));
    assert_eq!(b.ids(STREAM), ["1-0", "2-0"]);

    b.me.delete_settled = true;
    b.me.dead_letter(&mut b.redis, fence(2, 1), "dead:x", &letter)
        .await
        .unwrap();
    assert_eq!(b.ids(STREAM), ["1-0"], "a redrive stream keeps no history");
}

#[tokio::test]
async fn a_dead_letter_that_cannot_be_written_settles_nothing() {
    let mut b = Bench::pending(1).await;
    b.run("SET dead:x wrong");
    let before = b.snapshot();
    let letter = fields(&[("id", "e")]);
    let error =
        b.me.dead_letter(&mut b.redis, fence(1, 1), "dead:x", &letter)
            .await
            .unwrap_err();
    assert_eq!(error.code(), Some("WRONGTYPE"), "{error}");
    assert_eq!(b.snapshot(), before);
}

#[tokio::test]
async fn a_letter_is_redriven_once() {
    let mut b = Bench::empty().await;
    b.run("XADD dead:x 5-0 event {}");
    b.run("XADD dead:x 6-0 event {}");
    let (letter, again) = (
        EntryId { ms: 5, seq: 0 },
        fields(&[("event", "{}"), ("redrives", "1")]),
    );
    assert!(
        redrive(&mut b.redis, "dead:x", "redrive:x", letter, &again)
            .await
            .unwrap()
    );
    assert_eq!(b.entries("redrive:x"), ["event={} redrives=1"]);
    assert_eq!(b.ids("dead:x"), ["6-0"]);
    let before = b.snapshot();
    assert!(
        !redrive(&mut b.redis, "dead:x", "redrive:x", letter, &again)
            .await
            .unwrap()
    );
    assert_eq!(b.snapshot(), before);
}

#[tokio::test]
async fn a_letter_that_cannot_be_redriven_stays() {
    let mut b = Bench::empty().await;
    b.run("XADD dead:x 5-0 event {}");
    b.run("SET wrong x");
    let before = b.snapshot();
    let letter = EntryId { ms: 5, seq: 0 };
    let (small, large) = (
        fields(&[("event", "{}")]),
        Fields(vec![(b"n".to_vec(), b"v".to_vec()); 4_500]),
    );
    for (target, fields) in [
        ("wrong", &small),
        ("redrive:x", &Fields::default()),
        ("redrive:x", &large),
    ] {
        assert!(
            redrive(&mut b.redis, "dead:x", target, letter, fields)
                .await
                .is_err()
        );
        assert_eq!(b.snapshot(), before);
    }
}

/// As after a lost answer, or by two workers: the second finds it done.
#[tokio::test]
async fn two_who_give_one_delivery_up_leave_one_letter() {
    let b = Bench::pending(1).await;
    let (mut one, mut two) = (b.redis.clone(), b.redis.clone());
    let letter = fields(&[("id", "e")]);
    let (first, second) = tokio::join!(
        b.me.dead_letter(&mut one, fence(1, 1), "dead:x", &letter),
        b.me.dead_letter(&mut two, fence(1, 1), "dead:x", &letter),
    );
    assert_eq!((first.unwrap(), second.unwrap()), (Done, Gone));
    assert_eq!((b.ids("dead:x").len(), b.held_by(1)), (1, None));
}

#[tokio::test]
async fn two_redrives_at_once_send_a_letter_back_once() {
    let b = Bench::empty().await;
    b.run("XADD dead:x 5-0 event {}");
    let (mut one, mut two) = (b.redis.clone(), b.redis.clone());
    let (letter, again) = (EntryId { ms: 5, seq: 0 }, fields(&[("event", "{}")]));
    let (first, second) = tokio::join!(
        redrive(&mut one, "dead:x", "redrive:x", letter, &again),
        redrive(&mut two, "dead:x", "redrive:x", letter, &again),
    );
    assert_eq!((first.unwrap(), second.unwrap()), (true, false));
    assert_eq!((b.ids("dead:x").len(), b.ids("redrive:x").len()), (0, 1));
}
