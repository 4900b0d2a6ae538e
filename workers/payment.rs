//! payment-service: charges orders through a payment gateway, and pays back what was charged for
//! those that are cancelled.
//!
//! | where | what |
//! |---|---|
//! | `es:Payment:<order_id>` | `Payment.Charged` or `Payment.Declined`, then perhaps `Payment.Refunded` or `Payment.Cancelled`; or one of these two alone |
//! | the gateway, `$STREAMFLEET_GATEWAY` | one charge, and one refund of it, under the key `order-<order_id>` |
//!
//! `STREAMFLEET_GATEWAY` is `http://host:port`; `examples/sandbox_gateway.rs` describes the requests, and is a gateway
//! to run against (and asks for no token; `STREAMFLEET_GATEWAY_TOKEN_FILE`, or the credential `gateway-token` of systemd,
//! holds the one that is sent as `Authorization: Bearer`). It belongs to this shop alone, because its keys are order IDs. `STREAMFLEET_GATEWAY_TIMEOUT_MS` (10000) is
//! how long it may take to answer; keep it below the `timeout` of routing.yaml.
//!
//! **Guarantee.** Two orders are never one charge, and one order is never two, not even under two
//! event IDs: the key says so to the gateway. An order that is not cancelled before it arrives is answered by exactly
//! one `Payment.Order.Paid` or `Payment.Order.Declined`. When nothing is owed any more, what the
//! gateway has charged and not refunded is the sum of the orders that are paid and not cancelled.
//!
//! **A charge and a cancellation meet.** The call to the gateway is outside Redis: it may have
//! happened although its handler did not commit, and a charge may be under way in another process.
//! So a cancellation voids the key at the gateway whatever our own record says: that pays back what was charged
//! under it, and keeps anything from being charged under it later.
//!
//! - *Charge, then void.* Whoever commits first, the other one's append finds another version, and
//!   its handler runs again on what is there. If the charge was first: Paid, then Refunded. If the
//!   cancellation was first: Refunded alone; the order, run again, finds itself cancelled and does nothing.
//! - *Void, then charge.* The gateway refuses the charge. The order is acknowledged without effect
//!   and without an answer, as one that arrives after its cancellation; the cancellation commits `Payment.Cancelled`.
//! - *The charge is made and its handler dies before it commits.* The order is delivered again; the
//!   same key is answered with the same charge. If it was voided in between, as above.
//! - *The void is made and its handler dies before it commits.* The cancellation is delivered again;
//!   the gateway answers with the same refund. An order that committed Paid in between is refunded by this.
//!
//! No event happens twice, because each is published with the append that only one can make.
//!
//! **What is not charged.** An order of zero is Paid without asking the gateway. An amount that is no whole
//! number of cents, or does not fit a decimal, is rejected. A guest (user 0) pays as anyone does.
//!
//! **The same order twice** (one `order_id` under two event IDs): the first one is answered, the second is
//! acknowledged without effect, whatever its total says. If both are charged at the same time with different totals,
//! the gateway takes the first; the other one is tried again and finds the answer.
//!
//! **A gateway that is down**, slow, or not ours to use (no answer in time, 5xx, 429, a redirect, 401, 403, 404) is no
//! fault of an order: no attempt is charged, and the circuit breaker stops reading.

use std::process::ExitCode;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use streamfleet::{Context, Event, Handler, HandlerError, NewEvent};

#[path = "payment/answers.rs"]
mod answers;
#[path = "payment/decide.rs"]
mod decide;
#[path = "payment/gateway.rs"]
mod gateway;
use answers::Charge;
use decide::{Answer, Charged, Closing, Declined, Due, Payment};
use gateway::{Gateway, SetupError};

const ENTITY: &str = "Payment";

struct Payments {
    gateway: Gateway,
}

impl Payments {
    fn from_env() -> Result<Self, SetupError> {
        let gateway = Gateway::from_env()?;
        Ok(Self { gateway })
    }
}

impl Handler for Payments {
    const SUBSCRIBER: &'static str = "payment-service";

