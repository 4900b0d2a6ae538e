//! commit: each effect, and each reason to refuse one.

use streamfleet::store::Committed;

use super::commit::{DONE, Request};
use super::*;

const K: &str = "x-service:k";

fn request(effects: &[&str]) -> Request {
    // `HSET f v` is about K.
    effects.iter().fold(Request::default(), |request, effect| {
        let (name, args) = effect.split_once(' ').unwrap_or((effect, ""));
        request.effect(&format!("{name} {K} {args}"))
    })
}

fn prepare(b: &Bench, before: &str) {
    b.run(&format!("DEL {K}"));
    if let Some((name, args)) = before.split_once(' ') {
        b.run(&format!("{name} {K} {args}"));
    }
}

#[tokio::test]
async fn each_effect_does_what_its_name_says() {
    let cases: &[(&str, &[&str], &str)] = &[
        ("", &["SET 1"], "1"),
        ("SET 0", &["SET 1"], "1"),
        ("SET 5", &["INCRBY -7"], "-2"),
        ("", &["INCRBY 3"], "3"),
        ("SET 9007199254740990", &["INCRBY 1"], "9007199254740991"),
        ("HSET f 1 g 1", &["HSET f 2"], "f=2, g=1"),
        ("HSET f 1", &["HINCRBY f 2", "HINCRBY g 2"], "f=3, g=2"),
        ("HSET f 1 g 1", &["HDEL f"], "g=1"),
        ("HSET f 1", &["HDEL f"], ""),
        ("SADD a", &["SADD b"], "a, b"),
        ("SADD a b", &["SREM b", "SREM c"], "a"),
        ("ZADD 1 a", &["ZADD 2.5 a"], "a=2.5"),
        ("ZADD 1 a", &["ZINCRBY 0.5 a"], "a=1.5"),
        ("ZADD 1 a 2 b", &["ZREM a", "ZREM c"], "b=2"),
        ("XADD 1-0 f v", &["XADD 2-0 f w"], "1-0 f=v, 2-0 f=w"),
        ("SADD a", &["DEL"], ""),
        ("", &["DEL"], ""),
    ];
    let mut b = Bench::pending(cases.len() as u64).await;
    for (id, (before, effects, after)) in (1..).zip(cases) {
        prepare(&b, before);
        assert_eq!(b.commit(id, request(effects)).await, DONE, "{effects:?}");
        assert_eq!(b.show(K), *after, "{before} then {effects:?}");
    }
}

#[tokio::test]
async fn effects_see_what_earlier_ones_of_the_same_commit_leave() {
    let cases: &[(&str, &[&str], &str)] = &[
        ("SET text", &["SET 5", "INCRBY 2", "INCRBY 2"], "9"),
        ("SET text", &["DEL", "INCRBY 2"], "2"),
        ("HSET f text", &["DEL", "HINCRBY f 2"], "f=2"),
        ("HSET f text", &["HSET f 5", "HINCRBY f 2"], "f=7"),
        ("HSET f text", &["HDEL f", "HINCRBY f 2"], "f=2"),
        ("", &["HSET f text", "DEL", "HINCRBY f 2"], "f=2"),
        // What was deleted has no type any more.
        ("SADD a", &["DEL", "SET 1"], "1"),
        ("SET text", &["DEL", "HINCRBY f 2"], "f=2"),
    ];
    let mut b = Bench::pending(cases.len() as u64).await;
    for (id, (before, effects, after)) in (1..).zip(cases) {
        prepare(&b, before);
        assert_eq!(
            b.commit(id, request(effects)).await,
            DONE,
            "{before} then {effects:?}"
        );
        assert_eq!(b.show(K), *after, "{before} then {effects:?}");
    }
}

#[tokio::test]
async fn the_newest_value_wins_and_the_greater_id_breaks_ties() {
    let held = "HSET value old at 1000 by m";
    let cases: &[(&str, &str, &str)] = &[
        ("", "NEWER new 5 a", "at=5, by=a, value=new"),
        (held, "NEWER new 1001 a", "at=1001, by=a, value=new"),
        (held, "NEWER new 999 z", "at=1000, by=m, value=old"),
        (held, "NEWER new 1000 z", "at=1000, by=z, value=new"),
        (held, "NEWER new 1000 a", "at=1000, by=m, value=old"),
        (held, "NEWER new 1000 m", "at=1000, by=m, value=old"),
        // As numbers, before 1970 as well.
        (
            "HSET value old at 999 by m",
            "NEWER new 1000 a",
            "at=1000, by=a, value=new",
        ),
        (
            "HSET value old at -5 by m",
            "NEWER new -10 z",
            "at=-5, by=m, value=old",
        ),
        // Not written by this effect: as old as can be.
        (
            "HSET at yesterday",
            "NEWER new 5 a",
            "at=5, by=a, value=new",
        ),
    ];
    let mut b = Bench::pending(cases.len() as u64).await;
    for (id, (before, effect, after)) in (1..).zip(cases) {
        prepare(&b, before);
        assert_eq!(
            b.commit(id, request(&[effect])).await,
            DONE,
            "{before} then {effect}"
        );
        assert_eq!(b.show(K), *after, "{before} then {effect}");
    }
}

