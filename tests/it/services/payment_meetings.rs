//! A charge and a cancellation of one order meet, in every order and with every death in between:
//! what the gateway holds is right to the cent, and nothing is told twice.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde_json::json;

use super::payment::{Till, cancellation, order};
use crate::support::eventually;

/// Dies when its handler has returned, before anything of it is committed.
const DIES: [(&str, &str); 1] = [("STREAMFLEET_FAILPOINT", "worker.handled 1 abort")];

#[test]
fn a_cancellation_before_its_order_keeps_it_from_being_charged() {
    let till = Till::open();
    let _worker = till.worker("w", &[]);
    till.publish(&[cancellation(1)]);
    eventually("it is remembered", || {
        (!till.history(1).is_empty()).then_some(())
    });
    till.publish(&[order(1, "10"), cancellation(1), order(2, "0.01")]);
    till.settles(1);
    assert_eq!(till.history(1), ["Payment.Cancelled"]);
    assert_eq!(till.answers_to(2), ["Paid"]);
    assert_eq!(till.gateway.books(), ("0.01".into(), "0".into(), 1, 0));
}

#[test]
fn a_cancellation_after_its_order_refunds_it_once() {
    let till = Till::open();
    let _worker = till.worker("w", &[]);
    till.gateway.rules(json!({"decline_above": "100"}));
    till.publish(&[order(1, "10.10"), order(2, "0"), order(3, "100.01")]);
    till.settles(3);
    let cancellations: Vec<_> = (0..8).flat_map(|_| [1, 2, 3]).map(cancellation).collect();
    till.publish(&cancellations);
    till.settles(4);
    assert_eq!(till.answers_to(1), ["Paid", "Refunded"]);
    assert_eq!(till.history(1), ["Payment.Charged", "Payment.Refunded"]);
    assert_eq!(till.history(2), ["Payment.Charged", "Payment.Cancelled"]);
    assert_eq!(till.history(3), ["Payment.Declined", "Payment.Cancelled"]);
    assert_eq!(till.gateway.books(), ("10.10".into(), "10.10".into(), 1, 1));
    // What comes after the end changes nothing.
    till.publish(&[order(1, "10.10"), order(4, "0.01")]);
    till.settles(5);
    assert_eq!(till.gateway.books(), ("10.11".into(), "10.10".into(), 2, 1));
}

/// The charge is made, and its answer on the way, when the cancellation comes: it is refunded, and
/// the order never told to be paid.
#[test]
fn a_cancellation_while_the_charge_is_answered_refunds_it() {
    let till = Till::open();
    let _worker = till.worker("w", &[]);
    till.gateway.rules(json!({"answer_delay_ms": 3_000}));
    till.publish(&[order(1, "10.10")]);
    eventually("it is charged", || {
        (till.gateway.books().2 == 1).then_some(())
    });
    till.gateway.rules(json!({"answer_delay_ms": 0}));
    till.publish(&[cancellation(1)]);
    till.settles(1);
    till.gateway.is_asked(0);
    assert_eq!(till.answers_to(1), ["Refunded"]);
    assert_eq!(till.history(1), ["Payment.Refunded"]);
    assert_eq!(till.gateway.books(), ("10.10".into(), "10.10".into(), 1, 1));
}

/// The charge is on its way to the gateway when the cancellation overtakes it: it is refused.
#[test]
fn a_cancellation_that_overtakes_the_charge_keeps_it_from_being_made() {
    let till = Till::open();
    let _worker = till.worker("w", &[]);
    till.gateway.rules(json!({"delay_ms": 3_000}));
    till.publish(&[order(1, "10.10")]);
    till.gateway.is_asked(1);
    till.gateway.rules(json!({"delay_ms": 0}));
    till.publish(&[cancellation(1)]);
    eventually("it is remembered", || {
        (!till.history(1).is_empty()).then_some(())
    });
    till.gateway.is_asked(0);
    till.settles(0);
    assert_eq!(till.history(1), ["Payment.Cancelled"]);
    assert_eq!(till.gateway.books(), ("0".into(), "0".into(), 0, 0));
    assert_eq!(till.dead(), [""; 0]);
}

#[test]
fn a_worker_that_dies_between_charge_and_commit_charges_once() {
    let till = Till::open();
    let mut worker = till.worker("w", &DIES);
    till.publish(&[order(1, "10.10")]);
    assert_eq!(worker.exit_code(), None, "it was killed");
    assert_eq!(till.gateway.books(), ("10.10".into(), "0".into(), 1, 0));
    assert!(till.history(1).is_empty());
    let _worker = till.worker("w", &[]);
    till.settles(1);
    assert_eq!(till.answers_to(1), ["Paid"]);
    assert_eq!(till.gateway.books(), ("10.10".into(), "0".into(), 1, 0));
}

