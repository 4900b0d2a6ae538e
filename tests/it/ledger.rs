//! What the fault suite's ledger catches: each breach of the promise, and nothing else.

use std::collections::BTreeSet;

use crate::support::ledger::{Account, Dead, Facts, Handled, Plan, Published, Witnessed};

const SUBSCRIBER: &str = "s";

fn published(id: &str, plan: Plan) -> Published {
    Published {
        id: id.to_owned(),
        plan,
        subscribers: vec![SUBSCRIBER.to_owned()],
        accepted_ms: Some(100),
    }
}

fn handled(id: &str) -> Handled {
    Handled {
        subscriber: SUBSCRIBER.to_owned(),
        id: id.to_owned(),
        at_ms: 150,
        attempt: 1,
        parent: String::new(),
    }
}

fn dead(id: &str, reason: &str, charged: u32) -> Dead {
    Dead {
        subscriber: SUBSCRIBER.to_owned(),
        id: id.to_owned(),
        at_ms: 160,
        reason: reason.to_owned(),
        charged,
        parent: String::new(),
    }
}

fn witnessed(id: &str, attempt: u32, key: &str, ended: bool) -> Witnessed {
    Witnessed {
        subscriber: SUBSCRIBER.to_owned(),
        id: id.to_owned(),
        attempt,
        key: key.to_owned(),
        ended,
    }
}

/// Facts in which each of these was handled, all effects there.
fn facts(handled: Vec<Handled>, dead: Vec<Dead>) -> Facts {
    let mut facts = Facts {
        dead,
        ..Facts::default()
    };
    for one in handled {
        let promise = (one.subscriber.clone(), one.id.clone());
        *facts.counted.entry(promise).or_default() += 1;
        facts.handled.push(one);
    }
    facts
}

fn account(plan: Plan, facts: &Facts) -> Account {
    Account::draw_up(&[published("e", plan)], facts, &[], &[])
}

fn wrong(account: &Account) -> &str {
    assert_eq!(account.violations.len(), 1, "{account:#?}");
    &account.violations[0]
}

#[test]
fn handled_once_or_dead_once_is_right() {
    for plan in [Plan::Succeed, Plan::FailTwice, Plan::Block] {
        let fine = account(plan, &facts(vec![handled("e")], vec![]));
        assert_eq!((fine.promised, fine.handled), (1, 1));
        assert!(fine.violations.is_empty(), "{fine:#?}");
    }
    let fine = account(Plan::Poison, &facts(vec![], vec![dead("e", "crashed", 0)]));
    assert!(fine.violations.is_empty(), "{fine:#?}");
    let fine = account(Plan::Fail, &facts(vec![], vec![dead("e", "exhausted", 3)]));
    assert_eq!((fine.dead, fine.charged), (1, 3));
    assert!(fine.violations.is_empty(), "{fine:#?}");
}

#[test]
fn neither_is_lost_or_stuck() {
    let lost = account(Plan::Succeed, &Facts::default());
    assert_eq!((lost.lost, lost.stuck), (1, 0));
    assert!(wrong(&lost).ends_with("lost"));
    let owed = Facts {
        owed: BTreeSet::from(["e".to_owned()]),
        ..Facts::default()
    };
    let stuck = account(Plan::Succeed, &owed);
    assert_eq!((stuck.lost, stuck.stuck), (0, 1));
}

#[test]
fn an_event_that_was_never_accepted_is_promised_nothing() {
    let unanswered = Published {
        accepted_ms: None,
        ..published("e", Plan::Succeed)
    };
    for there in [facts(vec![], vec![]), facts(vec![handled("e")], vec![])] {
        let fine = Account::draw_up(&[unanswered.clone()], &there, &[], &[]);
        assert_eq!(fine.promised, 0);
        assert!(fine.violations.is_empty(), "{fine:#?}");
    }
}

/// What a server forgets, as its durability mode allows, it forgets for all.
#[test]
fn what_the_server_forgot_is_a_figure_of_its_own() {
    let of_two = Published {
        subscribers: vec![SUBSCRIBER.to_owned(), "t".to_owned()],
        ..published("e", Plan::Succeed)
    };
    let mut forgotten = Facts {
        forgotten: BTreeSet::from(["e".to_owned()]),
        ..Facts::default()
    };
    let fine = Account::draw_up(std::slice::from_ref(&of_two), &forgotten, &[], &[]);
    assert_eq!((fine.forgotten, fine.lost), (2, 0));
    assert!(fine.violations.is_empty(), "{fine:#?}");
    forgotten.handled.push(handled("e"));
    forgotten
        .counted
        .insert((SUBSCRIBER.to_owned(), "e".to_owned()), 1);
    let half = Account::draw_up(&[of_two], &forgotten, &[], &[]);
    assert_eq!((half.forgotten, half.lost), (0, 1));
    assert!(wrong(&half).ends_with("lost"));
}