#[tokio::test]
async fn a_key_that_expires_keeps_what_was_committed_with_it() {
    let mut b = Bench::pending(1).await;
    assert_eq!(
        b.commit(1, request(&["SET 1", "PEXPIRE 60000"])).await,
        DONE
    );
    assert_eq!(b.show(K), "1");
    assert!((50_000..=60_000).contains(&b.cli::<i64>(&format!("PTTL {K}"))));
}

/// Each refused after an effect on another key that would have been applied.
#[tokio::test]
async fn an_effect_that_cannot_be_applied_leaves_every_byte_as_it_was() {
    let wrong_type = [
        ("SADD a", "SET 1"),
        ("SADD a", "INCRBY 1"),
        ("SET 1", "HSET f v"),
        ("SET 1", "HINCRBY f 1"),
        ("SET 1", "HDEL f"),
        ("SET 1", "SADD a"),
        ("SET 1", "SREM a"),
        ("SET 1", "ZADD 1 a"),
        ("SET 1", "ZINCRBY 1 a"),
        ("SET 1", "XADD * f v"),
        ("SET 1", "NEWER v 1 a"),
    ];
    let not_an_integer = [
        ("SET text", "INCRBY 1"),
        ("SET 1.5", "INCRBY 1"),
        ("SET 007", "INCRBY 1"),
        ("SET -0", "INCRBY 1"),
        ("SET +1", "INCRBY 1"),
        ("HSET f 1e3", "HINCRBY f 1"),
        ("HSET f 01", "HINCRBY f 1"),
    ];
    let too_large = [
        ("SET 9007199254740991", "INCRBY 1"),
        ("SET -9007199254740991", "INCRBY -1"),
        ("SET 9223372036854775807", "INCRBY 1"),
        ("SET 99999999999999999999999999", "INCRBY -1"),
        ("HSET f 9007199254740991", "HINCRBY f 1"),
    ];
    let mut b = Bench::pending(1).await;
    let kinds = [
        (&wrong_type[..], "expected a"),
        (&not_an_integer, "integer"),
        (&too_large, "2^53"),
    ];
    for (cases, expected) in kinds {
        for (before, effect) in cases {
            prepare(&b, before);
            let (name, args) = effect.split_once(' ').unwrap();
            let request = Request::default()
                .effect("SET x-service:other 1")
                .effect(&format!("{name} {K} {args}"))
                .follow_up("{}", 1);
            let refused = b.refused(request).await;
            let named = matches!(&refused, Committed::Invalid(why) if why.contains(expected) && why.contains(K));
            assert!(named, "{before} then {effect}: {refused:?}");
        }
    }
}

#[tokio::test]
async fn an_increment_of_what_the_same_commit_made_text_or_too_large_is_refused() {
    let cases: &[&[&str]] = &[
        &["SET text", "INCRBY 1"],
        &["HSET f text", "HINCRBY f 1"],
        &["NEWER text 5 e", "HINCRBY value 1"],
        &["SET 9007199254740990", "INCRBY 1", "INCRBY 1"],
        &["HINCRBY f 9007199254740991", "HINCRBY f 1"],
    ];
    let mut b = Bench::pending(1).await;
    for effects in cases {
        let refused = b.refused(request(effects)).await;
        assert!(
            matches!(refused, Committed::Invalid(_)),
            "{effects:?}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn an_effect_with_more_values_than_lua_can_pass_on_is_refused() {
    let mut b = Bench::pending(1).await;
    let args = std::iter::once("*".into()).chain((0..9_000).map(|n| n.to_string()));
    let request = Request::default()
        .effect("SET x-service:other 1")
        .effect_of("XADD", K, args.collect());
    let refused = b.refused(request).await;
    assert!(
        matches!(&refused, Committed::Invalid(why) if why.contains("values")),
        "{refused:?}"
    );
}
