//! Rows to events: what the shop would have published, had it been open then.
//!
//! Event IDs derive from a row and its place in the file, so importing a file twice publishes the
//! same events twice, and the router drops the second. Nothing is filtered: an order with a line
//! that no order can hold is published as it is, for the router to refuse.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::{
    data::{Address, Envelope, Item, Order, Receipt, Sku},
    rows::{GUEST, Row},
};

/// What every ID of an imported event derives from.
const NAMESPACE: Uuid = Uuid::from_u128(0x6f1d_0c1e_4b7a_5d53_9a52_7f0a_5e0c_b9d1);

/// Numbers below are taken from the file; those from here on are derived from text. All stay below
/// 2^48, so that readers that take JSON numbers for doubles read them exactly.
const FIRST_DERIVED_ID: i64 = 1 << 47;

/// The file cannot be expressed as events. Nothing of it is published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EventError {
    #[error("{one:?} and {other:?} derive the same number {id}; rename one of them")]
    SameId { one: String, other: String, id: i64 },
    #[error("invoice {invoice}: its amounts are too large to be added up")]
    Amount { invoice: String },
    #[error("an event cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// An event, ready to be published.
pub(crate) struct Published {
    pub(crate) event_type: &'static str,
    pub(crate) json: Vec<u8>,
}

/// The events of a file, in its order; an invoice takes place where its first row is.
///
/// The first time that an article is seen, `stock` units of it are received; none if it is 0.
pub(crate) fn events(rows: &[Row], stock: u32) -> Result<Vec<Published>, EventError> {
    let mut import = Import {
        stock,
        ..Import::default()
    };
    for invoice in invoices(rows) {
        import.invoice(&invoice)?;
    }
    Ok(import.events)
}

fn invoices(rows: &[Row]) -> Vec<Vec<&Row>> {
    let mut position = HashMap::new();
    let mut invoices: Vec<Vec<&Row>> = Vec::new();
    for row in rows {
        let at = *position
            .entry(row.invoice.as_str())
            .or_insert(invoices.len());
        match invoices.get_mut(at) {
            Some(invoice) => invoice.push(row),
            None => invoices.push(vec![row]),
        }
    }
    invoices
}

#[derive(Default)]
struct Import<'a> {
    stock: u32,
    users: HashSet<i64>,
    articles: HashMap<i64, &'a str>,
    orders: HashMap<i64, &'a str>,
    events: Vec<Published>,
}

