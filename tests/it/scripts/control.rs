//! pause, resume, open_breaker, take_probe, end_probe: what stops all workers of a subscriber.

use streamfleet::store::{
    BreakerKeys, ProbeEnd, ProbeEnded, ProbeTaken, end_probe, open_breaker, pause, read_control,
    resume, take_probe,
};

use super::*;

const CONTROL: &str = "control:x-service";
/// How long a probe is good for.
const GOOD: u64 = 60_000;

fn keys() -> BreakerKeys {
    BreakerKeys {
        control: CONTROL.into(),
        stats: STATS.into(),
        inbox: "inbox".into(),
    }
}

impl Bench {
    async fn trip(&mut self, for_ms: u64, event: &str) -> bool {
        let event = event.as_bytes();
        open_breaker(&mut self.redis, &keys(), for_ms, "down", "flow", event)
            .await
            .unwrap()
    }

    /// A breaker whose time is over.
    async fn over() -> Self {
        let mut b = Self::empty().await;
        assert!(b.trip(60_000, "").await);
        b.run(&format!("HSET {CONTROL} until 1"));
        b
    }

    async fn take(&mut self, token: &str, most: u32) -> ProbeTaken {
        take_probe(&mut self.redis, CONTROL, token, most, GOOD)
            .await
            .unwrap()
    }

    async fn takes(&mut self, token: &str, most: u32) -> bool {
        matches!(self.take(token, most).await, ProbeTaken::Given { .. })
    }

    async fn end(&mut self, token: &str, end: ProbeEnd<'_>, event: &str) -> ProbeEnded {
        end_probe(&mut self.redis, &keys(), token, end, event.as_bytes())
            .await
            .unwrap()
    }

    fn field(&self, name: &str) -> String {
        let value: Option<String> = self.cli(&format!("HGET {CONTROL} {name}"));
        value.unwrap_or_default()
    }

    fn number(&self, name: &str) -> u64 {
        self.field(name).parse().unwrap()
    }
}

#[tokio::test]
async fn a_pause_is_there_until_it_is_over_or_resumed() {
    let mut b = Bench::empty().await;
    assert!(!resume(&mut b.redis, CONTROL).await.unwrap());
    pause(&mut b.redis, CONTROL, None, "me", "why")
        .await
        .unwrap();
    assert_eq!(
        b.show(CONTROL),
        "paused_by=me, paused_until=resumed, paused_why=why"
    );
    let fields = ["paused_until", "nothing"];
    let (now, values) = read_control(&mut b.redis, CONTROL, &fields).await.unwrap();
    assert_eq!(values, [Some("resumed".to_owned()), None]);
    let later = i64::try_from(now).unwrap() + 60_000;
    pause(&mut b.redis, CONTROL, Some(later), "you", "")
        .await
        .unwrap();
    assert_eq!(b.field("paused_until"), later.to_string());
    assert!(resume(&mut b.redis, CONTROL).await.unwrap());
    assert!(!b.cli::<bool>(&format!("EXISTS {CONTROL}")));
    pause(&mut b.redis, CONTROL, Some(1), "me", "over")
        .await
        .unwrap();
    assert!(!resume(&mut b.redis, CONTROL).await.unwrap(), "it was over");
}

#[tokio::test]
async fn a_closed_breaker_opens_once_and_says_so_once() {
    let mut b = Bench::empty().await;
    assert!(b.trip(5_000, "{}").await);
    assert_eq!(b.number("until") - b.number("since"), 5_000);
    assert_eq!(b.field("since"), b.field("first"));
    let shown = ["breaker", "opened", "why", "flow"].map(|f| b.field(f));
    assert_eq!(shown, ["open", "1", "down", "flow"]);
    assert_eq!(b.entries("inbox"), ["event={}"]);
    assert_eq!(b.show(STATS), "opened=1");
    let before = b.snapshot();
    assert!(!b.trip(9_000, "{}").await);
    assert_eq!(b.snapshot(), before, "it is open: nothing is written");
    b.run(&format!("HSET {CONTROL} breaker half-open"));
    let before = b.snapshot();
    assert!(!b.trip(9_000, "{}").await);
    assert_eq!(b.snapshot(), before, "it is half-open: nothing is written");
}

