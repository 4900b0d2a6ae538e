//! trim: history goes, what a group has yet to settle stays.

use streamfleet::store::{Trimmed, trim};

use super::*;

const STEP: usize = 100;

impl Bench {
    async fn trim(
        &mut self,
        maxlen: Option<u64>,
        oldest: Option<u64>,
        step: usize,
        groups: &[&str],
    ) -> Trimmed {
        let oldest = oldest.map(|ms| EntryId { ms, seq: 0 });
        let groups: Vec<String> = groups.iter().map(|g| (*g).to_owned()).collect();
        trim(&mut self.redis, STREAM, maxlen, oldest, step, &groups)
            .await
            .unwrap()
    }

    /// Ten entries, all delivered to us; those up to `settled` are settled.
    async fn ten(settled: u64) -> Self {
        let bench = Self::pending(10).await;
        (1..=settled).for_each(|id| bench.run(&format!("XACK {STREAM} {GROUP} {id}-0")));
        bench
    }

    fn first(&self) -> String {
        self.ids(STREAM).first().cloned().unwrap_or_default()
    }
}

fn trimmed(trimmed: u64, excess: u64, held_by: &str) -> Trimmed {
    Trimmed {
        trimmed,
        excess,
        held_by: held_by.into(),
        missing: String::new(),
    }
}

#[tokio::test]
async fn the_newer_of_what_maxlen_and_retention_ask_is_cut() {
    let cases = [
        (Some(4), None, 6, "7-0"),
        (None, Some(4), 3, "4-0"),
        (Some(4), Some(4), 6, "7-0"),
        (Some(4), Some(9), 8, "9-0"),
        (Some(10), None, 0, "1-0"),
        (Some(99), Some(1), 0, "1-0"),
        (None, Some(99), 10, ""),
        (None, None, 0, "1-0"),
    ];
    for (maxlen, oldest, gone, first) in cases {
        let mut b = Bench::ten(10).await;
        let answer = b.trim(maxlen, oldest, STEP, &[GROUP]).await;
        assert_eq!(
            (answer, b.first()),
            (trimmed(gone, 0, ""), first.into()),
            "{maxlen:?} {oldest:?}"
        );
    }
}

#[tokio::test]
async fn a_step_is_bounded_and_says_what_is_left() {
    let mut b = Bench::ten(10).await;
    for (gone, excess) in [(3, 3), (3, 0), (0, 0)] {
        assert_eq!(
            b.trim(Some(4), None, 3, &[GROUP]).await,
            trimmed(gone, excess, "")
        );
    }
}

#[tokio::test]
async fn what_is_pending_stays_and_its_group_is_named() {
    let mut b = Bench::ten(3).await;
    assert_eq!(
        b.trim(Some(2), None, STEP, &[GROUP]).await,
        trimmed(3, 5, GROUP)
    );
    assert_eq!(b.first(), "4-0");
    assert_eq!(
        b.trim(None, Some(99), STEP, &[GROUP]).await,
        trimmed(0, 0, GROUP)
    );
    assert_eq!(b.first(), "4-0");
}

#[tokio::test]
async fn what_is_undelivered_stays() {
    let mut b = Bench::empty().await;
    b.add(1..=10);
    b.read(ME, 3);
    (1..=3).for_each(|id| b.run(&format!("XACK {STREAM} {GROUP} {id}-0")));
    assert_eq!(
        b.trim(Some(2), None, STEP, &[GROUP]).await,
        trimmed(3, 5, GROUP)
    );
    assert_eq!(b.first(), "4-0");
}

#[tokio::test]
async fn a_group_that_read_nothing_yet_keeps_everything() {
    let mut b = Bench::empty().await;
    b.add(1..=10);
    b.run(&format!("XGROUP CREATE {STREAM} {GROUP} 0"));
    assert_eq!(
        b.trim(Some(2), Some(99), STEP, &[GROUP]).await,
        trimmed(0, 8, GROUP)
    );
}

#[tokio::test]
async fn the_slowest_of_several_groups_decides_whether_or_not_it_is_configured() {
    let mut b = Bench::ten(10).await;
    b.run(&format!("XGROUP CREATE {STREAM} slow-service 5-0"));
    b.run(&format!("XGROUP CREATE {STREAM} fast-service 9-0"));
    assert_eq!(
        b.trim(Some(1), None, STEP, &[GROUP]).await,
        trimmed(5, 4, "slow-service")
    );
    assert_eq!(b.first(), "6-0");
}

#[tokio::test]
async fn a_group_that_holds_back_less_than_is_cut_is_not_named() {
    let mut b = Bench::ten(6).await;
    assert_eq!(
        b.trim(Some(4), None, STEP, &[GROUP]).await,
        trimmed(6, 0, "")
    );
}

#[tokio::test]
async fn a_group_set_back_keeps_what_it_will_read_again() {
    let mut b = Bench::ten(8).await;
    b.run(&format!("XGROUP SETID {STREAM} {GROUP} 2-0"));
    assert_eq!(
        b.trim(Some(1), None, STEP, &[GROUP]).await,
        trimmed(2, 7, GROUP)
    );
    assert_eq!(b.first(), "3-0");
}

#[tokio::test]
async fn a_group_that_starts_at_a_time_holds_back_from_there() {
    let mut b = Bench::empty().await;
    b.add(1..=10);
    b.run(&format!("XGROUP CREATE {STREAM} {GROUP} 4-{}", u64::MAX));
    assert_eq!(
        b.trim(Some(1), None, STEP, &[GROUP]).await,
        trimmed(4, 5, GROUP)
    );
    assert_eq!(b.first(), "5-0");
}

#[tokio::test]
async fn a_missing_group_blocks_trimming_and_is_named() {
    let mut b = Bench::ten(10).await;
    let before = b.snapshot();
    let answer = b
        .trim(Some(1), Some(99), STEP, &[GROUP, "gone-service"])
        .await;
    assert_eq!(
        answer,
        Trimmed {
            missing: "gone-service".into(),
            ..trimmed(0, 0, "")
        }
    );
    assert_eq!(b.snapshot(), before);
}

#[tokio::test]
async fn a_stream_without_groups_is_cut_as_asked() {
    let mut b = Bench::empty().await;
    b.add(1..=10);
    assert_eq!(b.trim(None, Some(8), STEP, &[]).await, trimmed(7, 0, ""));
}

#[tokio::test]
async fn nothing_happens_to_a_stream_that_is_absent_or_empty() {
    let mut b = Bench::empty().await;
    assert_eq!(
        b.trim(Some(1), Some(99), STEP, &[GROUP]).await,
        trimmed(0, 0, "")
    );
    assert!(b.snapshot().is_empty());
    b.run(&format!("XGROUP CREATE {STREAM} {GROUP} 0 MKSTREAM"));
    let before = b.snapshot();
    assert_eq!(
        b.trim(Some(1), Some(99), STEP, &[GROUP]).await,
        trimmed(0, 0, "")
    );
    assert_eq!(b.snapshot(), before);
}

#[tokio::test]
async fn trimming_works_when_redis_is_full() {
    let mut b = Bench::ten(10).await;
    b.run("CONFIG SET maxmemory 1");
    assert_eq!(
        b.trim(Some(4), None, STEP, &[GROUP]).await,
        trimmed(6, 0, "")
    );
}
