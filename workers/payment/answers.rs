//! What the answers of the payment gateway mean: pure functions.
//!
//! Whatever is not clearly an answer counts as none, because the request may be sent again. And what
//! the gateway would answer to any request is no fault of this order.

use hyper::StatusCode;
use rust_decimal::Decimal;
use serde::Deserialize;
use streamfleet::HandlerError;

use super::decide::Refunded;

/// Characters of a reason that are kept.
const MAX_REASON: usize = 100;

/// What a charge came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Charge {
    Made {
        charge_id: String,
    },
    Declined {
        reason: String,
    },
    /// The order was cancelled: its key is void.
    Voided,
}

#[derive(Deserialize)]
struct Made {
    charge_id: String,
}

/// Of a charge that was not made.
#[derive(Deserialize, Default)]
struct NotMade {
    #[serde(default)]
    reason: String,
}

/// Of a void; null if there was nothing to refund.
#[derive(Deserialize)]
struct Voided {
    // Required: an answer without it says nothing about what was charged.
    #[serde(deserialize_with = "Option::deserialize")]
    refund_id: Option<String>,
    #[serde(default, with = "streamfleet::money::option")]
    amount: Option<Decimal>,
}

/// The answer to a charge.
pub(crate) fn read_charge(status: StatusCode, answer: &[u8]) -> Result<Charge, HandlerError> {
    let reason = || {
        serde_json::from_slice::<NotMade>(answer)
            .unwrap_or_default()
            .reason
    };
    match status {
        StatusCode::OK | StatusCode::CREATED => match serde_json::from_slice(answer) {
            Ok(Made { charge_id }) if is_id(&charge_id) => Ok(Charge::Made { charge_id }),
            _ => Err(senseless(status, answer)),
        },
        StatusCode::PAYMENT_REQUIRED => Ok(Charge::Declined {
            reason: match excerpt(&reason(), MAX_REASON) {
                reason if reason.is_empty() => "declined".to_owned(),
                reason => reason,
            },
        }),
        StatusCode::CONFLICT => match reason().as_str() {
            "voided" => Ok(Charge::Voided),
            // Another event of this order is charged at the same time, with another total: its
            // record will tell.
            _ => Err(HandlerError::retry(described(status, answer))),
        },
        _ => Err(refusal(status, answer)),
    }
}

/// The answer to a void: the refund, if there was something to refund.
pub(crate) fn read_void(
    status: StatusCode,
    answer: &[u8],
) -> Result<Option<Refunded>, HandlerError> {
    if status != StatusCode::OK {
        return Err(refusal(status, answer));
    }
    match serde_json::from_slice(answer) {
        Ok(Voided {
            refund_id: None, ..
        }) => Ok(None),
        Ok(Voided {
            refund_id: Some(refund_id),
            amount: Some(amount),
        }) if is_id(&refund_id) => Ok(Some(Refunded { refund_id, amount })),
        _ => Err(senseless(status, answer)),
    }
}

/// An answer that is none of those that are expected.
fn refusal(status: StatusCode, answer: &[u8]) -> HandlerError {
    let told = described(status, answer);
    let of_this_request = status.is_client_error()
        && !matches!(
            status,
            StatusCode::UNAUTHORIZED
                | StatusCode::FORBIDDEN
                | StatusCode::NOT_FOUND
                | StatusCode::METHOD_NOT_ALLOWED
                | StatusCode::PROXY_AUTHENTICATION_REQUIRED
                | StatusCode::REQUEST_TIMEOUT
                | StatusCode::TOO_EARLY
                | StatusCode::TOO_MANY_REQUESTS
        );
    match of_this_request {
        true => HandlerError::reject(told),
        // Down, busy, or not what the worker was told it is: every order would be answered so.
        false => HandlerError::unavailable(told),
    }
}