#[tokio::test]
async fn probes_are_given_out_when_the_time_is_over_and_no_more_than_there_are() {
    let mut b = Bench::empty().await;
    assert_eq!(b.take("t", 9).await, ProbeTaken::Closed);
    assert!(b.trip(60_000, "").await);
    let before = b.snapshot();
    assert_eq!(b.take("t", 9).await, ProbeTaken::Open);
    assert_eq!(b.snapshot(), before, "too early: nothing is written");
    b.run(&format!("HSET {CONTROL} until 1"));
    let given = ProbeTaken::Given {
        opened: 1,
        first_ms: b.number("first"),
        flow: "flow".into(),
    };
    assert_eq!(b.take("a", 2).await, given);
    assert_eq!(b.field("breaker"), "half-open");
    assert_eq!(b.take("b", 2).await, given);
    let before = b.snapshot();
    assert_eq!(b.take("c", 2).await, ProbeTaken::None);
    assert_eq!(b.snapshot(), before);
    assert_eq!(b.end("a", ProbeEnd::Back, "").await, ProbeEnded::Taken);
    assert!(b.takes("c", 2).await, "one was given back");
    assert_eq!(b.end("b", ProbeEnd::Passed(2), "").await, ProbeEnded::Taken);
    assert!(!b.takes("d", 2).await, "what has passed counts");
}

/// Whoever has the name by now has taken over what its earlier life left.
#[tokio::test]
async fn a_probe_ends_with_the_next_life_of_its_worker() {
    let mut b = Bench::over().await;
    assert!(b.takes("host.name.1a/1", 1).await);
    assert!(!b.takes("host.name.1a/2", 1).await, "the same life");
    assert!(!b.takes("host.2b/1", 1).await, "another worker");
    assert!(b.takes("host.name.2b/1", 1).await, "its next life");
    let late = b.end("host.name.1a/1", ProbeEnd::Passed(1), "").await;
    assert_eq!(late, ProbeEnded::Gone);
}

#[tokio::test]
async fn enough_that_passed_close_it() {
    let mut b = Bench::over().await;
    assert!(b.takes("a", 2).await && b.takes("b", 2).await);
    let passed = ProbeEnd::Passed(2);
    assert_eq!(
        b.end("a", passed, "{\"closed\":1}").await,
        ProbeEnded::Taken
    );
    assert_eq!(b.ids("inbox").len(), 0, "nothing has changed so far");
    let before = b.snapshot();
    assert_eq!(b.end("a", passed, "{}").await, ProbeEnded::Gone);
    assert_eq!(b.snapshot(), before, "each counts once");
    assert_eq!(
        b.end("b", passed, "{\"closed\":2}").await,
        ProbeEnded::Closed
    );
    assert!(!b.cli::<bool>(&format!("EXISTS {CONTROL}")));
    assert_eq!(b.entries("inbox"), ["event={\"closed\":2}"]);
    assert_eq!(b.show(STATS), "closed=1, opened=1");
    assert_eq!(b.end("b", passed, "{}").await, ProbeEnded::Gone);
}

#[tokio::test]
async fn one_that_failed_opens_it_again_and_the_others_count_no_more() {
    let mut b = Bench::over().await;
    b.run(&format!("HSET {CONTROL} paused_by me"));
    let first = b.field("first");
    assert!(b.takes("a", 3).await && b.takes("b", 3).await);
    let failed = ProbeEnd::Failed {
        for_ms: 7_000,
        why: "still down",
    };
    assert_eq!(
        b.end("a", failed, "{\"again\":1}").await,
        ProbeEnded::Opened
    );
    assert_eq!(b.number("until") - b.number("since"), 7_000);
    let shown = ["breaker", "opened", "why", "probes", "paused_by"].map(|f| b.field(f));
    assert_eq!(shown, ["open", "2", "still down", "", "me"]);
    assert_eq!(b.field("first"), first);
    assert_eq!(b.entries("inbox"), ["event={\"again\":1}"]);
    assert_eq!(b.show(STATS), "opened=2");
    let before = b.snapshot();
    for end in [failed, ProbeEnd::Passed(1), ProbeEnd::Back] {
        assert_eq!(b.end("b", end, "{}").await, ProbeEnded::Gone);
        assert_eq!(b.end("nobody", end, "{}").await, ProbeEnded::Gone);
    }
    assert_eq!(b.snapshot(), before);
}

