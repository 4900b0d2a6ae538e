//! The order's saga, purely: whatever comes in whatever order, an order ends confirmed or cancelled.

#[path = "../../workers/order/command.rs"]
mod command;
#[path = "../../workers/order/flow.rs"]
#[allow(dead_code, reason = "the service uses the rest")]
mod flow;

use command::{Command, Refusal};
use flow::{Fact, Order, Policy, Status};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};
use streamfleet::saga::{Arrival, Outcome, Saga};
use streamfleet::{Aggregate, Decide, Event};
use uuid::Uuid;

const POLICY: Policy = Policy {
    patience: SignedDuration::from_mins(15),
};
/// All that a saga can get, but for who cancels from outside.
const EVENTS: [&str; 6] = [
    "Order.Created",
    "Inventory.Stock.Reserved",
    "Inventory.Stock.Rejected",
    "Payment.Order.Paid",
    "Payment.Order.Declined",
    "Order.DeadlinePassed",
];

fn event(event_type: &str) -> Event {
    with(event_type, json!({}))
}

fn with(event_type: &str, more: Value) -> Event {
    let mut data = json!({
        "order_id": 7, "order_number": "SO-7", "user_id": 1, "total_amount": 19.99, "amount": 19.99, "items": [{"product_id": 1}],
        "reason": "customer",
    });
    data.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let json = json!({
        "event_id": Uuid::new_v4(), "event_type": event_type, "version": "1",
        "timestamp": "2026-01-01T00:00:00Z", "correlation_id": Uuid::new_v4(), "data": data,
    });
    Event::from_json(json.to_string().as_bytes()).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// An order, and the types of all that it told the world.
#[derive(Default)]
struct Told(Order, Vec<&'static str>);

impl Told {
    fn gets(&mut self, event: &Event, attempt: u32) -> Result<(), String> {
        let now = at("2026-01-01T00:00:01Z");
        let facts = self.0.react(event, Arrival { attempt, now }, &POLICY);
        self.record(facts.map_err(|e| format!("{:?}: {e}", e.kind()))?);
        Ok(())
    }

    fn record(&mut self, facts: Vec<Fact>) {
        let before = self.0.outcome();
        for fact in facts {
            self.0.apply(&fact);
            let told = self.0.announce(&fact).unwrap();
            self.1.extend(told.iter().map(|t| t.event_type));
        }
        if before != Outcome::Failed && self.0.outcome() == Outcome::Failed {
            let told = self.0.compensate().unwrap();
            self.1.extend(told.iter().map(|t| t.event_type));
        }
    }

    fn count(&self, event_type: &str) -> usize {
        self.1.iter().filter(|t| **t == event_type).count()
    }
}

/// An order that got these.
fn after(events: &[&str]) -> Told {
    let mut told = Told::default();
    for name in events {
        told.gets(&event(name), 1).unwrap();
    }
    told
}

#[test]
fn stock_and_payment_confirm_it_in_any_order() {
    for [first, second] in [
        ["Inventory.Stock.Reserved", "Payment.Order.Paid"],
        ["Payment.Order.Paid", "Inventory.Stock.Reserved"],
    ] {
        let mut told = after(&["Order.Created", first]);
        assert_eq!(told.0.outcome(), Outcome::Running);
        let due = told.0.deadline().unwrap().unwrap().at;
        assert_eq!(due, at("2026-01-01T00:15:01Z"));
        told.gets(&event(second), 1).unwrap();
        assert_eq!(told.0.status, Status::Confirmed);
        assert!(told.0.deadline().unwrap().is_none());
        assert_eq!(told.count("Order.Confirmed"), 1);
        assert_eq!(told.count("Order.Paid"), 1);
    }
}

#[test]
fn what_comes_before_its_order_is_tried_again_once() {
    let mut told = Told::default();
    let early = event("Payment.Order.Paid");
    let first = told.gets(&early, 1).unwrap_err();
    assert!(
        first.starts_with("Retry: Payment.Order.Paid: order 7 was never placed yet"),
        "{first}"
    );
    let second = told.gets(&early, 2).unwrap_err();
    assert_eq!(
        second,
        "Reject: Payment.Order.Paid: order 7 was never placed"
    );
}

#[test]
fn a_refund_of_what_was_never_paid_is_refused() {
    let mut told = after(&["Order.Created"]);
    let refund = event("Payment.Order.Refunded");
    assert!(told.gets(&refund, 1).unwrap_err().starts_with("Retry"));
    assert!(told.gets(&refund, 2).unwrap_err().starts_with("Reject"));
    told.gets(&event("Payment.Order.Paid"), 1).unwrap();
    // Whoever refunds was told of a cancellation, and has told of it.
    told.gets(&refund, 1).unwrap();
    told.gets(&refund, 1).unwrap();
    assert!(told.0.refunded);
    told.gets(&event("Inventory.Stock.Rejected"), 1).unwrap();
    assert_eq!(
        (told.0.status, &*told.0.reason),
        (Status::Cancelled, "refunded")
    );
    assert_eq!(told.1, ["Order.Paid"]);
}

#[test]
fn another_amount_than_the_total_is_refused() {
    let mut told = after(&["Order.Created"]);
    let error = told.gets(&with("Payment.Order.Paid", json!({"amount": 19.98})), 1);
    let error = error.unwrap_err();
    assert!(error.starts_with("Reject: /data/amount: 19.98"), "{error}");
}

#[test]
fn who_cancels_from_outside_has_told_the_world_already() {
    let mut told = after(&["Order.Created", "Order.Cancelled"]);
    assert_eq!(told.0.status, Status::Cancelled);
    assert_eq!(told.count("Order.Cancelled"), 0);
    told.gets(&event("Order.DeadlinePassed"), 1).unwrap();
    assert_eq!(told.1, [""; 0]);
}

#[test]
fn commands_are_refused_where_they_do_not_fit() {
    let now = at("2026-01-01T00:00:01Z");
    let cancel = || Command::Cancel {
        reason: "customer".into(),
        at: now,
    };
    let ship = || Command::Ship {
        carrier: String::new(),
        tracking_number: String::new(),
        at: now,
    };
    assert_eq!(Order::default().decide(cancel()), Err(Refusal::Unknown));
    let mut told = after(&["Order.Created"]);
    let arrival = Arrival { attempt: 1, now };
    let placed = Order::default().react(&event("Order.Created"), arrival, &POLICY);
    let again = told.0.decide(Command::Place(placed.unwrap().remove(0)));
    assert_eq!(again, Err(Refusal::Exists(7)));
    let refusal = told.0.decide(ship()).unwrap_err().to_string();
    assert_eq!(
        refusal,
        "order 7 is pending: it cannot be shipped any more, or not yet"
    );
    for name in ["Inventory.Stock.Reserved", "Payment.Order.Paid"] {
        told.gets(&event(name), 1).unwrap();
    }
    for command in [ship(), Command::Deliver { at: now }] {
        let facts = told.0.decide(command).unwrap();
        told.record(facts);
    }
    assert_eq!(told.0.status, Status::Delivered);
    let late = told.gets(&event("Order.Cancelled"), 1).unwrap_err();
    assert!(
        late.starts_with("Reject: order 7 is delivered: it cannot be cancelled"),
        "{late}"
    );
    assert!(told.0.decide(cancel()).is_err());
    assert_eq!(told.1[2..], ["Order.Shipped", "Order.Delivered"]);
}

proptest! {
    /// Any sequence with any repetitions: confirmed or cancelled once and never both; and a state
    /// that the history makes again.
    #[test]
    fn it_ends_once_whatever_comes(sequence in prop::collection::vec(0..EVENTS.len(), 0..24)) {
        let mut told = Told::default();
        told.gets(&event("Order.Created"), 1).unwrap();
        let (mut reserved, mut paid, mut refused) = (false, false, false);
        for name in sequence.iter().map(|&i| EVENTS[i]) {
            told.gets(&event(name), 1).unwrap();
            let confirmed = reserved && paid;
            let open = !refused && !confirmed;
            match name {
                "Inventory.Stock.Reserved" => reserved |= open,
                "Payment.Order.Paid" => paid |= open,
                "Order.Created" => {}
                _ => refused |= open,
            }
        }
        let (confirmed, cancelled) = (told.count("Order.Confirmed"), told.count("Order.Cancelled"));
        prop_assert_eq!(confirmed, usize::from(reserved && paid && !refused));
        prop_assert_eq!(cancelled, usize::from(refused));
        prop_assert_eq!(told.0.outcome() == Outcome::Running, confirmed + cancelled == 0);
    }
}