fn senseless(status: StatusCode, answer: &[u8]) -> HandlerError {
    let told = described(status, answer);
    HandlerError::unavailable(format!("{told}, which is no answer to this"))
}

fn described(status: StatusCode, answer: &[u8]) -> String {
    let body = excerpt(&String::from_utf8_lossy(answer), 200);
    format!("the gateway answered {} {body}", status.as_u16())
}

/// The beginning of what the gateway says, on one line.
fn excerpt(text: &str, chars: usize) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let text: String = text.chars().take(chars).map(plain).collect();
    text.trim().to_owned()
}

/// Fits the schemas of our events.
fn is_id(id: &str) -> bool {
    (1..=MAX_REASON).contains(&id.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamfleet::error::Failure;

    fn failure<T: std::fmt::Debug>(answer: Result<T, HandlerError>) -> Failure {
        answer.unwrap_err().kind()
    }

    fn status(code: u16) -> StatusCode {
        StatusCode::from_u16(code).unwrap()
    }

    #[test]
    fn a_charge_is_made_declined_or_voided() {
        let read = |code, answer: &str| read_charge(status(code), answer.as_bytes()).unwrap();
        let made = read(201, r#"{"charge_id":"c-1","amount":"1.00"}"#);
        let charge_id = "c-1".to_owned();
        assert_eq!(made, Charge::Made { charge_id });
        let declined = |reason: &str| Charge::Declined {
            reason: reason.to_owned(),
        };
        assert_eq!(read(402, r#"{"reason":"limit"}"#), declined("limit"));
        assert_eq!(read(402, "<html>"), declined("declined"));
        let long = format!(r#"{{"reason":"a\n{}"}}"#, "x".repeat(500));
        let cut = format!("a {}", "x".repeat(98));
        assert_eq!(read(402, &long), declined(&cut));
        assert_eq!(read(409, r#"{"reason":"voided"}"#), Charge::Voided);
    }

    #[test]
    fn what_is_no_clear_answer_is_no_answer() {
        let charge = |code, answer: &str| failure(read_charge(status(code), answer.as_bytes()));
        for answer in [
            "",
            "{}",
            "<html>",
            r#"{"charge_id":""}"#,
            r#"{"charge_id":7}"#,
        ] {
            assert_eq!(charge(201, answer), Failure::Unavailable, "{answer}");
        }
        let void = |answer: &str| failure(read_void(StatusCode::OK, answer.as_bytes()));
        for answer in [
            "",
            "[]",
            "{}",
            r#"{"refund_id":"r"}"#,
            r#"{"refund_id":"","amount":"1"}"#,
        ] {
            assert_eq!(void(answer), Failure::Unavailable, "{answer}");
        }
    }

    #[test]
    fn a_refund_is_read_exactly() {
        let read = |answer: &str| read_void(StatusCode::OK, answer.as_bytes()).unwrap();
        let refunded = Refunded {
            refund_id: "r-1".to_owned(),
            amount: "12.30".parse().unwrap(),
        };
        let answer = r#"{"refund_id":"r-1","amount":"12.30"}"#;
        assert_eq!(read(answer), Some(refunded));
        assert_eq!(read(r#"{"refund_id":null}"#), None);
    }

    #[test]
    fn the_status_tells_whose_fault_it_is() {
        for (code, expected) in [
            (500, Failure::Unavailable),
            (503, Failure::Unavailable),
            (302, Failure::Unavailable),
            (401, Failure::Unavailable),
            (404, Failure::Unavailable),
            (429, Failure::Unavailable),
            (400, Failure::Reject),
            (422, Failure::Reject),
        ] {
            assert_eq!(failure(read_charge(status(code), b"x")), expected, "{code}");
            assert_eq!(failure(read_void(status(code), b"x")), expected, "{code}");
        }
        let reused = read_charge(StatusCode::CONFLICT, br#"{"reason":"key_reused"}"#);
        assert_eq!(failure(reused), Failure::Retry);
    }
}
