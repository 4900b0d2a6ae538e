//! switch: everything changes place in one step, and only at a moment at which nothing is lost.

use streamfleet::store::{Switch, SwitchStream, Switched, switch};

use super::*;

const SHADOW: &str = "x-service@1";
const REDRIVE: &str = "redrive:x-service";

impl Bench {
    /// Five entries, all settled by both groups; keys of both.
    async fn rebuilt() -> Self {
        let b = Self::pending(5).await;
        for id in 1..=5 {
            b.run(&format!("XACK {STREAM} {GROUP} {id}-0"));
        }
        b.run(&format!(
            "XGROUP CREATE {STREAM} {SHADOW} 5-0 ENTRIESREAD 5"
        ));
        b.run(&format!("XGROUP CREATE {REDRIVE} {GROUP} 0 MKSTREAM"));
        for group in [GROUP, SHADOW] {
            b.run(&format!("HSET fleet group:{STREAM}:{group} 30000:0-0"));
        }
        b.run(&format!("HSET fleet group:{REDRIVE}:{GROUP} 30000:0-0"));
        b.run(&format!("SET {GROUP}:old 1"));
        b.run(&format!("SET {GROUP}:both old"));
        b.run(&format!("SET {SHADOW}:both new"));
        b.run(&format!("SET {SHADOW}:new 1 EX 1000"));
        b.run(&format!("XADD dead:{GROUP} 1-0 id a"));
        b.run(&format!("XADD dead:{GROUP} 2-0 id b"));
        b.run(&format!("XADD dead:{SHADOW} 3-0 id c"));
        b
    }

    /// Switches as if the live group had been at `at`, with so many pending.
    async fn switch(&mut self, at: u64, live_pending: u64, kept: &[u64]) -> Switched {
        let streams = [SwitchStream {
            stream: STREAM.into(),
            live_field: format!("group:{STREAM}:{GROUP}"),
            shadow_field: format!("group:{STREAM}:{SHADOW}"),
            live_at: EntryId { ms: at, seq: 0 },
            live_pending,
        }];
        let unlinked = ["old", "both"].map(|key| format!("{GROUP}:{key}"));
        let attempts = [ATTEMPTS.to_owned(), format!("attempts:{STREAM}:{SHADOW}")];
        let unlinked = [&unlinked[..], &attempts].concat();
        let renamed = ["both", "new", "expired"].map(|key| {
            let under = |group| format!("{group}:{key}");
            (under(SHADOW), under(GROUP))
        });
        let kept: Vec<_> = kept.iter().map(|&ms| EntryId { ms, seq: 0 }).collect();
        let request = Switch {
            fleet: "fleet",
            rebuilt_field: "rebuilt:x-service",
            number: 1,
            live: GROUP,
            shadow: SHADOW,
            dead: &format!("dead:{GROUP}"),
            shadow_dead: &format!("dead:{SHADOW}"),
            redrive: REDRIVE,
            redrive_at: EntryId::default(),
            streams: &streams,
            unlinked: &unlinked,
            renamed: &renamed,
            kept_letters: &kept,
        };
        switch(&mut self.redis, &request).await.unwrap()
    }

    /// Where the live group is, and how many entries are before it, where Redis knows.
    fn position(&self) -> (String, Option<i64>) {
        let groups: Vec<BTreeMap<String, redis::Value>> =
            self.cli(&format!("XINFO GROUPS {STREAM}"));
        assert_eq!(groups.len(), 1, "{groups:?}");
        let text = |name: &str| groups[0][name].clone();
        (
            String::from_redis_value(text("last-delivered-id")).unwrap(),
            Option::from_redis_value(text("lag")).unwrap(),
        )
    }
}

#[tokio::test]
async fn keys_letters_and_position_change_in_one_step_and_once() {
    let mut b = Bench::rebuilt().await;
    // The shadow is ahead, the live one has some in hand.
    b.add(6..=8);
    b.read("me.00000000", 1);
    b.run(&format!("XGROUP SETID {STREAM} {SHADOW} 7-0 ENTRIESREAD 7"));
    b.run(&format!("HSET {ATTEMPTS} 6-0 []"));
    assert_eq!(b.switch(6, 1, &[2, 9]).await, Switched::Done);
    assert_eq!(b.position(), ("7-0".into(), Some(1)));
    assert_eq!(
        b.cli::<Vec<redis::Value>>(&format!("XPENDING {STREAM} {GROUP} - + 9"))
            .len(),
        0
    );
    let mut keys: Vec<String> = b.cli("KEYS *");
    keys.sort();
    assert_eq!(
        keys,
        [
            "dead:x-service",
            "fleet",
            STREAM,
            REDRIVE,
            "x-service:both",
            "x-service:new"
        ]
    );
    assert_eq!(b.cli::<String>("GET x-service:both"), "new");
    assert!(b.cli::<i64>("TTL x-service:new") > 900);
    let letters: Vec<(String, BTreeMap<String, String>)> = b.cli("XRANGE dead:x-service - +");
    let letters: Vec<_> = letters
        .iter()
        .map(|(_, fields)| fields["id"].as_str())
        .collect();
    assert_eq!(letters, ["c", "b"]);
    let mut fields: Vec<String> = b.cli("HKEYS fleet");
    fields.sort();
    let (live, redrive) = (
        format!("group:{STREAM}:{GROUP}"),
        format!("group:{REDRIVE}:{GROUP}"),
    );
    assert_eq!(fields, [live, redrive, "rebuilt:x-service".into()]);
    // The answer was lost: asked again, nothing is done again.
    b.run("SET x-service:old 2");
    let after = b.snapshot();
    assert_eq!(b.switch(6, 1, &[2]).await, Switched::Done);
    assert_eq!(b.snapshot(), after);
}