#[test]
fn twice_or_both_is_duplicated() {
    let twice = account(
        Plan::Succeed,
        &facts(vec![handled("e"), handled("e")], vec![]),
    );
    assert_eq!(twice.duplicated, 1);
    assert!(wrong(&twice).contains("handled 2 times"));
    let both = facts(vec![handled("e")], vec![dead("e", "crashed", 0)]);
    let both = Account::draw_up(&[published("e", Plan::Succeed)], &both, &[], &["crashed"]);
    assert!(wrong(&both).contains("handled 1 times and dead 1 times"));
}

#[test]
fn dead_for_no_good_reason() {
    let innocent = facts(vec![], vec![dead("e", "crashed", 0)]);
    assert!(wrong(&account(Plan::Succeed, &innocent)).contains("dead as crashed"));
    let fourth = facts(vec![], vec![dead("e", "exhausted", 4)]);
    assert!(wrong(&account(Plan::Fail, &fourth)).contains("charged 4"));
    let impossible = facts(vec![handled("e")], vec![]);
    assert!(wrong(&account(Plan::Reject, &impossible)).contains("never succeeds"));
}

#[test]
fn a_follow_up_without_its_parent_and_a_parent_without_its_follow_up() {
    let child = Handled {
        parent: "e".to_owned(),
        ..handled("child")
    };
    let alone = facts(vec![handled("e")], vec![]);
    assert!(wrong(&account(Plan::Follow, &alone)).contains("committed 1 times, 0 follow-ups"));
    let orphan = facts(vec![child.clone()], vec![dead("e", "crashed", 0)]);
    let orphan = Account::draw_up(&[published("e", Plan::Follow)], &orphan, &[], &["crashed"]);
    assert!(wrong(&orphan).contains("committed 0 times, 1 follow-ups"));
    let both = account(Plan::Follow, &facts(vec![handled("e"), child], vec![]));
    assert!(both.violations.is_empty(), "{both:#?}");
}

#[test]
fn half_a_commit() {
    let mut half = facts(vec![handled("e")], vec![]);
    half.counted.clear();
    assert!(wrong(&account(Plan::Succeed, &half)).contains("without the other"));
    let mut half = facts(vec![handled("e")], vec![]);
    half.counted
        .insert((SUBSCRIBER.to_owned(), "e".to_owned()), 2);
    assert!(wrong(&account(Plan::Succeed, &half)).contains("without the other"));
}

#[test]
fn an_event_that_nobody_sent() {
    let strange = facts(vec![handled("e"), handled("x")], vec![]);
    assert!(wrong(&account(Plan::Succeed, &strange)).contains("nobody published"));
}

#[test]
fn what_the_witness_saw_must_explain_the_commit() {
    let seen = |witnessed| {
        let mut facts = facts(vec![handled("e")], vec![]);
        facts.witnessed = witnessed;
        account(Plan::Succeed, &facts)
    };
    let fine = seen(vec![
        witnessed("e", 1, "k", false),
        witnessed("e", 1, "k", true),
    ]);
    assert!(fine.violations.is_empty(), "{fine:#?}");
    let repeated = seen(vec![
        witnessed("e", 1, "k", false),
        witnessed("e", 1, "k", false),
        witnessed("e", 1, "k", true),
    ]);
    assert_eq!(repeated.repeated_runs, 1);
    assert!(wrong(&seen(vec![witnessed("e", 1, "k", false)])).contains("no handler"));
    let two_keys = vec![witnessed("e", 1, "k", true), witnessed("e", 2, "l", true)];
    assert!(wrong(&seen(two_keys)).contains("idempotency key"));
    assert!(
        wrong(&seen(vec![
            witnessed("e", 4, "k", false),
            witnessed("e", 1, "k", true)
        ]))
        .contains("beyond")
    );
}

#[test]
fn recovery_counts_from_the_end_of_the_strike() {
    let events = [
        published("a", Plan::Succeed),
        published("b", Plan::FailTwice),
    ];
    let late = Handled {
        at_ms: 9_000,
        ..handled("b")
    };
    let strikes = [110, 145, 300];
    let drawn = Account::draw_up(
        &events,
        &facts(vec![handled("a"), late], vec![]),
        &strikes,
        &[],
    );
    assert_eq!(
        drawn.recovery_ms,
        [40, 5, 0],
        "what fails by plan has delays of its own"
    );
    assert_eq!(
        (drawn.recovery(50), drawn.recovery(99)),
        (Some(5), Some(40))
    );
}