/// Some have passed, and then fewer are asked for: the next one ends it.
#[tokio::test]
async fn fewer_probes_than_have_passed_still_close_it() {
    let mut b = Bench::over().await;
    for token in ["a", "b"] {
        assert!(b.takes(token, 3).await);
        let passed = ProbeEnd::Passed(3);
        assert_eq!(b.end(token, passed, "").await, ProbeEnded::Taken);
    }
    assert!(b.takes("c", 1).await);
    assert!(!b.takes("d", 1).await);
    let passed = ProbeEnd::Passed(1);
    assert_eq!(b.end("c", passed, "").await, ProbeEnded::Closed);
}

#[tokio::test]
async fn a_probe_that_nobody_ends_runs_out() {
    let mut b = Bench::over().await;
    let taken = take_probe(&mut b.redis, CONTROL, "dead", 1, 1_000).await;
    assert!(matches!(taken, Ok(ProbeTaken::Given { .. })));
    assert!(!b.takes("early", 1).await);
    crate::support::eventually("it runs out", || {
        let probes = b.field("probes");
        let expires: u64 = probes.split_once('=')?.1.parse().unwrap();
        let (seconds, _): (u64, u64) = b.cli("TIME");
        (seconds * 1_000 > expires).then_some(())
    });
    assert!(b.takes("late", 1).await);
    let passed = ProbeEnd::Passed(1);
    assert_eq!(b.end("dead", passed, "").await, ProbeEnded::Gone);
    assert_eq!(b.end("late", passed, "").await, ProbeEnded::Closed);
}

/// Neither an open breaker nor a probe lasts longer than it was to.
#[tokio::test]
async fn a_clock_that_was_set_back_wedges_nothing() {
    let mut b = Bench::empty().await;
    assert!(b.trip(1_000, "").await);
    for field in ["since", "until"] {
        b.run(&format!("HINCRBY {CONTROL} {field} 3600000"));
    }
    assert!(b.takes("a", 1).await, "it opened in the future");
    b.run(&format!("HSET {CONTROL} probes a=99999999999999"));
    assert!(
        b.takes("b", 1).await,
        "that one was given out in the future"
    );
}

#[tokio::test]
async fn what_cannot_be_told_or_written_is_not_done_by_half() {
    let mut b = Bench::empty().await;
    b.run("SET inbox oops");
    let before = b.snapshot();
    let refused = open_breaker(&mut b.redis, &keys(), 1, "", "", b"{}").await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("key inbox is a string"), "{refused}");
    assert_eq!(b.snapshot(), before);
    assert!(b.trip(60_000, "").await, "without an event, no inbox");
    b.run(&format!("HSET {CONTROL} until 1"));
    assert!(b.takes("a", 1).await);
    b.run("DEL inbox");
    b.rights("-xadd");
    let before = b.snapshot();
    for end in [ProbeEnd::Passed(1), ProbeEnd::Failed { for_ms: 1, why: "" }] {
        let refused = end_probe(&mut b.redis, &keys(), "a", end, b"{}").await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("XADD on inbox"), "{refused}");
    }
    assert_eq!(b.snapshot(), before);
    b.rights("+@all");
    b.run(&format!("RENAME {CONTROL} aside"));
    b.run(&format!("SET {CONTROL} oops"));
    let named = format!("key {CONTROL} is a string");
    let read = read_control(&mut b.redis, CONTROL, &["why"]).await;
    for refused in [
        read.unwrap_err().to_string(),
        pause(&mut b.redis, CONTROL, None, "", "")
            .await
            .unwrap_err()
            .to_string(),
    ] {
        assert!(refused.contains(&named), "{refused}");
    }
}
