//! The write side of orders: each function loads, decides, appends with the version that it decided
//! on, and publishes, in one step. Two that race are carried out one after the other, each decided
//! on what is there then.

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::Serialize;
use streamfleet::HandlerError;
use streamfleet::commands::{Command as Given, CommandError, Commands};
use uuid::Uuid;

use crate::command::Command;
use crate::flow::{Fact, Order, Policy};
use crate::view;

/// A line of an order.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Item {
    pub(crate) product_id: i64,
    pub(crate) sku_id: i64,
    pub(crate) sku_code: String,
    pub(crate) product_name: String,
    pub(crate) sku_name: String,
    pub(crate) quantity: i64,
    #[serde(with = "streamfleet::money")]
    pub(crate) unit_price: Decimal,
    #[serde(with = "streamfleet::money")]
    pub(crate) subtotal: Decimal,
}

/// Where it goes.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Address {
    pub(crate) recipient: String,
    pub(crate) phone: String,
    pub(crate) address: String,
    pub(crate) city: String,
    pub(crate) province: String,
}

/// An order to place.
#[derive(Clone, Debug)]
pub(crate) struct NewOrder {
    pub(crate) order_id: i64,
    pub(crate) order_number: String,
    pub(crate) user_id: i64,
    pub(crate) items: Vec<Item>,
    pub(crate) shipping_address: Address,
}

/// `Order.Created`.
#[derive(Serialize)]
struct Created<'a> {
    order_id: i64,
    order_number: &'a str,
    user_id: i64,
    #[serde(with = "streamfleet::money")]
    total_amount: Decimal,
    status: &'static str,
    items: &'a [Item],
    shipping_address: &'a Address,
    created_at: Timestamp,
}

/// The command's place in the flow of its order.
fn about(order_id: i64) -> Given {
    let flow = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("order:{order_id}").as_bytes());
    Given::in_flow(flow)
}

/// Places an order; answers its total.
pub(crate) async fn place(
    commands: &Commands,
    policy: Policy,
    order: &NewOrder,
) -> Result<Option<Decimal>, CommandError> {
    let place = async |cx: &mut streamfleet::Context| {
        let now = Timestamp::now();
        let sum = order
            .items
            .iter()
            .try_fold(Decimal::ZERO, |sum, item| sum.checked_add(item.subtotal));
        let total = sum.ok_or_else(|| HandlerError::reject("the total does not fit a decimal"))?;
        let created = Created {
            order_id: order.order_id,
            order_number: &order.order_number,
            user_id: order.user_id,
            total_amount: total,
            status: "pending",
            items: &order.items,
            shipping_address: &order.shipping_address,
            created_at: now,
        };
        let placed = Fact::Placed {
            order_id: order.order_id,
            order_number: order.order_number.clone(),
            user_id: order.user_id.into(),
            total,
            deadline: policy.deadline(now)?,
            products: order
                .items
                .iter()
                .map(|item| item.product_id.into())
                .collect(),
            by: Some(cx.publish("Order.Created", &created)?),
            at: now,
        };
        change(cx, order.order_id, Command::Place(placed)).await?;
        Ok(total)
    };
    commands.execute(about(order.order_id), place).await
}

/// Cancels an order, ships it, or notes that it arrived; answers where it stands then.
pub(crate) async fn command(
    commands: &Commands,
    order_id: i64,
    command: Command,
) -> Result<Option<&'static str>, CommandError> {
    let decide = async |cx: &mut streamfleet::Context| {
        let order = change(cx, order_id, command.clone()).await?;
        Ok(order.status.as_str())
    };
    commands.execute(about(order_id), decide).await
}

async fn change(
    cx: &mut streamfleet::Context,
    order_id: i64,
    command: Command,
) -> Result<Order, HandlerError> {
    use streamfleet::Decide;
    let id = order_id.to_string();
    let mut order = cx.aggregate::<Order>(&id).await?;
    let facts = order.state.decide(command).map_err(HandlerError::reject)?;
    cx.record(&id, &mut order, facts).await?;
    view::show(&order, cx)?;
    Ok(order.state)
}
