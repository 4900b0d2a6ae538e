//! payment-service against the sandbox gateway: what is charged, what becomes of it, and that it is
//! right to the cent whatever fails.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

use redis::Commands;
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::json;
use streamfleet::Event;
use uuid::Uuid;

use super::gateway::Gateway;
use crate::shop::brisk_shop;
use crate::support::cli::run;
use crate::support::fleet::Process;
use crate::support::{Fleet, eventually};

/// The shop with its router and a gateway.
pub(super) struct Till {
    pub(super) gateway: Gateway,
    _router: Process,
    pub(super) fleet: Fleet,
}

/// `Payment.Order.*`, as others read it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Answer {
    #[serde(skip)]
    pub(super) what: String,
    pub(super) order_id: i64,
    #[serde(with = "streamfleet::money")]
    pub(super) amount: Decimal,
    charge_id: Option<String>,
    reason: Option<String>,
}

impl Till {
    pub(super) fn open() -> Self {
        let fleet = brisk_shop(|text| text);
        Self {
            gateway: Gateway::start(fleet.dir.path()),
            _router: fleet.router("r"),
            fleet,
        }
    }

    /// A worker with this more of an environment.
    pub(super) fn worker(&self, name: &str, more: &[(&str, &str)]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_payment-worker"));
        command.args(["--name", name]);
        command.env("STREAMFLEET_GATEWAY", self.gateway.url());
        command.envs(more.iter().copied());
        self.fleet.launch(command, name, "worker started")
    }

    pub(super) fn publish(&self, events: &[String]) {
        let mut pipeline = redis::pipe();
        for event in events {
            pipeline.xadd("inbox", "*", &[("event", event)]).ignore();
        }
        pipeline.exec(&mut self.fleet.connection()).unwrap();
    }

    /// All answers so far, in their order.
    pub(super) fn answers(&self) -> Vec<Answer> {
        let mut connection = self.fleet.connection();
        let stream: redis::streams::StreamRangeReply =
            connection.xrange_all("order-events").unwrap();
        let events = stream.ids.iter().map(|entry| {
            let text: String = entry.get("event").unwrap();
            Event::from_json(text.as_bytes()).unwrap()
        });
        let answers = events.filter(|event| event.event_type().starts_with("Payment."));
        let read = |event: Event| Answer {
            what: event.event_type().replace("Payment.Order.", ""),
            ..event.data().unwrap()
        };
        answers.map(read).collect()
    }

    /// What was answered to one order.
    pub(super) fn answers_to(&self, order_id: i64) -> Vec<String> {
        let mut answers = self.answers();
        answers.retain(|answer| answer.order_id == order_id);
        answers.into_iter().map(|answer| answer.what).collect()
    }

    /// Waits until nothing is owed, and so many answers are given.
    #[track_caller]
    pub(super) fn settles(&self, answers: usize) {
        eventually(&format!("{answers} answers"), || {
            (self.answers().len() >= answers).then_some(())
        });
        self.is_idle();
        assert_eq!(self.answers().len(), answers, "{:?}", self.answers());
    }

    /// Waits until nothing is owed, and every answer has gone through the door.
    pub(super) fn is_idle(&self) {
        self.fleet.drained();
        // What was committed while that was looked at may still be there.
        eventually("the answers are routed", || {
            (self.fleet.cli::<usize>("XLEN inbox") == 0).then_some(())
        });
    }

    /// Waits until everything is delivered, and so many deliveries are not settled.
    pub(super) fn owes(&self, deliveries: usize) {
        eventually(&format!("{deliveries} deliveries are left"), || {
            let mut connection = self.fleet.connection();
            // First of all: what is routed after this was not published by the test.
            let routed = self.fleet.cli::<usize>("XLEN inbox") == 0;
            let groups: redis::streams::StreamInfoGroupsReply =
                connection.xinfo_groups("order-events").unwrap();
            let stream: redis::streams::StreamInfoStreamReply =
                connection.xinfo_stream("order-events").unwrap();
            let group = groups
                .groups
                .iter()
                .find(|group| group.name == "payment-service")?;
            let delivered = group.last_delivered_id == stream.last_generated_id;
            (routed && delivered && group.pending == deliveries).then_some(())
        });
    }

