//! recommendation-service: what is bought and viewed together, and what each user is drawn to.
//!
//! | key | what |
//! |---|---|
//! | `recommendation-service:bought` | sorted set: product, orders that had it |
//! | `recommendation-service:bought-with:<product>` | sorted set: other product, orders that had both |
//! | `recommendation-service:viewed` | sorted set: product, views |
//! | `recommendation-service:viewed-with:<product>` | sorted set: other product, pairs of views by one user within 30 minutes |
//! | `recommendation-service:interests:<user>` | sorted set: product, 1 per view, 3 per time it was put into the cart, 5 per order |
//! | `recommendation-service:user:<user>` | hash: `views`, `carts`, `orders` |
//! | `recommendation-service:user:<user>:signed_up` | newest event time of a User.Created of this user |
//! | `recommendation-service:history:<user>` | string, JSON: the newest 50 views, newest first |
//!
//! Asking: what goes with product 1; what sells best; what user 7 is drawn to, and, if those are
//! products 1 and 2, what to show (the best comes last; what the user knows already is below zero):
//!
//! ```text
//! redis-cli ZREVRANGE recommendation-service:bought-with:1 0 9 WITHSCORES
//! redis-cli ZREVRANGE recommendation-service:bought 0 9
//! redis-cli ZREVRANGE recommendation-service:interests:7 0 9
//! redis-cli ZUNION 3 recommendation-service:bought-with:1 recommendation-service:bought-with:2 recommendation-service:interests:7 WEIGHTS 1 1 -1000000 WITHSCORES
//! ```
//!
//! Orders and users that have left their streams are brought back from the event store when it is
//! rebuilt; views and carts are in no history, so for these product-events must be whole.
//!
//! **Guarantee.** Each event counts exactly once. Everything is a sum of whole numbers, so that the
//! order of events does not matter, with one bound: a view that arrives after 50 newer views of the
//! same user is no longer paired with those that have left the history. Of an order with more
//! products, the first 32 count. User 0 is the guest, who may be anyone: orders and views of guests
//! count for products, but there is no guest whose interests or visits could be told.

use std::process::ExitCode;

use serde::Deserialize;
use streamfleet::{Context, Event, Handler, HandlerError, Restores, StoredEvent};

#[path = "recommendation/restored.rs"]
mod restored;
#[path = "recommendation/together.rs"]
mod together;
use together::{History, View};

/// Whoever has not logged in.
const GUEST: i64 = 0;

struct Recommendation;

impl Recommendation {
    fn from_env() -> Result<Self, std::convert::Infallible> {
        Ok(Self)
    }
}

impl Handler for Recommendation {
    const SUBSCRIBER: &'static str = "recommendation-service";
    const READ_MODEL: bool = true;
    const RESTORES: &'static [Restores] = &[
        Restores {
            entity: "Order",
            types: &["Order.Created"],
        },
        Restores {
            entity: "User",
            types: &["User.Created"],
        },
    ];

    fn restore(
        &self,
        _entity: &str,
        _id: &str,
        fact: &StoredEvent,
    ) -> Result<Option<Event>, HandlerError> {
        restored::event(fact)
    }

    async fn handle(&self, event: &Event, cx: &mut Context) -> Result<(), HandlerError> {
        match event.event_type() {
            "Order.Created" => order(&event.data()?, cx),
            "Product.Viewed" => view(&event.data()?, event, cx).await,
            "Product.AddedToCart" => {
                let Seen {
                    user_id,
                    product_id,
                } = event.data()?;
                interest(user_id, "carts", &[product_id], 3, cx)
            }
            "User.Created" => {
                let (User { user_id }, at) = (event.data()?, event.timestamp());
                cx.set_if_newer(&format!("user:{user_id}:signed_up"), at, at.to_string())?;
                Ok(())
            }
            other => Err(HandlerError::reject(format!(
                "recommendation-service does not handle {other}: remove it from that route in routing.yaml"
            ))),
        }
    }
}

#[global_allocator]
static ALLOCATOR: streamfleet::Allocator = streamfleet::Allocator;

fn main() -> ExitCode {
    streamfleet::worker::main(Recommendation::from_env)
}

/// `Order.Created`, as far as this service reads it.
#[derive(Deserialize)]
struct Order {
    user_id: i64,
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    product_id: i64,
}

/// `Product.Viewed` and `Product.AddedToCart`, as far as this service reads them.
#[derive(Deserialize)]
struct Seen {
    user_id: i64,
    product_id: i64,
}

/// `User.Created`, as far as this service reads it.
#[derive(Deserialize)]
struct User {
    user_id: i64,
}

fn order(order: &Order, cx: &mut Context) -> Result<(), HandlerError> {
    let basket = together::basket(order.items.iter().map(|item| item.product_id));
    for product in &basket {
        cx.sorted_set_increment("bought", product.to_string(), 1.0)?;
    }
    for (product, other) in together::pairs(&basket) {
        cx.sorted_set_increment(&format!("bought-with:{product}"), other.to_string(), 1.0)?;
    }
    interest(order.user_id, "orders", &basket, 5, cx)
}

async fn view(seen: &Seen, event: &Event, cx: &mut Context) -> Result<(), HandlerError> {
    let Seen {
        user_id,
        product_id,
    } = *seen;
    cx.sorted_set_increment("viewed", product_id.to_string(), 1.0)?;
    if user_id == GUEST {
        return Ok(());
    }
    let key = format!("history:{user_id}");
    let read = cx.get(&key).await?;
    let mut history: History = match &read {
        Some(json) => serde_json::from_slice(json).map_err(|e| {
            HandlerError::reject(format!("recommendation-service:{key} is damaged: {e}"))
        })?,
        None => History::default(),
    };
    let others = history.remember(View {
        at: event.timestamp(),
        by: event.id(),
        product_id,
    });
    // Two views of one user at a time would not find each other.
    cx.require(&key, read.as_deref())?;
    cx.set(&key, serde_json::to_vec(&history)?)?;
    for other in others {
        cx.sorted_set_increment(&format!("viewed-with:{product_id}"), other.to_string(), 1.0)?;
        cx.sorted_set_increment(&format!("viewed-with:{other}"), product_id.to_string(), 1.0)?;
    }
    interest(user_id, "views", &[product_id], 1, cx)
}

/// Counts what a user did, and what it says about the user's interest in products.
fn interest(
    user_id: i64,
    what: &str,
    products: &[i64],
    weight: u32,
    cx: &mut Context,
) -> Result<(), HandlerError> {
    if user_id == GUEST {
        return Ok(());
    }
    cx.hash_increment(&format!("user:{user_id}"), what, 1)?;
    for product in products {
        let interests = format!("interests:{user_id}");
        cx.sorted_set_increment(&interests, product.to_string(), f64::from(weight))?;
    }
    Ok(())
}
