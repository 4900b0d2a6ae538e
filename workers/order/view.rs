//! The order as people and pages see it: `order-service:order:<order_id>`.

use streamfleet::{Context, EffectError, Versioned};

use super::flow::Order;

/// Shows an order as it is with what is recorded now; committed with that, so it never lags.
pub(crate) fn show(order: &Versioned<Order>, cx: &mut Context) -> Result<(), EffectError> {
    let Order {
        status,
        order_id,
        order_number,
        user_id,
        total,
        reason,
        at,
        ..
    } = &order.state;
    let key = format!("order:{order_id}");
    cx.hash_set(&key, "status", status.as_str())?;
    cx.hash_set(&key, "reason", reason.as_str())?;
    cx.hash_set(&key, "order_number", order_number.as_str())?;
    let user_id = user_id.as_ref().map(ToString::to_string);
    cx.hash_set(&key, "user_id", user_id.unwrap_or_default())?;
    cx.hash_set(&key, "total", total.to_string())?;
    cx.hash_set(&key, "at", at.to_string())?;
    cx.hash_set(&key, "version", order.version.to_string())
}