    /// The history of an order's payment.
    pub(super) fn history(&self, order_id: i64) -> Vec<String> {
        let mut connection = self.fleet.connection();
        let key = format!("es:Payment:{order_id}");
        let history: redis::streams::StreamRangeReply = connection.xrange_all(key).unwrap();
        let types = history.ids.iter().map(|entry| entry.get("type").unwrap());
        types.collect()
    }

    pub(super) fn dead(&self) -> Vec<String> {
        let letters = self.fleet.dead("payment-service");
        letters
            .into_iter()
            .map(|mut letter| letter.remove("error").unwrap())
            .collect()
    }
}

fn event(event_type: &str, data: &str) -> String {
    let (id, flow) = (Uuid::new_v4(), Uuid::new_v4());
    format!(
        r#"{{"event_id":"{id}","event_type":"{event_type}","version":"1","timestamp":"2026-01-05T10:00:00Z","correlation_id":"{flow}","data":{data}}}"#
    )
}

pub(super) fn order(order_id: i64, total: &str) -> String {
    order_of(7, order_id, total)
}

fn order_of(user_id: i64, order_id: i64, total: &str) -> String {
    let data = format!(
        r#"{{"order_id":{order_id},"order_number":"N-{order_id}","user_id":{user_id},"total_amount":{total},"status":"pending","items":[],"shipping_address":{{"recipient":"A","phone":"1","address":"1 Road","city":"Lyon","province":"-"}},"created_at":"2026-01-05T10:00:00Z"}}"#
    );
    event("Order.Created", &data)
}

pub(super) fn cancellation(order_id: i64) -> String {
    let data = json!({"order_id": order_id, "user_id": 7, "reason": "changed_mind", "cancelled_at": "2026-01-05T11:00:00Z"});
    event("Order.Cancelled", &data.to_string())
}

#[test]
fn orders_are_paid_declined_or_impossible() {
    let till = Till::open();
    till.gateway.rules(json!({"decline_above": "100"}));
    let _worker = till.worker("w", &[]);
    till.publish(&[
        order(1, "20.10"),
        order(2, "100.01"),
        order(3, "0.00"),
        order_of(0, 4, "5.5"),
        order(5, "20.555"),
        order(6, "1e40"),
        order(7, "0.12345678901234567890123456789012"),
    ]);
    eventually("three are impossible", || {
        (till.dead().len() == 3).then_some(())
    });
    till.settles(4);
    let mut answers = till.answers();
    answers.sort_by_key(|answer| answer.order_id);
    let told: Vec<_> = answers
        .iter()
        .map(|a| (a.what.as_str(), a.amount.to_string(), a.charge_id.is_some()))
        .collect();
    let amount = |text: &str| text.to_owned();
    assert_eq!(
        told,
        [
            ("Paid", amount("20.10"), true),
            ("Declined", amount("100.01"), false),
            ("Paid", amount("0"), false),
            ("Paid", amount("5.5"), true)
        ]
    );
    assert_eq!(answers[1].reason.as_deref(), Some("limit_exceeded"));
    for error in till.dead() {
        assert!(error.starts_with("/data/total_amount: "), "{error}");
    }
    assert_eq!(till.gateway.books(), ("25.60".into(), "0".into(), 2, 0));
    assert_eq!(till.gateway.ledger()["declines"], 1);
    assert_eq!(till.history(1), ["Payment.Charged"]);
    assert_eq!(till.history(2), ["Payment.Declined"]);
    assert_eq!(till.history(3), ["Payment.Charged"]);
    assert!(till.history(5).is_empty());
}

/// One order under many event IDs, all at the same time, with two workers.
#[test]
fn one_order_is_never_two_charges_and_two_are_never_one() {
    let till = Till::open();
    till.gateway.rules(json!({"answer_delay_ms": 50}));
    let _workers = [till.worker("a", &[]), till.worker("b", &[])];
    let copies: Vec<_> = (0..10)
        .flat_map(|_| [order(1, "10"), order(2, "10")])
        .collect();
    till.publish(&copies);
    till.settles(2);
    // Another total changes nothing any more.
    till.publish(&[order(1, "99"), cancellation(3), order(4, "0.01")]);
    till.settles(3);
    assert_eq!(till.answers_to(1), ["Paid"]);
    assert_eq!(till.answers_to(2), ["Paid"]);
    assert_eq!(till.gateway.books(), ("20.01".into(), "0".into(), 3, 0));
    assert_eq!(till.dead(), [""; 0]);
}

