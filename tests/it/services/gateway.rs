//! The sandbox gateway as a process, and a client for it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::support::eventually;

pub struct Gateway {
    child: Option<Child>,
    /// `127.0.0.1:port`, the same in every life.
    address: String,
    state: PathBuf,
}

impl Gateway {
    /// Starts one with its books in the folder.
    pub fn start(folder: &Path) -> Self {
        let mut gateway = Self {
            child: None,
            address: "127.0.0.1:0".to_owned(),
            state: folder.join("books.jsonl"),
        };
        gateway.run();
        gateway
    }

    /// Starts it, again at the same address.
    pub fn run(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sandbox-gateway"));
        command.args(["--listen", &self.address, "--state"]);
        command.arg(&self.state).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://");
        self.address = address.unwrap_or_else(|| panic!("{line:?}")).to_owned();
        self.child = Some(child);
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// One request, and the status and body of its answer.
    pub fn ask(&self, method: &str, path: &str, key: &str, body: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let key = match key {
            "" => String::new(),
            key => format!("Idempotency-Key: {key}\r\n"),
        };
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{key}Content-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap())
    }

    /// Changes rules.
    pub fn rules(&self, change: Value) {
        let (status, answer) = self.ask("POST", "/rules", "", &change.to_string());
        assert_eq!(status, 200, "{answer}");
    }

    pub fn ledger(&self) -> Value {
        self.ask("GET", "/ledger", "", "").1
    }

    /// What was charged, what was refunded, in how many charges and refunds.
    pub fn books(&self) -> (String, String, u64, u64) {
        let ledger = self.ledger();
        let text = |field| ledger[field].as_str().unwrap().to_owned();
        let count = |field| ledger[field].as_u64().unwrap();
        (
            text("charged"),
            text("refunded"),
            count("charges"),
            count("refunds"),
        )
    }

    /// Waits until so many requests are under way.
    pub fn is_asked(&self, requests: u64) {
        eventually("the gateway is asked", || {
            (self.ledger()["under_way"] == requests).then_some(())
        });
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sixteen at a time, and again after a restart: one charge per key.
#[test]
fn a_key_is_charged_once_whoever_asks_and_however_often() {
    let folder = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(folder.path());
    gateway.rules(json!({"answer_delay_ms": 20, "fail_rate": 0.25}));
    let charge = |gateway: &Gateway| {
        let body = r#"{"order_id": 1, "amount": "0.10"}"#;
        let (status, answer) = gateway.ask("POST", "/charges", "order-1", body);
        (status == 201).then(|| answer["charge_id"].to_string())
    };
    let mut charges: Vec<_> = std::thread::scope(|scope| {
        let ask = || (0..4).filter_map(|_| charge(&gateway)).collect::<Vec<_>>();
        let asking: Vec<_> = (0..16).map(|_| scope.spawn(ask)).collect();
        asking
            .into_iter()
            .flat_map(|asked| asked.join().unwrap())
            .collect()
    });
    assert_eq!(charges.len(), 48, "a quarter of 64 failed");
    gateway.kill();
    gateway.run();
    charges.push(charge(&gateway).unwrap());
    charges.dedup();
    assert_eq!(charges.len(), 1, "{charges:?}");
    assert_eq!(gateway.books(), ("0.10".into(), "0".into(), 1, 0));

    let other = r#"{"order_id": 1, "amount": "0.20"}"#;
    let (status, answer) = gateway.ask("POST", "/charges", "order-1", other);
    assert_eq!(
        (status, answer["reason"].as_str()),
        (409, Some("key_reused"))
    );
    let void = |key: &str| {
        gateway
            .ask("POST", &format!("/charges/{key}/void"), "", "")
            .1
    };
    assert_eq!(void("order-1")["amount"], "0.10");
    assert_eq!(void("order-1"), void("order-1"));
    assert_eq!(void("order-2")["refund_id"], Value::Null);
    let late = r#"{"order_id": 2, "amount": 5}"#;
    let (status, answer) = gateway.ask("POST", "/charges", "order-2", late);
    assert_eq!((status, answer["reason"].as_str()), (409, Some("voided")));
    assert_eq!(gateway.books(), ("0.10".into(), "0.10".into(), 1, 1));
}

/// What callers authenticate with is in its memory.
#[test]
fn it_writes_no_core_dump() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(folder.path());
    let pid = gateway.child.as_ref().unwrap().id();
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let soft = core.unwrap().split_whitespace().nth(4);
    assert_eq!(soft, Some("0"), "{limits}");
}

#[test]
fn what_is_no_request_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(folder.path());
    let good = r#"{"order_id": 1, "amount": "1"}"#;
    for (path, key, body, expected) in [
        ("/charges", "", good, 400),
        ("/charges", "a b", good, 400),
        ("/charges", "a", "{}", 400),
        ("/charges", "a", r#"{"order_id": 1, "amount": "1e99"}"#, 400),
        (
            "/charges",
            "a",
            r#"{"order_id": 1, "amount": "0.001"}"#,
            422,
        ),
        ("/charges/%20/void", "", "", 400),
        ("/charges/a/avoid", "", "", 404),
        ("/rules", "", r#"{"outrage": true}"#, 400),
    ] {
        let (status, answer) = gateway.ask("POST", path, key, body);
        assert_eq!(status, expected, "{path} {body}: {answer}");
        assert!(answer["message"].is_string(), "{answer}");
    }
    let large = format!(r#"{{"order_id": 1, "amount": "{}"}}"#, "1".repeat(70_000));
    assert_eq!(gateway.ask("POST", "/charges", "a", &large).0, 400);
    assert_eq!(gateway.books(), ("0".into(), "0".into(), 0, 0));
}
