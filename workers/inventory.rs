//! inventory-service: stock per SKU, event-sourced; orders reserve it, cancellations release it.
//!
//! | key | what |
//! |---|---|
//! | `es:Stock:<sku_id>` | `Stock.Received`, `Stock.Reserved`, `Stock.Released`, each with the balance after it |
//! | `es:Reservation:<order_id>` | `Reservation.Reserved` or `Reservation.Rejected`, then perhaps `Reservation.Released`; or `Reservation.Cancelled` alone |
//! | `inventory-service:sku:<sku_id>` | hash for people: `received` + `returned` - `reserved` + `released` = `available` |
//!
//! **Guarantee.** An order gets all of its lines or none, stock never falls below zero, and each
//! order that was not cancelled before it arrived is answered by exactly one
//! `Inventory.Stock.Reserved` or `Inventory.Stock.Rejected`. Every append names the version that the
//! decision was made on; if another worker was faster, nothing is written and the handler runs again
//! on what is there now.
//!
//! **The same order twice** (one `order_id` under two event IDs): the first one is answered, the
//! second is acknowledged without effect, whatever its lines say.
//!
//! **A cancellation that overtakes its order** is remembered as `Reservation.Cancelled`. When the
//! order arrives it is acknowledged without effect and without an answer: nobody waits for one.
//!
//! **A SKU that was never received.** Events of different orders and SKUs overtake each other, so
//! the first attempt at such an order asks to be retried; the second rejects it. (This needs
//! `max_attempts` of 2 or more.) Too few units, on the other hand, is an answer at once.

use std::process::ExitCode;

use serde::Deserialize;
use streamfleet::{Context, Event, Handler, HandlerError};

#[path = "inventory/decide.rs"]
mod decide;
#[path = "inventory/store.rs"]
mod store;
use decide::{Cancellation, Line, Shortage};
use store::{
    Lines, Reason, StockChanged, append_reservation, append_stock, load_reservation, load_stock,
};

struct Inventory;

impl Inventory {
    fn from_env() -> Result<Self, std::convert::Infallible> {
        Ok(Self)
    }
}

impl Handler for Inventory {
    const SUBSCRIBER: &'static str = "inventory-service";

    async fn handle(&self, event: &Event, cx: &mut Context) -> Result<(), HandlerError> {
        match event.event_type() {
            "Inventory.Stock.Received" => receive(&event.data()?, cx).await,
            "Order.Created" => reserve(&event.data()?, event.timestamp(), cx).await,
            "Order.Cancelled" => release(&event.data()?, event.timestamp(), cx).await,
            other => Err(HandlerError::reject(format!(
                "inventory-service does not handle {other}: remove it from that route in routing.yaml"
            ))),
        }
    }
}

#[global_allocator]
static ALLOCATOR: streamfleet::Allocator = streamfleet::Allocator;

fn main() -> ExitCode {
    streamfleet::worker::main(Inventory::from_env)
}

/// `Inventory.Stock.Received`, as far as this service reads it.
#[derive(Deserialize)]
struct Received {
    #[serde(flatten)]
    line: Line,
    reason: Reason,
}

/// `Order.Created`, as far as this service reads it.
#[derive(Deserialize)]
struct Order {
    order_id: i64,
    items: Vec<Line>,
}

/// `Order.Cancelled`, as far as this service reads it.
#[derive(Deserialize)]
struct Cancelled {
    order_id: i64,
}

async fn receive(received: &Received, cx: &mut Context) -> Result<(), HandlerError> {
    let Received { line, reason } = received;
    let stock = load_stock(line.sku_id, cx).await?;
    let balance = decide::receive(line, stock.balance).map_err(HandlerError::reject)?;
    let change = StockChanged {
        quantity: line.quantity,
        order_id: None,
        reason: Some(*reason),
        balance,
    };
    let field = match reason {
        Reason::Purchase => "received",
        Reason::Return => "returned",
    };
    append_stock(line.sku_id, &stock, "Stock.Received", &change, field, cx)
}