/// Down for longer than all attempts would take: nobody is charged anything, not even an attempt.
#[test]
fn an_outage_charges_no_attempt_and_nothing_twice() {
    let mut till = Till::open();
    let worker = till.worker("w", &[]);
    till.gateway.rules(json!({"outage": true}));
    let orders: Vec<_> = (1..=5).map(|n| order(n, "1.01")).collect();
    till.publish(&orders);
    let failures = |said: &str| {
        let log = worker.log_text();
        let failed = log
            .lines()
            .filter(|line| line.contains("a delivery failed"));
        failed.filter(|line| line.contains(said)).count()
    };
    eventually("it was tried more often than there are attempts", || {
        (failures("503 ") > 5 * 3).then_some(())
    });
    assert_eq!(till.gateway.books(), ("0".into(), "0".into(), 0, 0));
    till.gateway.rules(json!({"outage": false}));
    till.settles(5);
    assert_eq!(till.gateway.books(), ("5.05".into(), "0".into(), 5, 0));

    till.gateway.kill();
    till.publish(&[order(6, "0.05"), cancellation(1)]);
    eventually("nobody is there", || {
        (failures("Connection refused") > 3).then_some(())
    });
    till.gateway.run();
    till.settles(7);
    assert_eq!(till.gateway.books(), ("5.10".into(), "1.01".into(), 6, 1));
    assert_eq!(till.dead(), [""; 0]);
    assert!(failures(r#""charged":false"#) > 15 && failures(r#""charged":true"#) == 0);
}

/// The gateway charges and answers too late: the next answer is of the same charge.
#[test]
fn an_answer_that_comes_too_late_is_asked_for_again() {
    let till = Till::open();
    let worker = till.worker("w", &[("STREAMFLEET_GATEWAY_TIMEOUT_MS", "200")]);
    till.gateway.rules(json!({"answer_delay_ms": 1_000}));
    till.publish(&[order(1, "3.30")]);
    worker.wait_for_log("no answer within 200ms");
    assert_eq!(till.gateway.books(), ("3.30".into(), "0".into(), 1, 0));
    assert!(till.answers().is_empty());
    till.gateway.rules(json!({"answer_delay_ms": 0}));
    till.settles(1);
    assert_eq!(till.answers_to(1), ["Paid"]);
    assert_eq!(till.gateway.books(), ("3.30".into(), "0".into(), 1, 0));
    assert!(!worker.log_text().contains(r#""charged":true"#));
}

/// A gateway that answers with too much, with half of it, with nonsense, and at last properly.
#[test]
fn what_is_no_answer_counts_as_none() {
    let till = Till::open();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let head = |length: usize| {
            format!("HTTP/1.1 201 Created\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n")
        };
        let good = r#"{"charge_id":"c-1"}"#;
        let answers = [
            head(1 << 20) + &"x".repeat(1 << 20),
            head(good.len()) + &good[..9],
            head(2) + "[]",
            "HTTP/1.1 oops\r\n\r\n".to_owned(),
            head(good.len()) + good,
        ];
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            // The request is read first: an answer before it could be lost with the connection.
            let mut request = [0; 4096];
            let mut read = 0;
            while !request[..read].ends_with(b"}") {
                read += stream.read(&mut request[read..]).unwrap();
            }
            // The worker may have seen enough.
            drop(stream.write_all(answer.as_bytes()));
        }
    });
    let worker = till.worker("w", &[("STREAMFLEET_GATEWAY", &address)]);
    till.publish(&[order(1, "3.30")]);
    till.settles(1);
    assert_eq!(till.answers()[0].charge_id.as_deref(), Some("c-1"));
    let log = worker.log_text();
    assert_eq!(log.matches("a delivery failed").count(), 4, "{log}");
    assert!(
        log.contains("length limit exceeded") && !log.contains(r#""charged":true"#),
        "{log}"
    );
    assert_eq!(till.dead(), [""; 0]);
}

#[test]
fn without_a_gateway_it_does_not_start() {
    for (address, told) in [
        (None, "sandbox-gateway --listen"),
        (Some(""), "STREAMFLEET_GATEWAY is not set"),
        (Some("https://pay.example"), "is not http://host:port"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_payment-worker"));
        command.env_remove("STREAMFLEET_GATEWAY");
        command.envs(address.map(|address| ("STREAMFLEET_GATEWAY", address)));
        let said = run(command, b"").failed(78);
        assert!(said.contains(told), "{said}");
    }
}
