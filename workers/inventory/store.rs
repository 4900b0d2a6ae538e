//! What the inventory service keeps: reading and appending its entities. The header of
//! `inventory.rs` names the keys.

use serde::{Deserialize, Serialize};
use streamfleet::{Context, HandlerError, NewEvent};

use super::decide::{Balance, Line, Reservation};

/// The stock of one SKU as it was read.
pub(crate) struct Stock {
    /// The version that the next append must find; 0 before the first receipt.
    pub(crate) version: u64,
    pub(crate) balance: Option<Balance>,
}

/// An event of `es:Stock:<sku_id>`.
#[derive(Serialize)]
pub(crate) struct StockChanged {
    pub(crate) quantity: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) order_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<Reason>,
    #[serde(flatten)]
    pub(crate) balance: Balance,
}

/// What `Reservation.Reserved` set aside, and `Reservation.Released` freed again.
#[derive(Serialize, Deserialize)]
pub(crate) struct Lines {
    pub(crate) lines: Vec<Line>,
}

/// Why units arrived.
#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Reason {
    Purchase,
    Return,
}

/// One read, whatever the length of the history: the newest event carries the balance.
pub(crate) async fn load_stock(sku_id: i64, cx: &mut Context) -> Result<Stock, HandlerError> {
    Ok(match cx.last("Stock", &sku_id.to_string()).await? {
        Some(newest) => Stock {
            version: newest.version,
            balance: Some(newest.data()?),
        },
        None => Stock {
            version: 0,
            balance: None,
        },
    })
}

/// How an order stands, and the version that the next append must find.
pub(crate) async fn load_reservation(
    order_id: i64,
    cx: &mut Context,
) -> Result<(u64, Reservation), HandlerError> {
    let Some(newest) = cx.last("Reservation", &order_id.to_string()).await? else {
        return Ok((0, Reservation::None));
    };
    let reservation = match newest.event_type.as_str() {
        "Reservation.Reserved" => Reservation::Reserved(newest.data::<Lines>()?.lines),
        _ => Reservation::Closed,
    };
    Ok((newest.version, reservation))
}

/// Appends to a SKU's history, and counts in its projection under `field`.
pub(crate) fn append_stock(
    sku_id: i64,
    read: &Stock,
    event_type: &str,
    change: &StockChanged,
    field: &str,
    cx: &mut Context,
) -> Result<(), HandlerError> {
    cx.append_events(
        "Stock",
        &sku_id.to_string(),
        read.version,
        &[NewEvent::new(event_type, change)?],
    )?;
    let projection = format!("sku:{sku_id}");
    cx.hash_increment(&projection, field, change.quantity)?;
    // Not an increment: it cannot drift from the event store that it is committed with.
    cx.hash_set(
        &projection,
        "available",
        change.balance.available.to_string(),
    )?;
    Ok(())
}

pub(crate) fn append_reservation(
    order_id: i64,
    version: u64,
    event_type: &str,
    data: &impl Serialize,
    cx: &mut Context,
) -> Result<(), HandlerError> {
    let event = NewEvent::new(event_type, data)?;
    cx.append_events("Reservation", &order_id.to_string(), version, &[event])?;
    Ok(())
}