/// Nobody but the gateway knows of the charge when the cancellation comes.
#[test]
fn a_charge_of_which_no_record_was_made_is_refunded() {
    let till = Till::open();
    let mut worker = till.worker("dies", &DIES);
    till.publish(&[order(1, "10.10")]);
    assert_eq!(worker.exit_code(), None);
    // Its delivery is another's only after the lease, so the cancellation comes first.
    let _worker = till.worker("w", &[]);
    till.publish(&[cancellation(1)]);
    till.owes(1);
    assert_eq!(till.history(1), ["Payment.Refunded"]);
    let _again = till.worker("dies", &[]);
    till.settles(1);
    assert_eq!(till.answers_to(1), ["Refunded"]);
    assert_eq!(till.history(1), ["Payment.Refunded"]);
    assert_eq!(till.gateway.books(), ("10.10".into(), "10.10".into(), 1, 1));
}

#[test]
fn a_worker_that_dies_between_void_and_commit_refunds_once() {
    let till = Till::open();
    let worker = till.worker("w", &[]);
    till.publish(&[order(1, "10.10")]);
    till.settles(1);
    drop(worker);
    let mut worker = till.worker("w", &DIES);
    till.publish(&[cancellation(1)]);
    assert_eq!(worker.exit_code(), None);
    assert_eq!(till.gateway.books(), ("10.10".into(), "10.10".into(), 1, 1));
    assert_eq!(till.history(1), ["Payment.Charged"]);
    let _worker = till.worker("w", &[]);
    till.settles(2);
    assert_eq!(till.answers_to(1), ["Paid", "Refunded"]);
    assert_eq!(till.gateway.books(), ("10.10".into(), "10.10".into(), 1, 1));
}

/// The void is made and forgotten; the order, delivered again, finds its key void.
#[test]
fn an_order_after_a_void_that_was_not_recorded_is_not_charged() {
    let till = Till::open();
    let mut worker = till.worker("dies", &DIES);
    till.publish(&[cancellation(1)]);
    assert_eq!(worker.exit_code(), None);
    let _worker = till.worker("w", &[]);
    till.publish(&[order(1, "10.10")]);
    till.owes(1);
    assert!(till.history(1).is_empty());
    let _again = till.worker("dies", &[]);
    till.settles(0);
    assert_eq!(till.history(1), ["Payment.Cancelled"]);
    assert_eq!(till.gateway.books(), ("0".into(), "0".into(), 0, 0));
    assert_eq!(till.dead(), [""; 0]);
}

/// Everything at once: a gateway that fails and loses answers, workers that are killed, every third
/// order cancelled at some moment, every event published twice.
#[test]
fn whatever_happens_the_books_agree_to_the_cent() {
    const ORDERS: i64 = 60;
    let till = Till::open();
    till.gateway
        .rules(json!({"fail_rate": 0.2, "answer_delay_ms": 10, "decline_above": "0.55"}));
    let mut worker = till.worker("a", &[]);
    let _other = till.worker("b", &[]);
    let is_cancelled = |n: i64| n % 3 == 0;
    for n in 1..=ORDERS {
        let total = format!("0.{n:02}");
        let again = order(n, &total);
        let cancelled = is_cancelled(n).then(|| cancellation(n));
        let mut events = vec![order(n, &total), again];
        let position = (n % 4) as usize;
        cancelled
            .into_iter()
            .for_each(|event| events.insert(position.min(2), event));
        till.publish(&events);
        if n % 20 == 0 {
            worker.signal("KILL");
            worker = till.worker("a", &[]);
        }
    }
    till.is_idle();
    till.gateway.is_asked(0);

    let mut told: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    let (mut due, mut back) = (Decimal::ZERO, Decimal::ZERO);
    for answer in till.answers() {
        match answer.what.as_str() {
            "Paid" if !is_cancelled(answer.order_id) => due += answer.amount,
            "Refunded" => back += answer.amount,
            _ => {}
        }
        told.entry(answer.order_id).or_default().push(answer.what);
    }
    for n in 1..=ORDERS {
        let told = told.remove(&n).unwrap_or_default();
        let told: Vec<_> = told.iter().map(String::as_str).collect();
        let right: &[&[&str]] = match (is_cancelled(n), n > 55) {
            (false, false) => &[&["Paid"]],
            (false, true) => &[&["Declined"]],
            (true, false) => &[&[], &["Refunded"], &["Paid", "Refunded"]],
            (true, true) => &[&[], &["Declined"]],
        };
        assert!(right.contains(&told.as_slice()), "order {n}: {told:?}");
    }
    let ledger = till.gateway.ledger();
    let sum = |field: &str| -> Decimal { ledger[field].as_str().unwrap().parse().unwrap() };
    assert_eq!(sum("net"), due);
    assert_eq!(sum("refunded"), back);
    assert_eq!(till.dead(), [""; 0]);
}
