//! The events of this service as the event store tells them. Pure.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Number;
use streamfleet::event_type::EventType;
use streamfleet::{Event, HandlerError, StoredEvent};
use uuid::Uuid;

/// `User.Created` of `es:User:<id>`, as far as this service reads it.
#[derive(Deserialize)]
struct Signed {
    at: Timestamp,
    by: Uuid,
    change: User,
}

#[derive(Deserialize, Serialize)]
struct User {
    user_id: i64,
}

/// `Order.Placed` of `es:Order:<id>`, as far as this service reads it.
#[derive(Deserialize)]
struct Placed {
    at: Timestamp,
    by: Option<Uuid>,
    // Handling it says whether it is one that this service takes, as it did when it was routed.
    user_id: Number,
    products: Vec<Number>,
}

#[derive(Serialize)]
struct Order {
    user_id: Number,
    items: Vec<Item>,
}

#[derive(Serialize)]
struct Item {
    product_id: Number,
}

/// The event that a fact tells of, if this service takes it.
pub(crate) fn event(fact: &StoredEvent) -> Result<Option<Event>, HandlerError> {
    match fact.event_type.as_str() {
        "User.Created" => {
            let Signed { at, by, change } = fact.data()?;
            made("User.Created", by, at, &change)
        }
        "Order.Placed" => {
            let placed: Placed = fact.data()?;
            let by = placed.by.ok_or_else(|| {
                HandlerError::reject("it does not say which Order.Created it comes from")
            })?;
            let items = placed.products.into_iter();
            let order = Order {
                user_id: placed.user_id,
                items: items.map(|product_id| Item { product_id }).collect(),
            };
            made("Order.Created", by, placed.at, &order)
        }
        _ => Ok(None),
    }
}

fn made(
    event_type: &str,
    id: Uuid,
    at: Timestamp,
    data: &impl Serialize,
) -> Result<Option<Event>, HandlerError> {
    let event_type = EventType::parse(event_type).map_err(HandlerError::reject)?;
    let event = Event::restored(id, &event_type, at, data).map_err(HandlerError::reject)?;
    Ok(Some(event))
}
