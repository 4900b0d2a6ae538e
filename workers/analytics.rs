//! analytics-service: what happened per minute, hour and day of event time (UTC), per country, and
//! per user. Nothing expires: a late event lands in its own window.
//!
//! | key | what |
//! |---|---|
//! | `analytics-service:minute:2010-12-01T08:26`, `…:hour:2010-12-01T08`, `…:day:2010-12-01` | hash: `events:<type>`, `orders`, `units`, `revenue_cents`, `returns`, `returned_units`, `returns_cents`, `rejected:<reason>` |
//! | `analytics-service:<window>:users` | set: users who signed up or ordered; SCARD counts them (0 is the guest) |
//! | `analytics-service:day:2010-12-01:country:France` | hash: `orders`, `units`, `revenue_cents`, `returns`, `returned_units`, `returns_cents` |
//! | `analytics-service:user:<id>` | hash: `orders`, `spent_cents` |
//! | `analytics-service:user:<id>:last_seen` | newest event time of the user, whatever order events arrive in |
//!
//! **Guarantee.** Each event counts exactly once. Money is counted in whole cents; an amount that
//! is not a whole number of them is rejected, never rounded. Revenue is what was ordered; returns
//! are counted apart, not as negative sales. Everything is an increment or a set member, so that
//! workers never conflict and the order of events does not matter.

use std::process::ExitCode;

use rust_decimal::Decimal;
use serde::Deserialize;
use streamfleet::{Context, Event, Handler, HandlerError};

#[path = "analytics/measure.rs"]
mod measure;
use measure::{Windows, cents, value_cents};

struct Analytics;

impl Analytics {
    fn from_env() -> Result<Self, std::convert::Infallible> {
        Ok(Self)
    }
}

impl Handler for Analytics {
    const SUBSCRIBER: &'static str = "analytics-service";
    const READ_MODEL: bool = true;

    async fn handle(&self, event: &Event, cx: &mut Context) -> Result<(), HandlerError> {
        let windows = Windows::of(event.timestamp());
        match event.event_type() {
            "Order.Created" => order(&event.data()?, &windows, event.timestamp(), cx)?,
            "User.Created" => {
                let User { user_id } = event.data()?;
                seen(user_id, &windows, event.timestamp(), cx)?;
            }
            "Inventory.Stock.Received" => received(&event.data()?, &windows, cx)?,
            "Inventory.Stock.Rejected" => {
                let Rejected { reason } = event.data()?;
                count(&windows, &format!("rejected:{}", reason.name()), 1, cx)?;
            }
            // Every other type that is routed here is counted by its name alone.
            _ => {}
        }
        count(&windows, &format!("events:{}", event.event_type()), 1, cx)
    }
}

#[global_allocator]
static ALLOCATOR: streamfleet::Allocator = streamfleet::Allocator;

fn main() -> ExitCode {
    streamfleet::worker::main(Analytics::from_env)
}

/// `Order.Created`, as far as this service reads it.
#[derive(Deserialize)]
struct Order {
    user_id: i64,
    #[serde(with = "streamfleet::money")]
    total_amount: Decimal,
    items: Vec<Item>,
    shipping_address: Address,
}

#[derive(Deserialize)]
struct Item {
    quantity: i64,
}

#[derive(Deserialize)]
struct Address {
    country: Option<String>,
}

/// `User.Created`, as far as this service reads it.
#[derive(Deserialize)]
struct User {
    user_id: i64,
}

/// `Inventory.Stock.Received`, as far as this service reads it.
#[derive(Deserialize)]
struct Received {
    quantity: i64,
    reason: Reason,
    #[serde(default, with = "streamfleet::money::option")]
    unit_price: Option<Decimal>,
    country: Option<String>,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Reason {
    Purchase,
    Return,
}

/// `Inventory.Stock.Rejected`, as far as this service reads it.
#[derive(Deserialize)]
struct Rejected {
    reason: RejectedFor,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum RejectedFor {
    Insufficient,
    UnknownSku,
}

impl RejectedFor {
    fn name(&self) -> &'static str {
        match self {
            Self::Insufficient => "insufficient",
            Self::UnknownSku => "unknown_sku",
        }
    }
}

fn order(
    order: &Order,
    windows: &Windows,
    at: jiff::Timestamp,
    cx: &mut Context,
) -> Result<(), HandlerError> {
    let revenue = cents(order.total_amount)
        .map_err(|error| HandlerError::reject(format!("/data/total_amount: {error}")))?;
    let units = order
        .items
        .iter()
        .try_fold(0_i64, |sum, item| sum.checked_add(item.quantity))
        .ok_or_else(|| {
            HandlerError::reject("/data/items: the quantities add up to more than can be counted")
        })?;

    let counts = [("orders", 1), ("units", units), ("revenue_cents", revenue)];
    count_all(
        windows,
        order.shipping_address.country.as_deref(),
        &counts,
        cx,
    )?;

    let profile = format!("user:{}", order.user_id);
    cx.hash_increment(&profile, "orders", 1)?;
    cx.hash_increment(&profile, "spent_cents", revenue)?;
    seen(order.user_id, windows, at, cx)
}

fn received(received: &Received, windows: &Windows, cx: &mut Context) -> Result<(), HandlerError> {
    if received.reason != Reason::Return {
        return Ok(());
    }
    let units = received.quantity;
    // A return without a price still counts as units that came back.
    let value = received
        .unit_price
        .map_or(Ok(0), |price| value_cents(price, units));
    let value =
        value.map_err(|error| HandlerError::reject(format!("/data/unit_price: {error}")))?;
    let counts = [
        ("returns", 1),
        ("returned_units", units),
        ("returns_cents", value),
    ];
    count_all(windows, received.country.as_deref(), &counts, cx)
}

/// Counts in the event's windows and, where a country is known, in its share of the day.
fn count_all(
    windows: &Windows,
    country: Option<&str>,
    counts: &[(&str, i64)],
    cx: &mut Context,
) -> Result<(), HandlerError> {
    for (field, by) in counts {
        count(windows, field, *by, cx)?;
        if let Some(country) = country {
            cx.hash_increment(&windows.country(country), field, *by)?;
        }
    }
    Ok(())
}

fn count(windows: &Windows, field: &str, by: i64, cx: &mut Context) -> Result<(), HandlerError> {
    for window in windows.all() {
        cx.hash_increment(window, field, by)?;
    }
    Ok(())
}

fn seen(
    user_id: i64,
    windows: &Windows,
    at: jiff::Timestamp,
    cx: &mut Context,
) -> Result<(), HandlerError> {
    for window in windows.all() {
        cx.set_add(&format!("{window}:users"), user_id.to_string())?;
    }
    cx.set_if_newer(&format!("user:{user_id}:last_seen"), at, at.to_string())?;
    Ok(())
}
