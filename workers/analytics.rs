//! analytics-service: what happened per minute, hour and day of event time (UTC), per country, and
//! per user. Nothing expires: a late event lands in its own window.
//!
//! | key | what |
//! |---|---|
//! | `analytics-service:minute:2010-12-01T08:26`, `…:hour:2010-12-01T08`, `…:day:2010-12-01` | hash: `events:<type>`, `orders`, `units`, `revenue_cents`, `returns`, `returned_units`, `returns_cents`, `rejected:<reason>` |
//! | `analytics-service:<window>:users` | set: users who did something themselves: signed up, logged in, viewed, filled a cart, ordered; SCARD counts them (0 is the guest) |
//! | `analytics-service:day:2010-12-01:country:France` | hash: `orders`, `units`, `revenue_cents`, `returns`, `returned_units`, `returns_cents` |
//! | `analytics-service:user:<id>` | hash: `orders`, `spent_cents`, `views`, `carts`, `carted_units`, `logins` |
//! | `analytics-service:user:<id>:hours` | hash: hour of the day (UTC, `00` to `23`), how often the user did something in it |
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
            "Order.Created" => order(&event.data()?, &windows, event, cx)?,
            "User.Created" => did(event.data()?, &[], &windows, event, cx)?,
            "User.LoggedIn" => did(event.data()?, &[("logins", 1)], &windows, event, cx)?,
            "Product.Viewed" => did(event.data()?, &[("views", 1)], &windows, event, cx)?,
            "Product.AddedToCart" => {
                let AddedToCart { user_id, quantity } = event.data()?;
                let units = countable("/data/quantity", [quantity])?;
                let counts = [("carts", 1), ("carted_units", units)];
                did(User { user_id }, &counts, &windows, event, cx)?;
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

/// What a user does, as far as this service reads it.
#[derive(Deserialize)]
struct User {
    user_id: i64,
}

/// `Product.AddedToCart`, as far as this service reads it.
#[derive(Deserialize)]
struct AddedToCart {
    user_id: i64,
    quantity: i64,
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
    event: &Event,
    cx: &mut Context,
) -> Result<(), HandlerError> {
    let revenue = cents(order.total_amount)
        .map_err(|error| HandlerError::reject(format!("/data/total_amount: {error}")))?;
    let units = countable("/data/items", order.items.iter().map(|item| item.quantity))?;

    let counts = [("orders", 1), ("units", units), ("revenue_cents", revenue)];
    count_all(
        windows,
        order.shipping_address.country.as_deref(),
        &counts,
        cx,
    )?;

    let user_id = order.user_id;
    let profile = [("orders", 1), ("spent_cents", revenue)];
    did(User { user_id }, &profile, windows, event, cx)
}

fn received(received: &Received, windows: &Windows, cx: &mut Context) -> Result<(), HandlerError> {
    if received.reason != Reason::Return {
        return Ok(());
    }
    let units = countable("/data/quantity", [received.quantity])?;
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

/// Units in all, or a rejection that says where there are too many.
fn countable(
    pointer: &str,
    quantities: impl IntoIterator<Item = i64>,
) -> Result<i64, HandlerError> {
    measure::units(quantities).ok_or_else(|| {
        HandlerError::reject(format!(
            "{pointer}: these are more units than can be counted"
        ))
    })
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

/// A user did something: counts it in the user's profile, and the user in the event's windows.
fn did(
    User { user_id }: User,
    counts: &[(&str, i64)],
    windows: &Windows,
    event: &Event,
    cx: &mut Context,
) -> Result<(), HandlerError> {
    for window in windows.all() {
        cx.set_add(&format!("{window}:users"), user_id.to_string())?;
    }
    let profile = format!("user:{user_id}");
    for (field, by) in counts {
        cx.hash_increment(&profile, field, *by)?;
    }
    cx.hash_increment(&format!("{profile}:hours"), windows.hour_of_day(), 1)?;
    let at = event.timestamp();
    cx.set_if_newer(&format!("{profile}:last_seen"), at, at.to_string())?;
    Ok(())
}
