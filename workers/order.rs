//! order-service: the saga of each order, and where the order stands.
//!
//! | key | what |
//! |---|---|
//! | `es:Order:<order_id>` | `Order.Placed`, `Order.StockReserved` and `Order.Paid` in any order, `Order.Confirmed`; or `Order.Cancelled`, perhaps `Order.Refunded`; `Order.Shipped`, `Order.Delivered` |
//! | `order-service:order:<order_id>` | hash for people and pages: `status`, `reason`, `order_number`, `user_id`, `total`, `at`, `version` |
//! | `sagas:Order` | where each order stands that is still pending |
//!
//! **Guarantee.** Each order that was placed ends confirmed or cancelled, once: what races is
//! decided one after the other, on the version that the first left. If its stock or its payment is
//! refused, or a deadline passes (`STREAMFLEET_ORDER_PATIENCE`, such as `15m` or `PT15M`; 15 minutes
//! unless set), it is cancelled, and the event that says so makes inventory-service and
//! payment-service undo what they had done. Late and repeated events change nothing, so the status
//! never moves backwards.
//!
//! An event about an order that was never placed, and a refund of one that was neither paid nor cancelled, are
//! tried again once (their cause may be a moment behind), then rejected. (This needs `max_attempts`
//! of 2 or more.)

use std::process::ExitCode;

use jiff::SignedDuration;
use streamfleet::environment::variable;
use streamfleet::{Context, Event, Handler, HandlerError};

#[path = "order/flow.rs"]
#[allow(dead_code, reason = "commands are for examples/shop")]
mod flow;
#[path = "order/view.rs"]
mod view;
use flow::{Order, Policy};

/// How long an order waits for its stock and its payment, unless it is set.
const PATIENCE: SignedDuration = SignedDuration::from_mins(15);

/// No deadline may be further away than the router keeps events.
const LONGEST: SignedDuration = SignedDuration::from_hours(365 * 24);

struct Orders {
    policy: Policy,
}

/// The environment does not say how long to wait.
#[derive(Debug, thiserror::Error)]
#[error(
    "STREAMFLEET_ORDER_PATIENCE={value:?}: {cause}. Write how long an order waits for its stock and its payment, such as 15m"
)]
struct BadPatience {
    value: String,
    cause: String,
}

impl Orders {
    /// Reads `STREAMFLEET_ORDER_PATIENCE`.
    fn from_env() -> Result<Self, BadPatience> {
        let Some(value) = variable("STREAMFLEET_ORDER_PATIENCE") else {
            let policy = Policy { patience: PATIENCE };
            return Ok(Self { policy });
        };
        let bad = |cause: String| BadPatience {
            value: value.to_string_lossy().into_owned(),
            cause,
        };
        let text = value
            .to_str()
            .ok_or_else(|| bad("it is not UTF-8".to_owned()))?;
        let patience: SignedDuration = text.parse().map_err(|e: jiff::Error| bad(e.to_string()))?;
        if !(SignedDuration::from_secs(1)..=LONGEST).contains(&patience) {
            return Err(bad("it must be from a second to a year".to_owned()));
        }
        Ok(Self {
            policy: Policy { patience },
        })
    }
}

impl Handler for Orders {
    const SUBSCRIBER: &'static str = "order-service";

    async fn handle(&self, event: &Event, cx: &mut Context) -> Result<(), HandlerError> {
        if let Some(order) = cx.advance::<Order>(event, &self.policy).await? {
            view::show(&order, cx)?;
        }
        Ok(())
    }
}

#[global_allocator]
static ALLOCATOR: streamfleet::Allocator = streamfleet::Allocator;

fn main() -> ExitCode {
    streamfleet::worker::main(Orders::from_env)
}
