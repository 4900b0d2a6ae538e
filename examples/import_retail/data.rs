//! The events as they are written: amounts as exact JSON numbers.

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::Serialize;
use uuid::Uuid;

/// Every event.
#[derive(Serialize)]
pub(crate) struct Envelope<'a, D> {
    pub(crate) event_id: Uuid,
    pub(crate) event_type: &'a str,
    pub(crate) version: &'a str,
    pub(crate) timestamp: Timestamp,
    pub(crate) correlation_id: Uuid,
    pub(crate) source: &'a str,
    pub(crate) data: D,
}

/// The data of SKU.Created.
#[derive(Serialize)]
pub(crate) struct Sku<'a> {
    pub(crate) sku_id: i64,
    pub(crate) product_id: i64,
    pub(crate) sku_code: &'a str,
    pub(crate) name: &'a str,
    #[serde(with = "streamfleet::money")]
    pub(crate) price: Decimal,
    pub(crate) is_active: bool,
    pub(crate) created_by: i64,
    pub(crate) created_at: Timestamp,
}

/// The data of Inventory.Stock.Received.
#[derive(Serialize)]
pub(crate) struct Receipt<'a> {
    pub(crate) sku_id: i64,
    /// Wide enough for the negation of any quantity in the file.
    pub(crate) quantity: i128,
    pub(crate) reason: &'a str,
    pub(crate) received_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) order_number: Option<&'a str>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "streamfleet::money::option"
    )]
    pub(crate) unit_price: Option<Decimal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) country: Option<&'a str>,
}

/// The data of Order.Created.
#[derive(Serialize)]
pub(crate) struct Order<'a> {
    pub(crate) order_id: i64,
    pub(crate) order_number: &'a str,
    pub(crate) user_id: i64,
    #[serde(with = "streamfleet::money")]
    pub(crate) total_amount: Decimal,
    pub(crate) status: &'a str,
    pub(crate) items: Vec<Item<'a>>,
    pub(crate) shipping_address: Address<'a>,
    pub(crate) created_at: Timestamp,
}

/// A line of an order.
#[derive(Serialize)]
pub(crate) struct Item<'a> {
    pub(crate) product_id: i64,
    pub(crate) sku_id: i64,
    pub(crate) sku_code: &'a str,
    pub(crate) product_name: &'a str,
    pub(crate) sku_name: &'a str,
    pub(crate) quantity: i64,
    #[serde(with = "streamfleet::money")]
    pub(crate) unit_price: Decimal,
    #[serde(with = "streamfleet::money")]
    pub(crate) subtotal: Decimal,
}

/// Where an order goes, as far as the file knows.
#[derive(Serialize)]
pub(crate) struct Address<'a> {
    pub(crate) recipient: String,
    pub(crate) phone: &'a str,
    pub(crate) address: &'a str,
    pub(crate) city: &'a str,
    pub(crate) province: &'a str,
    pub(crate) country: &'a str,
}
