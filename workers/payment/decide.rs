//! What the payment service decides, apart from Redis, events and the gateway: pure functions.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use streamfleet::money;

/// How an order's payment stands; the newest event of `es:Payment:<order_id>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Payment {
    /// Never heard of.
    None,
    /// Paid.
    Charged(Charged),
    /// The gateway declined.
    Declined,
    /// Refunded, or cancelled with nothing to refund: nothing will happen any more.
    Closed,
}

/// What an order has to pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    Charge(Decimal),
}

/// An amount that cannot be charged. No retry will help.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum AmountError {
    #[error("{digits}: {cause}")]
    Unreadable {
        digits: String,
        cause: rust_decimal::Error,
    },
    #[error("{0} is below zero")]
    Negative(Decimal),
    #[error("{0} is not a whole number of cents; amounts are charged exactly and never rounded")]
    Fraction(Decimal),
}

/// `Payment.Charged`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Charged {
    #[serde(with = "streamfleet::money")]
    amount: Decimal,
    /// None if there was nothing to pay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    charge_id: Option<String>,
}

/// `Payment.Declined`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Declined {
    #[serde(with = "streamfleet::money")]
    pub(crate) amount: Decimal,
    pub(crate) reason: String,
}

/// `Payment.Refunded`: what the gateway has paid back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refunded {
    pub(crate) refund_id: String,
    #[serde(with = "streamfleet::money")]
    pub(crate) amount: Decimal,
}

/// How a cancellation closes a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    /// Nothing had been charged.
    Cancelled,
    Refunded(Refunded),
}

/// Our record and the gateway's books contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "order {order_id} was paid by {charge_id}, of which the gateway knows nothing under {key}: nothing was refunded; compare with its books, then redrive this"
)]
pub(crate) struct ChargeUnknown {
    order_id: i64,
    charge_id: String,
    key: String,
}

/// What the gateway knows an order by. It has nothing of the event, so that one order is one charge
/// under whatever event ID it comes.
pub(crate) fn key(order_id: i64) -> String {
    format!("order-{order_id}")
}

/// What an order with this total, as JSON, has to pay.
pub(crate) fn due(total: &str) -> Result<Due, AmountError> {
    let amount = money::parse(total).map_err(|cause| AmountError::Unreadable {
        digits: total.chars().take(40).collect(),
        cause,
    })?;
    if amount.is_zero() {
        Ok(Due::Nothing)
    } else if amount.is_sign_negative() {
        Err(AmountError::Negative(amount))
    } else if amount.normalize().scale() > 2 {
        Err(AmountError::Fraction(amount))
    } else {
        Ok(Due::Charge(amount))
    }
}

/// Whether an order is to be answered: only the first time, and not once it was cancelled.
pub(crate) fn is_to_be_answered(payment: &Payment) -> bool {
    *payment == Payment::None
}

/// What a cancellation comes to, when the gateway has voided the key and refunded this.
pub(crate) fn close(
    order_id: i64,
    payment: &Payment,
    refunded: Option<Refunded>,
) -> Result<Closing, ChargeUnknown> {
    match (refunded, payment) {
        // Also for what we have no record of: its handler has not committed, and will not.
        (Some(refunded), _) => Ok(Closing::Refunded(refunded)),
        (
            None,
            Payment::Charged(Charged {
                charge_id: Some(charge_id),
                ..
            }),
        ) => Err(ChargeUnknown {
            order_id,
            charge_id: charge_id.clone(),
            key: key(order_id),
        }),
        (None, _) => Ok(Closing::Cancelled),
    }
}

impl Charged {
    /// An order of zero.
    pub(crate) fn nothing() -> Self {
        Self {
            amount: Decimal::ZERO,
            charge_id: None,
        }
    }

    /// A charge at the gateway.
    pub(crate) fn by(charge_id: String, amount: Decimal) -> Self {
        Self {
            amount,
            charge_id: Some(charge_id),
        }
    }
}

