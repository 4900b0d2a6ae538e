//! commit: conditions, follow-ups, the acknowledgement; all of it or nothing.

use streamfleet::store::{Asked, Committed, Settled};

use super::*;

/// What a handler asked for, by hand as `commit.lua` documents it.
#[derive(Default)]
pub(super) struct Request {
    /// Each with its key.
    conditions: Vec<(String, Vec<String>)>,
    effects: Vec<(String, Vec<String>)>,
    follow_ups: Vec<Vec<String>>,
}

impl Request {
    fn condition(mut self, kind: &str, key: &str, rest: &[&str]) -> Self {
        let mut words = vec![kind.to_owned()];
        words.extend(rest.iter().map(|w| (*w).to_owned()));
        self.conditions.push((key.to_owned(), words));
        self
    }

    pub(super) fn require(self, key: &str, value: Option<&str>) -> Self {
        let present = if value.is_some() { "1" } else { "0" };
        self.condition("string", key, &[present, value.unwrap_or_default()])
    }

    pub(super) fn require_field(self, key: &str, field: &str, value: Option<&str>) -> Self {
        let present = if value.is_some() { "1" } else { "0" };
        self.condition("field", key, &[field, present, value.unwrap_or_default()])
    }

    pub(super) fn version(self, key: &str, expected: u64) -> Self {
        self.condition("version", key, &[&expected.to_string()])
    }

    /// `effect("HSET key field value")`.
    pub(super) fn effect(self, line: &str) -> Self {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.effect_of(
            words[0],
            words[1],
            words[2..].iter().map(|w| (*w).to_owned()).collect(),
        )
    }

    pub(super) fn effect_of(mut self, name: &str, key: &str, args: Vec<String>) -> Self {
        let mut words = vec![format!("{name} {}", args.len())];
        words.extend(args);
        self.effects.push((key.to_owned(), words));
        self
    }

    pub(super) fn follow_up(mut self, json: &str, hops: u32) -> Self {
        self.follow_ups.push(vec![json.into(), hops.to_string()]);
        self
    }

    pub(super) fn encode(&self) -> Asked {
        let keyed = || self.conditions.iter().chain(&self.effects);
        let values = keyed().map(|(_, words)| words).chain(&self.follow_ups);
        Asked {
            conditions: self.conditions.len(),
            effects: self.effects.len(),
            follow_ups: self.follow_ups.len(),
            keys: keyed().map(|(key, _)| key.clone()).collect(),
            values: values.flatten().map(|word| word.clone().into()).collect(),
            ..Asked::default()
        }
    }
}

impl Bench {
    /// Commits entry `id`, held under count 1.
    pub(super) async fn commit(&mut self, id: u64, request: Request) -> Committed {
        let asked = request.encode();
        let (me, redis) = (&self.me, &mut self.redis);
        commit_one(me, redis, (fence(id, 1), true), asked)
            .await
            .unwrap()
    }

    /// Commits entry 1, which must be refused without changing a byte.
    pub(super) async fn refused(&mut self, request: Request) -> Committed {
        let before = self.snapshot();
        let committed = self.commit(1, request).await;
        assert_eq!(self.snapshot(), before, "{committed:?} changed something");
        committed
    }
}

pub(super) const DONE: Committed = Committed::Settled(Settled::Done);

/// Effects and a follow-up that would change the dataset, were they applied.
fn ambitious() -> Request {
    Request::default()
        .effect("SET x-service:new 1")
        .follow_up("{}", 1)
}

#[tokio::test]
async fn a_commit_applies_publishes_clears_and_acknowledges() {
    let mut b = Bench::pending(2).await;
    b.run(&format!("HSET {ATTEMPTS} 1-0 [1] 1-0:starts 1 2-0 [2]"));
    let request = Request::default()
        .effect("SET x-service:a 1")
        .follow_up("{\"n\":1}", 3)
        .follow_up("{\"n\":2}", 3);
    assert_eq!(b.commit(1, request).await, DONE);
    assert_eq!(b.show("x-service:a"), "1");
    assert_eq!(
        b.entries("inbox"),
        ["event={\"n\":1} hops=3", "event={\"n\":2} hops=3"]
    );
    assert_eq!((b.held_by(1), b.show(ATTEMPTS)), (None, "2-0=[2]".into()));
    assert_eq!(b.ids(STREAM), ["1-0", "2-0"]);

    b.me.delete_settled = true;
    assert_eq!(b.commit(2, Request::default()).await, DONE);
    assert_eq!(b.ids(STREAM), ["1-0"], "a redrive stream keeps no history");
}

