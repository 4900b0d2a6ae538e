//! The ordinary batch: checked by a script, written by a transaction, unless anything that was
//! checked has changed.

use streamfleet::store::transact::{Opened, Ready, Transactions};
use streamfleet::store::{RouteBatch, Routed, Scope};

use super::route::{SCHEDULED, SEEN, TARGETS, append, counts_of_routed, follow_up, later};
use super::*;

const ATTEMPTS: &str = "attempts:inbox:router";

type Batch = Vec<(Fence, Routed)>;

/// Events e1 to en of the entries 1-0 to n-0, the last one to the second target.
fn events(n: u64) -> Batch {
    let event = |id: u64| match id {
        id if id == n => follow_up(&format!("e{id}"), 1),
        id => append(&format!("e{id}"), "c"),
    };
    (1..=n).map(|id| (fence(id, 1), event(id))).collect()
}

impl Bench {
    async fn transactions(&self) -> Transactions {
        let redis = Redis::open(&self.server.url()).unwrap();
        let connection = redis.dedicated(Duration::ZERO).await.unwrap();
        Transactions::on(connection).await.unwrap()
    }

    async fn open(
        &self,
        transactions: &mut Transactions,
        entries: &Batch,
    ) -> redis::RedisResult<Opened> {
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
            contiguous: true,
            audit: None,
        };
        transactions.open(&batch).await
    }

    /// Opens a transaction that nothing speaks against.
    async fn ready(&self, transactions: &mut Transactions, entries: &Batch) -> Ready {
        match self.open(transactions, entries).await.unwrap() {
            Opened::Clean(ready) => ready,
            Opened::Doubtful(doubt) => panic!("{doubt}"),
        }
    }

    /// What speaks against a batch; and that nothing was written, nor is anything left open.
    async fn doubt(&self, entries: &Batch) -> String {
        let (mut transactions, before) = (self.transactions().await, self.snapshot());
        let doubt = match self.open(&mut transactions, entries).await.unwrap() {
            Opened::Clean(_) => panic!("clean"),
            Opened::Doubtful(doubt) => doubt,
        };
        assert_eq!(self.snapshot(), before, "{doubt}");
        doubt
    }

    /// The routers' reclaiming of what is idle for a lease.
    async fn reclaim_as(&mut self, consumer: &str) -> usize {
        let mut other = self.me.clone();
        other.consumer = consumer.into();
        let reclaimed = other.reclaim(&mut self.redis, Scope::All, LEASE, 9).await;
        reclaimed.unwrap().claimed.len()
    }

    fn idle(&self, id: u64) {
        self.run(&format!(
            "XCLAIM inbox router {ME} 0 {id}-0 IDLE {LEASE} JUSTID"
        ));
    }
}

#[tokio::test]
async fn a_clean_batch_is_routed_as_the_script_would() {
    let (mut plain, mut b) = (Bench::inbox(3).await, Bench::inbox(3).await);
    let batch = &events(3)[..2];
    plain
        .route(&[batch[0].clone(), (fence(2, 1), follow_up("e2", 1))])
        .await;
    let batch = events(2);
    let mut transactions = b.transactions().await;
    let ready = b.ready(&mut transactions, &batch).await;
    assert!(ready.execute().await.unwrap());
    for key in ["order-events", "user-events"] {
        assert_eq!(b.entries(key), plain.entries(key), "{key}");
    }
    for key in [
        "inbox",
        "seen:7",
        "seen:6",
        "stats:router",
        "dead:router",
        ATTEMPTS,
    ] {
        assert_eq!(b.show(key), plain.show(key), "{key}");
    }
    assert_eq!((b.ids("inbox"), b.owed()), (vec!["3-0".into()], 1));
    assert!((50_000..=60_000).contains(&b.cli::<i64>("PTTL seen:7")));

    b.run("PEXPIRE seen:7 20000");
    let next = vec![(fence(3, 1), append("e3", "c"))];
    let ready = b.ready(&mut transactions, &next).await;
    assert!(ready.execute().await.unwrap());
    assert!(
        b.cli::<i64>("PTTL seen:7") <= 20_000,
        "its life is not prolonged"
    );
    let again = b.route(&events(2)).await;
    assert_eq!((again.routed, again.fenced), (0, 2));
}

