//! search-service: finds published products by the words of their name and description.
//!
//! | key | what |
//! |---|---|
//! | `search-service:token:<word>` | set: the published products that have this word |
//! | `search-service:product:<id>` | hash of a published product: `name`, `category_id`, `brand_id`, `description` |
//! | `search-service:state:<id>` | string, JSON: what the events so far said, each field with its event time, and the words that the product is found by |
//!
//! A word is a run of letters and digits (Unicode) in lower case; a product has at most 100 of
//! them, first those of its name. Asking:
//!
//! ```text
//! redis-cli SMEMBERS search-service:token:tea
//! redis-cli SINTER search-service:token:green search-service:token:tea
//! redis-cli SUNION search-service:token:tea search-service:token:coffee
//! redis-cli HGET search-service:product:1 name
//! ```
//!
//! **Guarantee.** The index is that of the newest events by event time, field by field, in
//! whatever order and however often they arrive: an older event changes nothing. A product is found
//! exactly while it is published; words that it no longer has are taken out in the same step. A
//! product that was archived keeps its state, so that a late event does not bring it back.

use std::process::ExitCode;

use streamfleet::{Context, Event, Handler, HandlerError};

#[path = "search/index.rs"]
mod index;
#[path = "shared/latest.rs"]
mod latest;
#[path = "shared/product.rs"]
mod product;
use index::Entry;
use latest::Stamp;
use product::Change;

struct Search;

impl Search {
    fn from_env() -> Result<Self, std::convert::Infallible> {
        Ok(Self)
    }
}

impl Handler for Search {
    const SUBSCRIBER: &'static str = "search-service";
    const READ_MODEL: bool = true;

    async fn handle(&self, event: &Event, cx: &mut Context) -> Result<(), HandlerError> {
        match event.event_type() {
            "Product.Created" | "Product.Updated" => {
                index_product(event.data()?, Stamp::of(event), cx).await
            }
            other => Err(HandlerError::reject(format!(
                "search-service does not handle {other}: remove it from that route in routing.yaml"
            ))),
        }
    }
}

#[global_allocator]
static ALLOCATOR: streamfleet::Allocator = streamfleet::Allocator;

fn main() -> ExitCode {
    streamfleet::worker::main(Search::from_env)
}

async fn index_product(change: Change, stamp: Stamp, cx: &mut Context) -> Result<(), HandlerError> {
    let id = change.product_id.to_string();
    let key = format!("state:{id}");
    let read = cx.get(&key).await?;
    let before: Entry = match &read {
        Some(json) => serde_json::from_slice(json)
            .map_err(|e| HandlerError::reject(format!("search-service:{key} is damaged: {e}")))?,
        None => Entry::default(),
    };
    let after = before.after(change, stamp);
    if after == before {
        return Ok(());
    }
    // Whoever was faster with another event of this product is taken into account first.
    cx.require(&key, read.as_deref())?;
    cx.set(&key, serde_json::to_vec(&after)?)?;
    for gone in before.tokens.difference(&after.tokens) {
        cx.set_remove(&format!("token:{gone}"), &id)?;
    }
    for new in after.tokens.difference(&before.tokens) {
        cx.set_add(&format!("token:{new}"), &id)?;
    }
    let shown = format!("product:{id}");
    cx.delete(&shown)?;
    for (field, value) in after.product.shown().into_iter().flatten() {
        cx.hash_set(&shown, field, value)?;
    }
    Ok(())
}