impl<'a> Import<'a> {
    fn invoice(&mut self, rows: &[&'a Row]) -> Result<(), EventError> {
        let Some(first) = rows.first() else {
            return Ok(());
        };
        self.user(first)?;
        for row in rows {
            self.article(row, first.at)?;
        }
        if !first.invoice.starts_with('C') {
            return self.order(first, rows);
        }
        for row in rows {
            self.push(
                "Inventory.Stock.Received",
                "return",
                row,
                &invoice_flow(first),
                first.at,
                Receipt {
                    sku_id: id_of(&row.stock_code),
                    quantity: -i128::from(row.quantity),
                    reason: "return",
                    received_at: first.at,
                    order_number: Some(&first.invoice),
                    unit_price: Some(row.unit_price),
                    country: Some(&first.country),
                },
            )?;
        }
        Ok(())
    }

    /// The customer, when seen for the first time.
    fn user(&mut self, row: &Row) -> Result<(), EventError> {
        let user_id = row.user_id;
        if !self.users.insert(user_id) {
            return Ok(());
        }
        let username = username(user_id);
        let data = json!({
            "user_id": user_id,
            "username": username,
            "email": format!("{username}@customers.example"),
            "created_at": row.at,
            "user_type": "customer",
        });
        self.push(
            "User.Created",
            "user",
            row,
            &invoice_flow(row),
            row.at,
            data,
        )
    }

    /// The article, when seen for the first time: its product, its only SKU and its first receipt.
    fn article(&mut self, row: &'a Row, at: Timestamp) -> Result<(), EventError> {
        let id = id_of(&row.stock_code);
        if !is_new(&mut self.articles, id, &row.stock_code)? {
            return Ok(());
        }
        let flow = format!("article {}", row.stock_code);
        let product = json!({
            "product_id": id,
            "name": row.name,
            "category_id": 0,
            "status": "published",
            "created_by": GUEST,
            "created_at": at,
        });
        self.push("Product.Created", "product", row, &flow, at, product)?;
        self.push(
            "SKU.Created",
            "sku",
            row,
            &flow,
            at,
            Sku {
                sku_id: id,
                product_id: id,
                sku_code: &row.stock_code,
                name: &row.name,
                price: row.unit_price,
                is_active: true,
                created_by: GUEST,
                created_at: at,
            },
        )?;
        if self.stock == 0 {
            return Ok(());
        }
        self.push(
            "Inventory.Stock.Received",
            "purchase",
            row,
            &flow,
            at,
            Receipt {
                sku_id: id,
                quantity: i128::from(self.stock),
                reason: "purchase",
                received_at: at,
                order_number: None,
                unit_price: None,
                country: None,
            },
        )
    }

    fn order(&mut self, first: &'a Row, rows: &[&Row]) -> Result<(), EventError> {
        let order_id = id_of(&first.invoice);
        is_new(&mut self.orders, order_id, &first.invoice)?;
        let too_large = || EventError::Amount {
            invoice: first.invoice.clone(),
        };
        let mut total_amount = Decimal::ZERO;
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            let subtotal = row
                .unit_price
                .checked_mul(Decimal::from(row.quantity))
                .ok_or_else(too_large)?;
            total_amount = total_amount.checked_add(subtotal).ok_or_else(too_large)?;
            let id = id_of(&row.stock_code);
            items.push(Item {
                product_id: id,
                sku_id: id,
                sku_code: &row.stock_code,
                product_name: &row.name,
                sku_name: &row.name,
                quantity: row.quantity,
                unit_price: row.unit_price,
                subtotal,
            });
        }
        let order = Order {
            order_id,
            order_number: &first.invoice,
            user_id: first.user_id,
            total_amount,
            status: "pending",
            items,
            shipping_address: Address {
                recipient: username(first.user_id),
                phone: "-",
                address: "-",
                city: "-",
                province: "-",
                country: &first.country,
            },
            created_at: first.at,
        };
        self.push(
            "Order.Created",
            "order",
            first,
            &invoice_flow(first),
            first.at,
            order,
        )
    }

    /// `role` tells apart what one row gives rise to.
    fn push(
        &mut self,
        event_type: &'static str,
        role: &str,
        row: &Row,
        flow: &str,
        at: Timestamp,
        data: impl Serialize,
    ) -> Result<(), EventError> {
        let json = serde_json::to_vec(&Envelope {
            event_id: derived(role, &row.identity),
            event_type,
            version: "1",
            timestamp: at,
            correlation_id: derived("flow", flow),
            source: "import_retail",
            data,
        })?;
        self.events.push(Published { event_type, json });
        Ok(())
    }
}

/// An invoice and a customer who comes with it are one business flow.
fn invoice_flow(row: &Row) -> String {
    format!("invoice {}", row.invoice)
}

fn username(user_id: i64) -> String {
    if user_id == GUEST {
        "guest".to_owned()
    } else {
        format!("customer-{user_id}")
    }
}

fn derived(role: &str, what: &str) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("{role}\n{what}").as_bytes())
}

/// The number of an invoice or article: the one that its text spells, or else one derived from it.
fn id_of(text: &str) -> i64 {
    let spelled = text.parse::<i64>().ok();
    match spelled.filter(|n| (1..FIRST_DERIVED_ID).contains(n) && n.to_string() == text) {
        Some(number) => number,
        None => {
            let [a, b, c, d, e, f, ..] = *derived("number", text).as_bytes();
            FIRST_DERIVED_ID | i64::from_be_bytes([0, 0, a, b, c, d, e, f])
        }
    }
}

/// Whether `text` is seen for the first time; an error if another text has its number.
fn is_new<'a>(
    known: &mut HashMap<i64, &'a str>,
    id: i64,
    text: &'a str,
) -> Result<bool, EventError> {
    match known.insert(id, text) {
        None => Ok(true),
        Some(same) if same == text => Ok(false),
        Some(one) => Err(EventError::SameId {
            one: one.to_owned(),
            other: text.to_owned(),
            id,
        }),
    }
}