#[tokio::test]
async fn each_doubt_leaves_a_batch_to_the_script() {
    type Prepare = &'static [&'static str];
    let cases: [(&str, Prepare); 9] = [
        ("others hold", &["XCLAIM inbox router other.2 0 2-0 JUSTID"]),
        ("others hold", &["XCLAIM inbox router retry 0 3-0 JUSTID"]),
        ("others hold", &["HSET attempts:inbox:router 3-0:claimed 2"]),
        ("no longer owed", &["XACK inbox router 3-0"]),
        ("seen before", &["HSET seen:7 e2 c"]),
        ("seen before", &["HSET seen:5 e1 another"]),
        ("IDs", &["XADD user-events 18446744073709551615-5 a b"]),
        ("not the head", &["XDEL inbox 1-0"]),
        ("OOM", &["CONFIG SET maxmemory 1"]),
    ];
    for (doubt, prepare) in cases {
        let b = Bench::inbox(3).await;
        prepare.iter().for_each(|line| b.run(line));
        let answer = b.doubt(&events(3)).await;
        assert!(answer.contains(doubt), "{prepare:?}: {answer}");
    }
    for (doubt, batch) in [
        (
            "older ones are owed",
            vec![(fence(2, 1), append("e2", "c"))],
        ),
        (
            "not all of it is to be appended",
            vec![(fence(1, 1), Routed::Dead(fields(&[])))],
        ),
        (
            "not all of it is to be appended",
            vec![(fence(1, 1), append("e1", "c")), (fence(2, 1), later("e2"))],
        ),
        ("empty", vec![]),
    ] {
        let answer = Bench::inbox(3).await.doubt(&batch).await;
        assert!(answer.contains(doubt), "{answer}");
    }
    // Redis has room for an entry before it only as long as the inbox is empty.
    let mut b = Bench::inbox(2).await;
    b.run("XACK inbox router 1-0");
    let answer = b.doubt(&vec![(fence(2, 1), append("e2", "c"))]).await;
    assert!(answer.contains("not the head"), "{answer}");
    b.me.consumer = OTHER.into();
    let answer = b.doubt(&vec![(fence(2, 1), append("e2", "c"))]).await;
    assert!(answer.contains("others hold"), "{answer}");
}

#[tokio::test]
async fn an_id_that_cannot_be_counted_on_is_left_to_the_script() {
    let mut b = Bench::inbox(0).await;
    b.run("XADD inbox 9007199254740993-0 event {}");
    b.run(&format!("XREADGROUP GROUP router {ME} STREAMS inbox >"));
    let batch = vec![(fence(9_007_199_254_740_993, 1), append("e1", "c"))];
    let answer = b.doubt(&batch).await;
    assert!(answer.contains("counted on"), "{answer}");
    assert_eq!(b.route(&batch).await, counts_of_routed(1));
}

#[tokio::test]
async fn a_key_of_the_wrong_type_or_a_missing_right_is_a_doubt() {
    for key in ["user-events", "seen:7", "seen:5", "stats:router"] {
        let b = Bench::inbox(2).await;
        b.run(&format!("SET {key} wrong"));
        let answer = b.doubt(&events(2)).await;
        assert!(answer.contains("WRONGTYPE"), "{answer}");
    }
    let b = Bench::inbox(2).await;
    for right in ["XACK", "XTRIM", "XADD", "HSET", "HINCRBY", "PEXPIRE"] {
        let (mut transactions, before) = (b.transactions().await, b.snapshot());
        b.rights(&format!("-{}", right.to_lowercase()));
        match b.open(&mut transactions, &events(2)).await {
            Ok(Opened::Doubtful(doubt)) => assert!(doubt.contains(right), "{doubt}"),
            Ok(Opened::Clean(_)) => panic!("{right}"),
            Err(error) => panic!("{error}"),
        }
        b.rights("+@all");
        assert_eq!(b.snapshot(), before, "{right}");
    }
    for right in ["watch", "multi", "evalsha"] {
        let (mut transactions, before) = (b.transactions().await, b.snapshot());
        b.rights(&format!("-{right}"));
        let opened = b.open(&mut transactions, &events(2)).await;
        assert!(!matches!(opened, Ok(Opened::Clean(_))), "{right}");
        b.rights("+@all");
        drop(transactions);
        assert!(right == "multi" || b.snapshot() == before, "{right}");
    }
}

