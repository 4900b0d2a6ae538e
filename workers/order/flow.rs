//! The order as an aggregate and as the saga of its flow: placed, reserved and paid in any order,
//! confirmed; or cancelled, and undone. Pure: no Redis, no clock.
//!
//! | event | a pending order | else |
//! |---|---|---|
//! | Order.Created | (it is what makes it pending) | nothing: the first one counts |
//! | Inventory.Stock.Reserved | reserved; confirmed if paid | nothing |
//! | Payment.Order.Paid | paid; confirmed if reserved | nothing: who was too late refunds itself |
//! | Inventory.Stock.Rejected, Payment.Order.Declined, Order.DeadlinePassed | cancelled | nothing |
//! | Order.Cancelled (of someone else) | cancelled | cancelled; rejected if it was shipped |
//! | Payment.Order.Refunded | cancelled, and noted, if it was paid; else rejected | noted once |

use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::Number;
use streamfleet::saga::{Arrival, Deadline, FollowUp, Outcome, Saga};
use streamfleet::{Aggregate, EffectError, Event, HandlerError};
use uuid::Uuid;

/// Where an order stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Not placed yet.
    #[default]
    Unknown,
    /// Waits for its stock and its payment.
    Pending,
    Confirmed,
    Shipped,
    Delivered,
    Cancelled,
}

impl Status {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Pending => "pending",
            Self::Confirmed => "confirmed",
            Self::Shipped => "shipped",
            Self::Delivered => "delivered",
            Self::Cancelled => "cancelled",
        }
    }
}

/// An order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) status: Status,
    pub(crate) order_id: i64,
    pub(crate) order_number: String,
    /// As it was sent: any number that the schema takes for whole.
    pub(crate) user_id: Option<Number>,
    #[serde(with = "streamfleet::money")]
    pub(crate) total: Decimal,
    pub(crate) reserved: bool,
    pub(crate) paid: bool,
    pub(crate) refunded: bool,
    /// Why it was cancelled; empty if it was not.
    pub(crate) reason: String,
    /// Whether somebody else told the world that it was cancelled.
    cancelled_elsewhere: bool,
    /// Until when a pending order waits.
    deadline: Option<Timestamp>,
    /// Event time of the newest fact.
    pub(crate) at: Timestamp,
}

/// What can happen to an order: the events of `es:Order:<order_id>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub(crate) enum Fact {
    #[serde(rename = "Order.Placed")]
    Placed {
        order_id: i64,
        order_number: String,
        user_id: Number,
        #[serde(with = "streamfleet::money")]
        total: Decimal,
        deadline: Timestamp,
        /// The products of its lines.
        #[serde(default)]
        products: Vec<Number>,
        /// The Order.Created that says so.
        #[serde(default)]
        by: Option<Uuid>,
        at: Timestamp,
    },
    #[serde(rename = "Order.StockReserved")]
    StockReserved { at: Timestamp },
    #[serde(rename = "Order.Paid")]
    Paid { at: Timestamp },
    #[serde(rename = "Order.Confirmed")]
    Confirmed { at: Timestamp },
    #[serde(rename = "Order.Cancelled")]
    Cancelled {
        reason: String,
        /// Whether the event that says so was published by somebody else.
        elsewhere: bool,
        at: Timestamp,
    },
    #[serde(rename = "Order.Refunded")]
    Refunded { at: Timestamp },
    #[serde(rename = "Order.Shipped")]
    Shipped {
        carrier: String,
        tracking_number: String,
        at: Timestamp,
    },
    #[serde(rename = "Order.Delivered")]
    Delivered { at: Timestamp },
}

impl Fact {
    fn at(&self) -> Timestamp {
        match self {
            Self::Placed { at, .. }
            | Self::StockReserved { at }
            | Self::Paid { at }
            | Self::Confirmed { at }
            | Self::Cancelled { at, .. }
            | Self::Refunded { at }
            | Self::Shipped { at, .. }
            | Self::Delivered { at } => *at,
        }
    }
}

impl Aggregate for Order {
    const ENTITY: &'static str = "Order";
    const SHAPE: u32 = 1;
    type Event = Fact;

    fn apply(&mut self, fact: &Fact) {
        self.at = fact.at();
        match fact.clone() {
            Fact::Placed {
                order_id,
                order_number,
                user_id,
                total,
                deadline,
                ..
            } => {
                self.status = Status::Pending;
                self.order_id = order_id;
                self.order_number = order_number;
                self.user_id = Some(user_id);
                self.total = total;
                self.deadline = Some(deadline);
            }
            Fact::StockReserved { .. } => self.reserved = true,
            Fact::Paid { .. } => self.paid = true,
            Fact::Confirmed { .. } => self.status = Status::Confirmed,
            Fact::Cancelled {
                reason, elsewhere, ..
            } => {
                self.status = Status::Cancelled;
                self.reason = reason;
                self.cancelled_elsewhere = elsewhere;
            }
            Fact::Refunded { .. } => self.refunded = true,
            Fact::Shipped { .. } => self.status = Status::Shipped,
            Fact::Delivered { .. } => self.status = Status::Delivered,
        }
    }
}