#[tokio::test]
async fn a_commit_of_the_untroubled_leaves_attempts_alone() {
    let mut b = Bench::pending(1).await;
    b.run(&format!("HSET {ATTEMPTS} 1-0 [1]"));
    let asked = ambitious().encode();
    let me = &b.me;
    commit_one(me, &mut b.redis, (fence(1, 1), false), asked)
        .await
        .unwrap();
    assert_eq!(b.show(ATTEMPTS), "1-0=[1]");
}

#[tokio::test]
async fn a_second_commit_finds_the_delivery_gone() {
    let add = || {
        Request::default()
            .effect("INCRBY x-service:sum 1")
            .follow_up("{}", 1)
    };
    // With others pending as well, it is not asked whether this one is.
    for pending in [1, 2] {
        let mut b = Bench::pending(pending).await;
        assert_eq!(b.commit(1, add()).await, DONE);
        assert_eq!(b.refused(add()).await, Committed::Settled(Settled::Gone));
        assert_eq!(b.show("x-service:sum"), "1");
    }
}

/// After a lost answer: no conflict with itself, which would run the handler again.
#[tokio::test]
async fn a_commit_whose_own_effects_end_its_condition_is_gone_when_sent_again() {
    let once = || {
        Request::default()
            .require("x-service:new", None)
            .effect("SET x-service:new 1")
    };
    for pending in [1, 2] {
        let mut b = Bench::pending(pending).await;
        assert_eq!(b.commit(1, once()).await, DONE);
        assert_eq!(b.refused(once()).await, Committed::Settled(Settled::Gone));
    }
}

/// Also where deliveries are asked for one by one, which a record in `attempts` brings about.
#[tokio::test]
async fn each_of_a_batch_is_committed_or_refused_by_itself() {
    for record in [false, true] {
        let mut b = Bench::pending(7).await;
        prepare(&b);
        if record {
            b.run(&format!("HSET {ATTEMPTS} 9-0 [1]"));
        }
        b.run(&format!("XACK {STREAM} {GROUP} 5-0"));
        b.rights("-sadd");
        let fine = |key: &str| {
            Request::default()
                .require("x-service:s", Some("v"))
                .effect(&format!("SET {key} 1"))
        };
        let batch = [
            fine("x-service:first"),
            ambitious().require("x-service:s", Some("w")),
            ambitious().effect("INCRBY x-service:s 1"),
            ambitious().effect("SADD x-service:set a"),
            ambitious(),
            // What the first of the batch left holds for those behind it.
            ambitious().require("x-service:first", None),
            fine("x-service:last"),
        ];
        let requests: Vec<_> = (1..)
            .zip(&batch)
            .map(|(id, request)| {
                let (fence, asked) = (fence(id, 1), request.encode());
                let troubled = false;
                let request = CommitRequest {
                    fence,
                    troubled,
                    asked,
                };
                request.into()
            })
            .collect();
        let kept = |b: &Bench| {
            let mut keys = b.snapshot();
            let ours = [STREAM, "x-service:first", "x-service:last"];
            keys.retain(|(key, _)| !ours.contains(&key.as_str()));
            keys
        };
        let before = kept(&b);
        let answers = b.me.commit(&mut b.redis, "inbox", &requests).await.unwrap();
        assert!(
            matches!(&answers[2], Committed::Invalid(why) if why.contains("integer")),
            "{answers:?}"
        );
        assert!(
            matches!(&answers[3], Committed::Refused(why) if why.contains("SADD on x-service:set")),
            "{answers:?}"
        );
        let gone = Committed::Settled(Settled::Gone);
        let rest = [0, 1, 4, 5, 6].map(|n| answers[n].clone());
        let conflict = Committed::Conflict;
        assert_eq!(rest, [DONE, conflict.clone(), gone, conflict, DONE]);
        assert_eq!(kept(&b), before, "what was refused changed something");
        let values = ["x-service:first", "x-service:last"].map(|key| b.show(key));
        assert_eq!(values, ["1", "1"]);
        let owed: Vec<u64> = (1..=7).filter(|&id| b.held_by(id).is_some()).collect();
        assert_eq!(owed, [2, 3, 4, 6]);
    }
}

fn prepare(b: &Bench) {
    b.run("SET x-service:s v");
    b.run("HSET x-service:h f v");
    b.run("XADD es:Stock:1 1-0 type A");
    b.run("XADD es:Stock:1 2-0 type B");
}