/// What others can do between the check and the writes: then these do not happen.
#[tokio::test]
async fn whatever_changes_between_check_and_writes_ends_the_transaction() {
    let changes = [
        "claimed",
        "taken over",
        "parked",
        "routed by another",
        "routed within another window",
        "type of a target",
        "claimed and given up again",
    ];
    for change in changes {
        let mut b = Bench::inbox(3).await;
        let batch = events(3);
        let mut transactions = b.transactions().await;
        let ready = b.ready(&mut transactions, &batch).await;
        match change {
            "claimed" | "claimed and given up again" => {
                b.idle(1);
                assert_eq!(b.reclaim_as(OTHER).await, 1);
                if change != "claimed" {
                    b.run(&format!("DEL {ATTEMPTS}"));
                }
            }
            "taken over" => {
                let mut other = b.me.clone();
                other.consumer = OTHER.into();
                other.take_over(&mut b.redis, ME, 9).await.unwrap();
            }
            "parked" => b.park_all().await,
            "routed by another" => {
                let one = [batch[1].clone()];
                assert_eq!(b.route(&one).await, counts_of_routed(1));
            }
            "routed within another window" => b.run("HSET seen:5 e3 c"),
            _ => {
                b.run("DEL user-events");
                b.run("SET user-events wrong");
            }
        }
        let before = b.snapshot();
        assert!(!ready.execute().await.unwrap(), "{change}");
        assert_eq!(b.snapshot(), before, "{change}");
        // The connection is as good as new.
        b.run("FLUSHALL");
        b.run("XGROUP CREATE inbox router 0 MKSTREAM");
        b.run("XADD inbox 1-0 event {}");
        b.run(&format!("XREADGROUP GROUP router {ME} STREAMS inbox >"));
        let ready = b.ready(&mut transactions, &events(1)).await;
        assert!(ready.execute().await.unwrap(), "{change}");
    }
}

impl Bench {
    async fn park_all(&mut self) {
        let deliveries = [1, 2, 3].map(|id| (fence(id, 1), None));
        self.me.release(&mut self.redis, &deliveries).await.unwrap();
    }
}

/// Producers and readers do not count: the inbox itself is not watched.
#[tokio::test]
async fn what_arrives_meanwhile_does_not_matter() {
    let b = Bench::inbox(2).await;
    let mut transactions = b.transactions().await;
    let ready = b.ready(&mut transactions, &events(2)).await;
    b.run("XADD inbox 9-0 event {}");
    b.run(&format!("XREADGROUP GROUP router {OTHER} STREAMS inbox >"));
    assert!(ready.execute().await.unwrap());
    assert_eq!((b.ids("inbox"), b.owed()), (vec!["9-0".into()], 1));
}

/// The next one's check comes behind the writes of the one before, and so finds it routed.
#[tokio::test]
async fn the_next_batch_is_checked_behind_the_one_before() {
    let b = Bench::inbox(4).await;
    let mut transactions = b.transactions().await;
    let all = events(4);
    let (first, second) = (all[..2].to_vec(), all[2..].to_vec());
    let ready = b.ready(&mut transactions, &first).await;
    let routed = tokio::spawn(ready.execute());
    tokio::task::yield_now().await;
    let ready = b.ready(&mut transactions, &second).await;
    assert!(routed.await.unwrap().unwrap());
    assert!(ready.execute().await.unwrap());
    assert_eq!((b.ids("inbox").len(), b.owed()), (0, 0));
    assert_eq!(b.show("stats:router"), "routed=4");
}

/// A script that Redis has forgotten is an answer like any other: nothing is behind it.
#[tokio::test]
async fn without_its_script_nothing_is_written() {
    let b = Bench::inbox(2).await;
    let mut transactions = b.transactions().await;
    b.run("SCRIPT FLUSH");
    let before = b.snapshot();
    match b.open(&mut transactions, &events(2)).await.unwrap() {
        Opened::Doubtful(doubt) => assert!(doubt.contains("NoScript"), "{doubt}"),
        Opened::Clean(_) => panic!("clean"),
    }
    assert_eq!(b.snapshot(), before);
    let ready = b.ready(&mut transactions, &events(2)).await;
    assert!(ready.execute().await.unwrap(), "it is known again");
}

/// Nothing that the product does takes an entry from the pending list of who holds it.
#[tokio::test]
async fn what_was_settled_by_hand_is_told() {
    let b = Bench::inbox(2).await;
    let mut transactions = b.transactions().await;
    let ready = b.ready(&mut transactions, &events(2)).await;
    b.run("XACK inbox router 2-0");
    assert!(ready.execute().await.is_err());
}
