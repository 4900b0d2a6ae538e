//! register_worker, drop_consumer, join_fleet: who is alive, and on which data.

use streamfleet::store::{Announce, forget_worker, join_fleet, register_worker};

use super::*;

const WORKER: &str = "worker:x-service:w";
/// Its field in `fleet` has the same name.
const FOUND_BY: (&str, &str) = ("fleet", WORKER);

impl Bench {
    async fn announce(&mut self, nonce: &str, how: Announce) -> bool {
        let fields = [("pid", nonce.to_owned())];
        register_worker(
            &mut self.redis,
            WORKER,
            FOUND_BY,
            nonce,
            60_000,
            how,
            &fields,
        )
        .await
        .unwrap()
    }
}

#[tokio::test]
async fn a_name_is_claimed_by_one_and_renewed_by_that_one_only() {
    let mut b = Bench::empty().await;
    assert!(b.announce("a", Announce::Claim).await);
    assert_eq!(b.show(WORKER), "nonce=a, pid=a");
    assert!((50_000..=60_000).contains(&b.cli::<i64>(&format!("PTTL {WORKER}"))));

    let before = b.snapshot();
    assert!(!b.announce("b", Announce::Claim).await);
    assert!(!b.announce("b", Announce::Renew).await);
    assert_eq!(b.snapshot(), before, "TAKEN writes nothing");

    b.run(&format!("PEXPIRE {WORKER} 1000"));
    assert!(b.announce("a", Announce::Renew).await);
    assert!(b.cli::<i64>(&format!("PTTL {WORKER}")) > 50_000);
}

#[tokio::test]
async fn who_announces_itself_is_found_until_it_leaves_or_is_dead() {
    let mut b = Bench::empty().await;
    assert!(b.announce("a", Announce::Claim).await);
    assert_eq!(b.show("fleet"), format!("{WORKER}=a"));
    let forget = async |b: &mut Bench| {
        let forgotten = forget_worker(&mut b.redis, "fleet", WORKER, WORKER).await;
        forgotten.unwrap()
    };
    assert!(!forget(&mut b).await, "it is alive");
    assert_eq!(b.show("fleet"), format!("{WORKER}=a"));
    b.run(&format!("DEL {WORKER}"));
    assert!(forget(&mut b).await);
    assert!(!b.cli::<bool>("EXISTS fleet"));
    assert!(b.announce("a", Announce::Renew).await);
    assert_eq!(b.show("fleet"), format!("{WORKER}=a"), "it was not dead");
    assert!(b.announce("a", Announce::Withdraw).await);
    assert!(!b.cli::<bool>("EXISTS fleet"));
    assert!(!b.cli::<bool>(&format!("EXISTS {WORKER}")));
}

#[tokio::test]
async fn a_name_by_right_replaces_whoever_had_it() {
    let mut b = Bench::empty().await;
    b.announce("a", Announce::Claim).await;
    b.run(&format!("HSET {WORKER} busy 3"));
    assert!(b.announce("b", Announce::Replace).await);
    assert_eq!(
        b.show(WORKER),
        "nonce=b, pid=b",
        "nothing of the predecessor is left"
    );
    assert!(
        !b.announce("a", Announce::Renew).await,
        "which learns of it"
    );
}

#[tokio::test]
async fn an_announcement_that_expired_is_renewed_if_nobody_took_the_name() {
    let mut b = Bench::empty().await;
    assert!(b.announce("a", Announce::Renew).await);
    assert_eq!(b.show(WORKER), "nonce=a, pid=a");
}

#[tokio::test]
async fn a_consumer_is_dropped_only_when_it_owns_nothing() {
    let mut b = Bench::pending(1).await;
    let before = b.snapshot();
    assert!(!b.me.drop_consumer(&mut b.redis, ME).await.unwrap());
    assert!(!b.me.drop_consumer(&mut b.redis, "nobody").await.unwrap());
    assert_eq!(b.snapshot(), before);
    b.run(&format!("XACK {STREAM} {GROUP} 1-0"));
    assert!(b.me.drop_consumer(&mut b.redis, ME).await.unwrap());
    assert!(b.consumers().is_empty());
}

#[tokio::test]
async fn the_first_founds_the_dataset_and_each_configuration_has_a_generation() {
    let mut b = Bench::empty().await;
    let mut joined = Vec::new();
    for (fresh, config) in [("d1", "a"), ("d2", "a"), ("d3", "b"), ("d4", "a")] {
        let m = join_fleet(&mut b.redis, "fleet", fresh, config)
            .await
            .unwrap();
        joined.push((m.dataset, m.generation, m.newest));
    }
    let expected = [(1, 1), (1, 1), (2, 2), (1, 2)].map(|(g, n)| ("d1".to_owned(), g, n));
    assert_eq!(joined, expected);
}