async fn reserve(order: &Order, at: jiff::Timestamp, cx: &mut Context) -> Result<(), HandlerError> {
    let (version, reservation) = load_reservation(order.order_id, cx).await?;
    if !decide::is_to_be_answered(&reservation) {
        return Ok(());
    }
    let lines = decide::sum_lines(&order.items).map_err(HandlerError::reject)?;
    let mut reserved = Vec::with_capacity(lines.len());
    for line in &lines {
        let stock = load_stock(line.sku_id, cx).await?;
        match decide::reserve(line, stock.balance) {
            Ok(balance) => reserved.push((line, stock, balance)),
            Err(shortage) => return reject(order.order_id, version, shortage, at, cx),
        }
    }
    // Effects come after the last decision, so that a rejected order has reserved nothing.
    for (line, stock, balance) in reserved {
        let change = StockChanged {
            quantity: line.quantity,
            order_id: Some(order.order_id),
            reason: None,
            balance,
        };
        append_stock(
            line.sku_id,
            &stock,
            "Stock.Reserved",
            &change,
            "reserved",
            cx,
        )?;
    }
    let answer =
        serde_json::json!({ "order_id": order.order_id, "lines": lines, "reserved_at": at });
    append_reservation(
        order.order_id,
        version,
        "Reservation.Reserved",
        &Lines { lines },
        cx,
    )?;
    cx.publish("Inventory.Stock.Reserved", &answer)?;
    Ok(())
}

fn reject(
    order_id: i64,
    version: u64,
    shortage: Shortage,
    at: jiff::Timestamp,
    cx: &mut Context,
) -> Result<(), HandlerError> {
    let (reason, sku_id, requested, available) = match shortage {
        // Events of different SKUs and orders overtake each other: the first receipt may be a
        // moment behind. Look once more, after the backoff, before turning a customer away.
        Shortage::UnknownSku { sku_id, .. } if cx.attempt() == 1 => {
            return Err(NotYetReceived { order_id, sku_id }.into());
        }
        Shortage::UnknownSku { sku_id, requested } => ("unknown_sku", sku_id, requested, 0),
        Shortage::Insufficient {
            sku_id,
            requested,
            available,
        } => ("insufficient", sku_id, requested, available),
    };
    let why = serde_json::json!({
        "order_id": order_id, "reason": reason, "sku_id": sku_id,
        "requested": requested, "available": available, "rejected_at": at,
    });
    append_reservation(order_id, version, "Reservation.Rejected", &why, cx)?;
    cx.publish("Inventory.Stock.Rejected", &why)?;
    Ok(())
}

async fn release(
    order: &Cancelled,
    at: jiff::Timestamp,
    cx: &mut Context,
) -> Result<(), HandlerError> {
    let order_id = order.order_id;
    let (version, reservation) = load_reservation(order_id, cx).await?;
    let lines = match decide::cancel(reservation) {
        Cancellation::Nothing => return Ok(()),
        Cancellation::Remember => {
            let at = serde_json::json!({ "cancelled_at": at });
            return append_reservation(order_id, version, "Reservation.Cancelled", &at, cx);
        }
        Cancellation::Release(lines) => lines,
    };
    for line in &lines {
        let stock = load_stock(line.sku_id, cx).await?;
        let balance = match decide::release(line, stock.balance) {
            Ok(balance) => balance,
            // The reservation and the stock are read one after the other: in between it was released,
            // for another cancellation of this order.
            Err(_) if load_reservation(order_id, cx).await?.0 != version => return Ok(()),
            Err(error) => return Err(HandlerError::reject(error)),
        };
        let change = StockChanged {
            quantity: line.quantity,
            order_id: Some(order_id),
            reason: None,
            balance,
        };
        append_stock(
            line.sku_id,
            &stock,
            "Stock.Released",
            &change,
            "released",
            cx,
        )?;
    }
    let released = serde_json::json!({ "order_id": order_id, "lines": lines, "released_at": at });
    append_reservation(
        order_id,
        version,
        "Reservation.Released",
        &Lines { lines },
        cx,
    )?;
    cx.publish("Inventory.Stock.Released", &released)?;
    Ok(())
}

/// A SKU that no receipt has made known yet.
#[derive(Debug, thiserror::Error)]
#[error(
    "order {order_id}: SKU {sku_id} has not been received yet; looking again before rejecting the order"
)]
struct NotYetReceived {
    order_id: i64,
    sku_id: i64,
}