#[tokio::test]
async fn at_any_other_moment_no_byte_changes() {
    let read = &format!("XREADGROUP GROUP {GROUP} me COUNT 1 STREAMS {STREAM} >");
    let shadow_reads = &format!("XREADGROUP GROUP {SHADOW} me COUNT 1 STREAMS {STREAM} >");
    let cases: &[(&[&str], Switched)] = &[
        (
            &[&format!("XADD {STREAM} 6-0 event e"), read],
            Switched::Moved,
        ),
        // Read before the keys were looked for, and settled since.
        (
            &[
                &format!("XGROUP SETID {STREAM} {GROUP} 4-0"),
                read,
                &format!("XACK {STREAM} {GROUP} 5-0"),
            ],
            Switched::Done,
        ),
        (
            &[&format!("XADD {STREAM} 6-0 event e"), shadow_reads],
            Switched::Owes,
        ),
        (
            &[&format!("XGROUP SETID {STREAM} {SHADOW} 4-0")],
            Switched::Behind,
        ),
        (&[&format!("XADD {REDRIVE} 9-0 event e")], Switched::Redrive),
        (
            &[&format!("XGROUP SETID {REDRIVE} {GROUP} 9-0")],
            Switched::Moved,
        ),
        (
            &[&format!("HSET fleet group:more-events:{GROUP} 1:0-0")],
            Switched::Streams,
        ),
        (
            &[&format!("XGROUP DESTROY {STREAM} {GROUP}")],
            Switched::Lost,
        ),
        (&[&format!("DEL {REDRIVE}")], Switched::Lost),
        (
            &[&format!("XGROUP DESTROY {STREAM} {SHADOW}")],
            Switched::Gone,
        ),
        (
            &[&format!("HDEL fleet group:{STREAM}:{SHADOW}")],
            Switched::Gone,
        ),
    ];
    for (commands, expected) in cases {
        let mut b = Bench::rebuilt().await;
        commands.iter().for_each(|line| b.run(line));
        let before = b.snapshot();
        let answer = b.switch(5, 0, &[]).await;
        assert_eq!(answer, *expected, "{commands:?}");
        if answer != Switched::Done {
            assert_eq!(b.snapshot(), before, "{commands:?}");
        }
    }
    // One that was pending when the keys were looked for was settled since.
    let mut b = Bench::rebuilt().await;
    let before = b.snapshot();
    assert_eq!(b.switch(5, 1, &[]).await, Switched::Moved);
    assert_eq!(b.snapshot(), before);
}

/// A group that was set to a time may be ahead of all that there is: it stays there.
#[tokio::test]
async fn a_group_that_waits_for_a_time_goes_on_waiting() {
    let mut b = Bench::rebuilt().await;
    b.run(&format!("XGROUP SETID {STREAM} {GROUP} 99-0"));
    assert_eq!(b.switch(99, 0, &[]).await, Switched::Done);
    assert_eq!(b.position().0, "99-0");
}

#[tokio::test]
async fn a_user_who_may_not_do_all_of_it_does_none() {
    for right in [
        "-rename",
        "-unlink",
        "-xgroup|setid",
        "-xgroup|destroy",
        "-xack",
        "-hset",
    ] {
        let mut b = Bench::rebuilt().await;
        b.run(&format!("ACL SETUSER default {right}"));
        let before = b.snapshot();
        let streams = [SwitchStream {
            stream: STREAM.into(),
            live_field: format!("group:{STREAM}:{GROUP}"),
            shadow_field: format!("group:{STREAM}:{SHADOW}"),
            live_at: EntryId { ms: 5, seq: 0 },
            live_pending: 0,
        }];
        let request = Switch {
            fleet: "fleet",
            rebuilt_field: "rebuilt:x-service",
            number: 1,
            live: GROUP,
            shadow: SHADOW,
            dead: "dead:x-service",
            shadow_dead: "dead:x-service@1",
            redrive: REDRIVE,
            redrive_at: EntryId::default(),
            streams: &streams,
            unlinked: &["x-service:old".to_owned()],
            renamed: &[("x-service@1:new".to_owned(), "x-service:new".to_owned())],
            kept_letters: &[],
        };
        let refused = switch(&mut b.redis, &request)
            .await
            .unwrap_err()
            .to_string();
        assert!(refused.contains("may not run"), "{right}: {refused}");
        assert_eq!(b.snapshot(), before, "{right}");
    }
}