/// The rules that the flow goes by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// How long an order waits for its stock and its payment.
    pub(crate) patience: SignedDuration,
}

/// `Order.Created`, as far as this service reads it.
#[derive(Deserialize)]
struct Created {
    order_id: i64,
    order_number: String,
    user_id: Number,
    #[serde(with = "streamfleet::money")]
    total_amount: Decimal,
    items: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    product_id: Number,
}

/// What all other events say of the order.
#[derive(Deserialize)]
struct About {
    order_id: i64,
}

#[derive(Deserialize)]
struct Reason {
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
struct Amount {
    #[serde(with = "streamfleet::money")]
    amount: Decimal,
}

impl Saga for Order {
    type Policy = Policy;

    fn instance(event: &Event) -> Result<String, HandlerError> {
        let About { order_id } = event.data()?;
        Ok(order_id.to_string())
    }

    fn react(
        &self,
        event: &Event,
        arrival: Arrival,
        policy: &Policy,
    ) -> Result<Vec<Fact>, HandlerError> {
        let at = event.timestamp();
        if self.status == Status::Unknown && event.event_type() != "Order.Created" {
            return Err(self.not_yet(event, arrival, "was never placed"));
        }
        let pending = self.status == Status::Pending;
        let cancelled = |reason: &str| {
            vec![Fact::Cancelled {
                reason: reason.to_owned(),
                elsewhere: false,
                at,
            }]
        };
        Ok(match event.event_type() {
            "Order.Created" if self.status == Status::Unknown => {
                let order: Created = event.data()?;
                vec![Fact::Placed {
                    order_id: order.order_id,
                    order_number: order.order_number,
                    user_id: order.user_id,
                    total: order.total_amount,
                    deadline: policy.deadline(arrival.now)?,
                    products: order
                        .items
                        .into_iter()
                        .map(|line| line.product_id)
                        .collect(),
                    by: Some(event.id()),
                    at,
                }]
            }
            "Inventory.Stock.Reserved" if pending && !self.reserved => {
                self.with(Fact::StockReserved { at }, self.paid)
            }
            "Payment.Order.Paid" if pending && !self.paid => {
                let Amount { amount } = event.data()?;
                if amount != self.total {
                    return Err(HandlerError::reject(format_args!(
                        "/data/amount: {amount} was paid for order {}, whose total is {}",
                        self.order_id, self.total
                    )));
                }
                self.with(Fact::Paid { at }, self.reserved)
            }
            "Inventory.Stock.Rejected" if pending => cancelled("out_of_stock"),
            "Payment.Order.Declined" if pending => cancelled("payment_declined"),
            "Order.DeadlinePassed" if pending => cancelled("timed_out"),
            "Order.Cancelled" if pending || self.status == Status::Confirmed => {
                let Reason { reason } = event.data()?;
                vec![Fact::Cancelled {
                    reason,
                    elsewhere: true,
                    at,
                }]
            }
            "Payment.Order.Refunded" if self.refunded => Vec::new(),
            // It may come without a payment before it: what was charged and cancelled at the same time
            // is refunded and never told as paid. Or before the cancellation that it answers, which may
            // have become a dead letter: only what was cancelled is refunded.
            "Payment.Order.Refunded" if self.status == Status::Cancelled => {
                vec![Fact::Refunded { at }]
            }
            "Payment.Order.Refunded" if self.paid && !self.is_on_its_way() => vec![
                Fact::Cancelled {
                    reason: "refunded".to_owned(),
                    elsewhere: true,
                    at,
                },
                Fact::Refunded { at },
            ],
            "Order.Cancelled" if self.is_on_its_way() => {
                return Err(HandlerError::reject(format_args!(
                    "order {} is {}: it cannot be cancelled any more, but its stock and its money were given back; \
                     cancel orders by command, which refuses this",
                    self.order_id,
                    self.status.as_str()
                )));
            }
            "Payment.Order.Refunded" => {
                return Err(self.not_yet(event, arrival, "was neither paid nor cancelled"));
            }
            "Order.Created"
            | "Inventory.Stock.Reserved"
            | "Payment.Order.Paid"
            | "Inventory.Stock.Rejected"
            | "Payment.Order.Declined"
            | "Order.DeadlinePassed"
            | "Order.Cancelled" => Vec::new(),
            other => {
                return Err(HandlerError::reject(format_args!(
                    "order-service does not handle {other}: remove it from that route in routing.yaml"
                )));
            }
        })
    }