#[tokio::test]
async fn conditions_that_hold_let_the_commit_through() {
    let conditions: [fn(Request) -> Request; 7] = [
        |r| r.require("x-service:s", Some("v")),
        |r| r.require("x-service:none", None),
        |r| r.require_field("x-service:h", "f", Some("v")),
        |r| r.require_field("x-service:h", "g", None),
        |r| r.require_field("x-service:none", "g", None),
        |r| r.version("es:Stock:1", 2),
        |r| r.version("es:Stock:9", 0),
    ];
    let mut b = Bench::pending(conditions.len() as u64).await;
    prepare(&b);
    for (id, condition) in (1..).zip(conditions) {
        assert_eq!(
            b.commit(id, condition(ambitious())).await,
            DONE,
            "condition {id}"
        );
    }
}

#[tokio::test]
async fn a_condition_that_fails_is_a_conflict_and_changes_no_byte() {
    let conditions: [fn(Request) -> Request; 10] = [
        |r| r.require("x-service:s", Some("w")),
        |r| r.require("x-service:s", None),
        |r| r.require("x-service:none", Some("v")),
        |r| r.require("x-service:none", Some("")),
        |r| r.require_field("x-service:h", "f", Some("w")),
        |r| r.require_field("x-service:h", "f", None),
        |r| r.require_field("x-service:h", "g", Some("")),
        |r| r.version("es:Stock:1", 1),
        |r| r.version("es:Stock:1", 0),
        |r| r.version("es:Stock:9", 1),
    ];
    let mut b = Bench::pending(1).await;
    prepare(&b);
    for (n, condition) in conditions.into_iter().enumerate() {
        assert_eq!(
            b.refused(condition(ambitious())).await,
            Committed::Conflict,
            "{n}"
        );
    }
    // The last of several decides as much as the first.
    let mixed = ambitious()
        .require("x-service:s", Some("v"))
        .version("es:Stock:1", 7);
    assert_eq!(b.refused(mixed).await, Committed::Conflict);
}

#[tokio::test]
async fn a_condition_on_a_key_of_another_type_is_invalid() {
    let mut b = Bench::pending(1).await;
    prepare(&b);
    let conditions: [fn(Request) -> Request; 3] = [
        |r| r.require("x-service:h", Some("v")),
        |r| r.require_field("x-service:s", "f", None),
        |r| r.version("x-service:s", 0),
    ];
    for condition in conditions {
        let refused = b.refused(condition(ambitious())).await;
        assert!(
            matches!(&refused, Committed::Invalid(why) if why.contains("expected a")),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn an_entity_continues_at_the_version_it_was_read_at() {
    let mut b = Bench::pending(1).await;
    prepare(&b);
    let append = Request::default()
        .version("es:Stock:1", 2)
        .effect("XADD es:Stock:1 3-0 type C")
        .effect("XADD es:Stock:1 4-0 type D");
    assert_eq!(b.commit(1, append).await, DONE);
    assert_eq!(b.ids("es:Stock:1"), ["1-0", "2-0", "3-0", "4-0"]);
}

#[tokio::test]
async fn an_entity_whose_newest_events_were_deleted_is_refused_before_anything_is_written() {
    let mut b = Bench::pending(1).await;
    prepare(&b);
    b.run("XDEL es:Stock:1 2-0");
    let append = ambitious()
        .version("es:Stock:1", 1)
        .effect("XADD es:Stock:1 2-0 type C");
    let refused = b.refused(append).await;
    assert!(
        matches!(&refused, Committed::Invalid(why) if why.contains("deleted")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_key_of_ours_with_the_wrong_type_stops_the_commit() {
    for key in [ATTEMPTS, "inbox"] {
        let mut b = Bench::pending(1).await;
        b.run(&format!("SET {key} wrong"));
        let before = b.snapshot();
        let asked = ambitious().encode();
        let (me, redis) = (&b.me, &mut b.redis);
        let error = commit_one(me, redis, (fence(1, 1), true), asked)
            .await
            .unwrap_err();
        assert_eq!(error.code(), Some("WRONGTYPE"), "{error}");
        assert_eq!(b.snapshot(), before);
    }
}

#[tokio::test]
async fn a_commit_works_when_redis_is_full() {
    let mut b = Bench::pending(1).await;
    b.run("CONFIG SET maxmemory 1");
    assert_eq!(b.commit(1, ambitious()).await, DONE);
    assert_eq!(
        (b.show("x-service:new"), b.ids("inbox").len()),
        ("1".into(), 1)
    );
}
