//! The sandbox gateway over HTTP/1.1: reads requests, keeps to the rules, writes answers.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::book::{Asked, Charge};
use super::journal::Journal;
use super::rules::{Failing, Failures, Rules};

/// Bytes of the largest request.
const MAX_BODY: usize = 64 * 1024;
/// Bytes of the longest key.
const MAX_KEY: usize = 255;

struct Gateway {
    journal: Mutex<Journal>,
    rules: Mutex<Rules>,
    failures: Mutex<Failures>,
    /// Charges and voids that are not answered yet.
    under_way: AtomicUsize,
}

/// A charge as it is asked for.
#[derive(Deserialize)]
struct ChargeRequest {
    order_id: i64,
    #[serde(with = "streamfleet::money")]
    amount: Decimal,
}

/// What is asked for.
enum Asking {
    Charge { key: String, asked: Asked },
    Void { key: String },
}

type Answer = (StatusCode, Value);

/// Serves until the process ends. Whatever was answered is in the books, so it may end at any time.
pub(crate) async fn serve(listener: TcpListener, journal: Journal, rules: Rules) {
    let gateway = Arc::new(Gateway {
        journal: Mutex::new(journal),
        rules: Mutex::new(rules),
        failures: Mutex::default(),
        under_way: AtomicUsize::new(0),
    });
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: others must end first.
                eprintln!("sandbox-gateway: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let gateway = gateway.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| respond(gateway.clone(), request));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            // A client that goes away is no matter.
            let _ = connection.await;
        });
    }
}

async fn respond(
    gateway: Arc<Gateway>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, body) = gateway.answer(request).await;
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    Ok(response)
}

impl Gateway {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let body = match Limited::new(body, MAX_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return problem(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        let path: Vec<&str> = head.uri.path().split('/').skip(1).collect();
        let asking = match (&head.method, path.as_slice()) {
            (&Method::GET, ["ledger"]) => return (StatusCode::OK, self.ledger()),
            (&Method::GET, ["rules"]) => return (StatusCode::OK, json!(*lock(&self.rules))),
            (&Method::POST, ["rules"]) => return self.change_rules(&body),
            (&Method::POST, ["charges"]) => {
                let key = head.headers.get("idempotency-key");
                charge_request(key.and_then(|key| key.to_str().ok()), &body)
            }
            (&Method::POST, ["charges", key, "void"]) => {
                checked_key(Some(*key)).map(|key| Asking::Void { key })
            }
            _ => return problem(StatusCode::NOT_FOUND, "there is no such thing here"),
        };
        match asking {
            Ok(asking) => {
                // A task of its own: a client that waits no longer does not undo what it asked for.
                let carried_out = tokio::spawn(async move {
                    self.under_way.fetch_add(1, Ordering::SeqCst);
                    let answer = self.carry_out(asking).await;
                    self.under_way.fetch_sub(1, Ordering::SeqCst);
                    answer
                });
                carried_out
                    .await
                    .unwrap_or_else(|error| internal(&error.to_string()))
            }
            Err(message) => problem(StatusCode::BAD_REQUEST, &message),
        }
    }

    fn ledger(&self) -> Value {
        let mut ledger = json!(lock(&self.journal).ledger());
        ledger["under_way"] = json!(self.under_way.load(Ordering::SeqCst));
        ledger
    }

    fn change_rules(&self, body: &[u8]) -> Answer {
        let mut rules = lock(&self.rules);
        match rules.changed(body) {
            Ok(changed) => {
                *rules = changed;
                (StatusCode::OK, json!(*rules))
            }
            Err(message) => problem(StatusCode::BAD_REQUEST, &message),
        }
    }

    async fn carry_out(&self, asking: Asking) -> Answer {
        let rules = lock(&self.rules).clone();
        if rules.outage {
            return problem(
                StatusCode::SERVICE_UNAVAILABLE,
                "the gateway is down, by rule",
            );
        }
        let failing = lock(&self.failures).next(rules.fail_rate);
        if failing == Failing::Before {
            return internal("failed before anything happened, by rule");
        }
        tokio::time::sleep(Duration::from_millis(rules.delay_ms)).await;
        let answer = self.look_at(asking, rules.decline_above);
        tokio::time::sleep(Duration::from_millis(rules.answer_delay_ms)).await;
        match failing {
            Failing::After => internal("failed after it had happened, by rule"),
            _ => answer,
        }
    }

    /// One at a time: this is what makes a key be charged once.
    fn look_at(&self, asking: Asking, decline_above: Option<Decimal>) -> Answer {
        let mut journal = lock(&self.journal);
        let answer = match asking {
            Asking::Charge { key, asked } => journal.charge(&key, &asked, decline_above).map(charged),
            Asking::Void { key } => journal.void(&key).map(|refund| match refund {
                Some(refund) => (
                    StatusCode::OK,
                    json!({"refund_id": refund.refund_id, "charge_id": refund.charge_id, "amount": refund.amount}),
                ),
                None => (StatusCode::OK, json!({"refund_id": null})),
            }),
        };
        answer.unwrap_or_else(|error| internal(&format!("the books cannot be written: {error}")))
    }
}

fn charged(charge: Charge) -> Answer {
    match charge {
        Charge::Made { charge_id, amount } => (
            StatusCode::CREATED,
            json!({"charge_id": charge_id, "amount": amount}),
        ),
        Charge::Declined { reason } => (StatusCode::PAYMENT_REQUIRED, json!({"reason": reason})),
        Charge::Voided => (StatusCode::CONFLICT, json!({"reason": "voided"})),
        Charge::KeyReused => (StatusCode::CONFLICT, json!({"reason": "key_reused"})),
        Charge::Impossible(message) => problem(StatusCode::UNPROCESSABLE_ENTITY, &message),
    }
}

fn charge_request(key: Option<&str>, body: &[u8]) -> Result<Asking, String> {
    let key = checked_key(key)?;
    let ChargeRequest { order_id, amount } =
        serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let asked = Asked::new(order_id, amount);
    Ok(Asking::Charge { key, asked })
}

fn checked_key(key: Option<&str>) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
    match key {
        Some(key) if (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(plain) => {
            Ok(key.to_owned())
        }
        _ => Err(format!(
            "an Idempotency-Key is needed: 1 to {MAX_KEY} letters, digits, `-`, `_`, `.` or `:`"
        )),
    }
}

fn problem(status: StatusCode, message: &str) -> Answer {
    (status, json!({"message": message}))
}

fn internal(message: &str) -> Answer {
    problem(StatusCode::INTERNAL_SERVER_ERROR, message)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks panics half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
