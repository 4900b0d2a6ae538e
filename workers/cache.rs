//! cache-service: everything that a product page shows, ready to be read in one step.
//!
//! | key | what |
//! |---|---|
//! | `cache-service:product:<id>` | hash, while the product is published: `name`, `category_id`, `brand_id`, `description`; per variant `sku:<sku_id>`, JSON with prices as text; `as_of`, the event time of the newest of it |
//! | `cache-service:state:<id>` | string, JSON: what the events so far said, each field with its event time, of products that are shown and of those that are not |
//!
//! ```text
//! redis-cli HGETALL cache-service:product:1
//! ```
//!
//! **Guarantee.** A page is what the newest events by event time say, field by field, in whatever
//! order and however often they arrive: an older event changes nothing, and a variant may come before
//! its product. A reader sees a page before an event or after it, never half of it. An archived
//! product has no page; its state stays behind, so that a late event does not bring the page back.
//! Prices have exactly the digits that were sent; one that no decimal of 28 digits holds is rejected.

use std::process::ExitCode;

use streamfleet::{Context, Event, Handler, HandlerError};

#[path = "shared/latest.rs"]
mod latest;
#[path = "cache/page.rs"]
mod page;
#[path = "shared/product.rs"]
mod product;
use latest::Stamp;
use page::{Known, News, Sku, SkuCreated};
use product::Change;

struct Cache;

impl Cache {
    fn from_env() -> Result<Self, std::convert::Infallible> {
        Ok(Self)
    }
}

impl Handler for Cache {
    const SUBSCRIBER: &'static str = "cache-service";
    const READ_MODEL: bool = true;

    async fn handle(&self, event: &Event, cx: &mut Context) -> Result<(), HandlerError> {
        let (product_id, news) = match event.event_type() {
            "Product.Created" | "Product.Updated" => {
                let change: Change = event.data()?;
                (change.product_id, News::Product(change))
            }
            "SKU.Created" => {
                let sku: SkuCreated = event.data()?;
                let (product_id, sku_id) = (sku.product_id, sku.sku_id);
                let sku = Sku::try_from(sku).map_err(HandlerError::reject)?;
                (product_id, News::Sku(sku_id, sku))
            }
            other => {
                return Err(HandlerError::reject(format!(
                    "cache-service does not handle {other}: remove it from that route in routing.yaml"
                )));
            }
        };
        update(product_id, news, Stamp::of(event), cx).await
    }
}

#[global_allocator]
static ALLOCATOR: streamfleet::Allocator = streamfleet::Allocator;

fn main() -> ExitCode {
    streamfleet::worker::main(Cache::from_env)
}

async fn update(
    product_id: i64,
    news: News,
    stamp: Stamp,
    cx: &mut Context,
) -> Result<(), HandlerError> {
    let key = format!("state:{product_id}");
    let read = cx.get(&key).await?;
    let before: Known = match &read {
        Some(json) => serde_json::from_slice(json)
            .map_err(|e| HandlerError::reject(format!("cache-service:{key} is damaged: {e}")))?,
        None => Known::default(),
    };
    let after = before.after(news, stamp);
    if after == before {
        return Ok(());
    }
    // Whoever was faster with another event of this product is taken into account first.
    cx.require(&key, read.as_deref())?;
    cx.set(&key, serde_json::to_vec(&after)?)?;
    let page = format!("product:{product_id}");
    // Made anew: nothing stays that is no longer there.
    cx.delete(&page)?;
    for (field, value) in after.page()?.into_iter().flatten() {
        cx.hash_set(&page, &field, value)?;
    }
    Ok(())
}