    fn announce(&self, fact: &Fact) -> Result<Vec<FollowUp>, EffectError> {
        let told = match fact {
            Fact::Paid { at } => FollowUp::new(
                "Order.Paid",
                &Told {
                    amount: Some(self.total),
                    paid_at: Some(*at),
                    ..self.told()
                },
            ),
            Fact::Confirmed { at } => FollowUp::new(
                "Order.Confirmed",
                &Told {
                    confirmed_at: Some(*at),
                    ..self.told()
                },
            ),
            Fact::Shipped {
                carrier,
                tracking_number,
                at,
            } => FollowUp::new(
                "Order.Shipped",
                &Told {
                    carrier: Some(carrier),
                    tracking_number: Some(tracking_number),
                    shipped_at: Some(*at),
                    ..self.told()
                },
            ),
            Fact::Delivered { at } => FollowUp::new(
                "Order.Delivered",
                &Told {
                    delivered_at: Some(*at),
                    ..self.told()
                },
            ),
            _ => return Ok(Vec::new()),
        };
        Ok(vec![told?])
    }

    /// inventory-service gives the stock back and payment-service the money, each if it had done its
    /// part; both remember the cancellation if their part comes after it.
    fn compensate(&self) -> Result<Vec<FollowUp>, EffectError> {
        if self.cancelled_elsewhere {
            return Ok(Vec::new());
        }
        let told = Told {
            reason: Some(&self.reason),
            cancelled_at: Some(self.at),
            ..self.told()
        };
        Ok(vec![FollowUp::new("Order.Cancelled", &told)?])
    }

    fn deadline(&self) -> Result<Option<Deadline>, EffectError> {
        let Some(at) = self.deadline.filter(|_| self.status == Status::Pending) else {
            return Ok(None);
        };
        let about = serde_json::json!({ "order_id": self.order_id, "deadline": at });
        let event = FollowUp::new("Order.DeadlinePassed", &about)?;
        Ok(Some(Deadline { at, event }))
    }

    fn outcome(&self) -> Outcome {
        match self.status {
            Status::Unknown | Status::Pending => Outcome::Running,
            Status::Confirmed | Status::Shipped | Status::Delivered => Outcome::Completed,
            Status::Cancelled => Outcome::Failed,
        }
    }

    fn status(&self) -> String {
        let waits = match (self.reserved, self.paid) {
            (false, false) => " (stock and payment)",
            (true, false) => " (payment)",
            (false, true) => " (stock)",
            (true, true) => "",
        };
        match self.status {
            Status::Pending => format!("pending{waits}"),
            other => other.as_str().to_owned(),
        }
    }
}

/// What events say of an order, as far as each of them does.
#[derive(Default, Serialize)]
struct Told<'a> {
    order_id: i64,
    order_number: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a Number>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "streamfleet::money::option"
    )]
    amount: Option<Decimal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    carrier: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracking_number: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    paid_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmed_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shipped_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancelled_at: Option<Timestamp>,
}

impl Policy {
    pub(crate) fn deadline(&self, now: Timestamp) -> Result<Timestamp, HandlerError> {
        now.checked_add(self.patience).map_err(HandlerError::reject)
    }
}

impl Order {
    fn told(&self) -> Told<'_> {
        Told {
            order_id: self.order_id,
            order_number: &self.order_number,
            user_id: self.user_id.as_ref(),
            ..Told::default()
        }
    }

    /// A step that was waited for, and the confirmation if it was the last one.
    fn with(&self, step: Fact, last: bool) -> Vec<Fact> {
        let at = step.at();
        let confirmed = last.then_some(Fact::Confirmed { at });
        [Some(step), confirmed].into_iter().flatten().collect()
    }

    fn is_on_its_way(&self) -> bool {
        matches!(self.status, Status::Shipped | Status::Delivered)
    }

    /// Events of different services overtake each other: what this one needs may be a moment
    /// behind, so it is tried again once before it is rejected.
    fn not_yet(&self, event: &Event, arrival: Arrival, what: &str) -> HandlerError {
        let order = Self::instance(event).unwrap_or_default();
        let name = event.event_type();
        if arrival.attempt == 1 {
            HandlerError::retry(format_args!(
                "{name}: order {order} {what} yet; looking again"
            ))
        } else {
            HandlerError::reject(format_args!("{name}: order {order} {what}"))
        }
    }
}