    async fn handle(&self, event: &Event, cx: &mut Context) -> Result<(), HandlerError> {
        match event.event_type() {
            "Order.Created" => self.charge(&event.data()?, event.timestamp(), cx).await,
            "Order.Cancelled" => self.cancel(&event.data()?, event.timestamp(), cx).await,
            other => Err(HandlerError::reject(format!(
                "payment-service does not handle {other}: remove it from that route in routing.yaml"
            ))),
        }
    }
}

#[global_allocator]
static ALLOCATOR: streamfleet::Allocator = streamfleet::Allocator;

fn main() -> ExitCode {
    streamfleet::worker::main(Payments::from_env)
}

/// `Order.Created`, as far as this service reads it.
#[derive(Deserialize)]
struct Order {
    order_id: i64,
    /// Its digits, so that what is wrong with them can be said with its place.
    total_amount: Box<RawValue>,
}

/// `Order.Cancelled`, as far as this service reads it.
#[derive(Deserialize)]
struct Cancelled {
    order_id: i64,
}

impl Payments {
    async fn charge(
        &self,
        order: &Order,
        at: Timestamp,
        cx: &mut Context,
    ) -> Result<(), HandlerError> {
        let order_id = order.order_id;
        let (version, payment) = load(order_id, cx).await?;
        if !decide::is_to_be_answered(&payment) {
            return Ok(());
        }
        let due = decide::due(order.total_amount.get())
            .map_err(|error| HandlerError::reject(format!("/data/total_amount: {error}")))?;
        let charged = match due {
            Due::Nothing => Charged::nothing(),
            Due::Charge(amount) => {
                let key = decide::key(order_id);
                match self.gateway.charge(&key, order_id, amount).await? {
                    Charge::Made { charge_id } => Charged::by(charge_id, amount),
                    Charge::Declined { reason } => {
                        let declined = Declined { amount, reason };
                        append(order_id, version, "Payment.Declined", &declined, cx)?;
                        let answer = Answer::new(order_id, &declined, "declined_at", at);
                        cx.publish("Payment.Order.Declined", &answer)?;
                        return Ok(());
                    }
                    // A cancellation was faster. It commits, or is delivered again until it does.
                    Charge::Voided => return Ok(()),
                }
            }
        };
        append(order_id, version, "Payment.Charged", &charged, cx)?;
        let answer = Answer::new(order_id, &charged, "paid_at", at);
        cx.publish("Payment.Order.Paid", &answer)?;
        Ok(())
    }

    async fn cancel(
        &self,
        order: &Cancelled,
        at: Timestamp,
        cx: &mut Context,
    ) -> Result<(), HandlerError> {
        let order_id = order.order_id;
        let (version, payment) = load(order_id, cx).await?;
        if payment == Payment::Closed {
            return Ok(()); // It was voided before this was written.
        }
        let refund = self.gateway.void(&decide::key(order_id)).await?;
        match decide::close(order_id, &payment, refund).map_err(HandlerError::reject)? {
            Closing::Cancelled => {
                let at = serde_json::json!({ "cancelled_at": at });
                append(order_id, version, "Payment.Cancelled", &at, cx)
            }
            Closing::Refunded(refunded) => {
                append(order_id, version, "Payment.Refunded", &refunded, cx)?;
                let answer = Answer::new(order_id, &refunded, "refunded_at", at);
                cx.publish("Payment.Order.Refunded", &answer)?;
                Ok(())
            }
        }
    }
}

/// How an order's payment stands, and the version that the next append must find. The newest event
/// tells it all.
async fn load(order_id: i64, cx: &mut Context) -> Result<(u64, Payment), HandlerError> {
    let Some(newest) = cx.last(ENTITY, &order_id.to_string()).await? else {
        return Ok((0, Payment::None));
    };
    let payment = match newest.event_type.as_str() {
        "Payment.Charged" => Payment::Charged(newest.data()?),
        "Payment.Declined" => Payment::Declined,
        _ => Payment::Closed,
    };
    Ok((newest.version, payment))
}

fn append(
    order_id: i64,
    version: u64,
    event_type: &str,
    data: &impl Serialize,
    cx: &mut Context,
) -> Result<(), HandlerError> {
    let event = NewEvent::new(event_type, data)?;
    cx.append_events(ENTITY, &order_id.to_string(), version, &[event])?;
    Ok(())
}