/// What was stored about an order's payment, as the data of the event that tells others.
#[derive(Serialize)]
pub(crate) struct Answer<'a, T> {
    order_id: i64,
    #[serde(flatten)]
    stored: &'a T,
    #[serde(flatten)]
    time: BTreeMap<&'static str, Timestamp>,
}

impl<'a, T> Answer<'a, T> {
    /// `field` is its name for the event time of what is answered.
    pub(crate) fn new(order_id: i64, stored: &'a T, field: &'static str, at: Timestamp) -> Self {
        Self {
            order_id,
            stored,
            time: BTreeMap::from([(field, at)]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    fn charged() -> Charged {
        Charged::by("charge-1".into(), decimal("12.30"))
    }

    fn refunded() -> Refunded {
        Refunded {
            refund_id: "refund-1".into(),
            amount: decimal("12.30"),
        }
    }

    #[test]
    fn amounts_are_charged_exactly_or_refused() {
        for (total, amount) in [
            ("20.555e1", "205.55"),
            ("0.01", "0.01"),
            ("12.300", "12.300"),
            ("1e3", "1000"),
            (
                "99999999999999999999999999.99",
                "99999999999999999999999999.99",
            ),
        ] {
            assert_eq!(due(total), Ok(Due::Charge(decimal(amount))), "{total}");
        }
        for zero in ["0", "0.00", "-0", "0e9"] {
            assert_eq!(due(zero), Ok(Due::Nothing), "{zero}");
        }
        assert!(matches!(due("-0.01"), Err(AmountError::Negative(_))));
        assert!(matches!(due("20.555"), Err(AmountError::Fraction(_))));
        for total in ["1e40", "1e-40", "0.12345678901234567890123456789012"] {
            let error = due(total).unwrap_err();
            assert!(matches!(&error, AmountError::Unreadable { .. }), "{total}");
            assert!(error.to_string().starts_with(&total[..4]), "{error}");
        }
    }

    #[test]
    fn an_order_is_answered_once_and_not_after_its_cancellation() {
        assert!(is_to_be_answered(&Payment::None));
        for payment in [
            Payment::Charged(charged()),
            Payment::Declined,
            Payment::Closed,
        ] {
            assert!(!is_to_be_answered(&payment), "{payment:?}");
        }
    }

    #[test]
    fn a_cancellation_refunds_whatever_the_gateway_refunded() {
        for payment in [
            Payment::None,
            Payment::Declined,
            Payment::Charged(charged()),
        ] {
            let closing = close(7, &payment, Some(refunded()));
            assert_eq!(closing, Ok(Closing::Refunded(refunded())), "{payment:?}");
        }
    }

    #[test]
    fn a_cancellation_with_nothing_to_refund_is_remembered() {
        for payment in [
            Payment::None,
            Payment::Declined,
            Payment::Charged(Charged::nothing()),
        ] {
            assert_eq!(
                close(7, &payment, None),
                Ok(Closing::Cancelled),
                "{payment:?}"
            );
        }
    }

    #[test]
    fn a_charge_that_the_gateway_does_not_know_is_not_taken_for_refunded() {
        let error = close(7, &Payment::Charged(charged()), None).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("charge-1") && text.contains("order-7"),
            "{text}"
        );
    }

    #[test]
    fn answers_keep_every_digit() {
        let at = "2026-01-05T10:00:00Z".parse().unwrap();
        let json = |charged: &Charged| {
            serde_json::to_string(&Answer::new(7, charged, "paid_at", at)).unwrap()
        };
        assert_eq!(
            json(&charged()),
            r#"{"order_id":7,"amount":12.30,"charge_id":"charge-1","paid_at":"2026-01-05T10:00:00Z"}"#
        );
        assert_eq!(
            json(&Charged::nothing()),
            r#"{"order_id":7,"amount":0,"paid_at":"2026-01-05T10:00:00Z"}"#
        );
    }
}
