//! What a product page shows, apart from Redis: pure functions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use streamfleet::money;

use super::latest::{Latest, Stamp, offer};
use super::product::{Change, Product};

/// `SKU.Created`, as far as a page shows it: not what the shop pays for it.
#[derive(Debug, Deserialize)]
pub(crate) struct SkuCreated {
    pub(crate) sku_id: i64,
    pub(crate) product_id: i64,
    sku_code: String,
    name: String,
    price: Box<RawValue>,
    market_price: Option<Box<RawValue>>,
    is_active: bool,
}

/// A variant as pages show it. Prices are text with exactly the digits that were sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sku {
    sku_code: String,
    name: String,
    price: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    market_price: Option<String>,
    is_active: bool,
}

/// A price that no decimal holds. No retry will help.
#[derive(Debug, thiserror::Error)]
#[error("{pointer}: {text} does not fit an amount of 28 digits")]
pub(crate) struct PriceError {
    pointer: &'static str,
    text: String,
    #[source]
    cause: rust_decimal::Error,
}

impl TryFrom<SkuCreated> for Sku {
    type Error = PriceError;

    fn try_from(sku: SkuCreated) -> Result<Self, PriceError> {
        let amount = |pointer, raw: &RawValue| {
            let wrong = |cause| PriceError {
                pointer,
                text: raw.get().to_owned(),
                cause,
            };
            let amount = money::parse(raw.get()).map_err(wrong)?;
            Ok(amount.to_string())
        };
        Ok(Self {
            price: amount("/data/price", &sku.price)?,
            market_price: sku
                .market_price
                .map(|price| amount("/data/market_price", &price))
                .transpose()?,
            sku_code: sku.sku_code,
            name: sku.name,
            is_active: sku.is_active,
        })
    }
}

/// Everything that is known of a product and its variants, whether it is shown or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    product: Product,
    skus: BTreeMap<i64, Latest<Sku>>,
}

/// What an event says.
#[derive(Debug)]
pub(crate) enum News {
    Product(Change),
    Sku(i64, Sku),
}

impl Known {
    /// What is known when this event is known as well, whatever its age.
    pub(crate) fn after(&self, news: News, stamp: Stamp) -> Self {
        let mut known = self.clone();
        match news {
            News::Product(change) => known.product.apply(change, stamp),
            News::Sku(id, sku) => {
                let mut held = known.skus.remove(&id);
                offer(&mut held, Some(sku), stamp);
                known.skus.extend(held.map(|sku| (id, sku)));
            }
        }
        known
    }

    /// The page, field by field, if the product is shown.
    pub(crate) fn page(&self) -> Result<Option<Vec<(String, String)>>, serde_json::Error> {
        let Some(shown) = self.product.shown() else {
            return Ok(None);
        };
        let shown = shown.into_iter();
        let mut page: Vec<_> = shown.map(|(name, text)| (name.to_owned(), text)).collect();
        for (id, sku) in &self.skus {
            page.push((format!("sku:{id}"), serde_json::to_string(&sku.value)?));
        }
        let as_of = self.as_of().map(|at| at.to_string());
        page.extend(as_of.map(|at| ("as_of".to_owned(), at)));
        Ok(Some(page))
    }

    /// The event time of the newest thing that is known.
    fn as_of(&self) -> Option<jiff::Timestamp> {
        let product = &self.product;
        [
            product.name.as_ref().map(|field| field.at),
            product.category_id.as_ref().map(|field| field.at),
            product.status.as_ref().map(|field| field.at),
            product.description.as_ref().map(|field| field.at),
            product.brand_id.as_ref().map(|field| field.at),
        ]
        .into_iter()
        .flatten()
        .chain(self.skus.values().map(|sku| sku.at))
        .max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64, id: usize) -> Stamp {
        Stamp {
            at: jiff::Timestamp::from_second(second).unwrap(),
            by: uuid::Uuid::from_u128(id as u128),
        }
    }

    fn product(fields: &str) -> News {
        News::Product(serde_json::from_str(&format!("{{\"product_id\":1,{fields}}}")).unwrap())
    }

    fn sku_created(price: &str) -> SkuCreated {
        let json = format!(
            r#"{{"sku_id":11,"product_id":1,"sku_code":"A","name":"Green","is_active":true,"cost_price":1,{price}}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    fn sku(price: &str) -> Sku {
        sku_created(price).try_into().unwrap()
    }

    #[test]
    fn prices_keep_their_digits_or_are_refused_with_their_place() {
        let sku = sku(r#""price":10.00,"market_price":1234567890123456789.123456789"#);
        assert_eq!(
            serde_json::to_string(&sku).unwrap(),
            r#"{"sku_code":"A","name":"Green","price":"10.00","market_price":"1234567890123456789.123456789","is_active":true}"#
        );
        let created = sku_created(r#""price":1"#);
        assert_eq!((created.product_id, created.sku_id), (1, 11));
        let refused = |price| Sku::try_from(sku_created(price)).unwrap_err().to_string();
        assert_eq!(
            refused(r#""price":1e40"#),
            "/data/price: 1e40 does not fit an amount of 28 digits"
        );
        assert!(
            refused(r#""price":1,"market_price":0.00000000000000000000000000000001"#)
                .starts_with("/data/market_price: ")
        );
    }

    #[test]
    fn a_page_has_everything_known_and_the_time_of_the_newest() {
        let known = Known::default()
            .after(News::Sku(11, sku(r#""price":1.50"#)), at(3, 1))
            .after(product(r#""name":"Tea","status":"published""#), at(2, 2));
        let page = known.page().unwrap().unwrap();
        let names: Vec<_> = page.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["name", "sku:11", "as_of"]);
        assert_eq!(page[2].1, "1970-01-01T00:00:03Z");
        let archived = known.after(product(r#""status":"archived""#), at(4, 3));
        assert_eq!(archived.page().unwrap(), None);
        let late = archived.after(product(r#""status":"published""#), at(3, 4));
        assert_eq!(late.page().unwrap(), None, "what was archived stays so");
    }

    proptest::proptest! {
        /// Whatever order events come in and however often, what is known is the same, and it
        /// survives being stored.
        #[test]
        fn what_is_known_is_the_same_for_every_order(
            events in proptest::collection::vec((0..5_i64, 0..6_usize), 1..9),
            order in proptest::collection::vec(0..9_usize, 0..18),
        ) {
            let news = |kind: usize| match kind {
                0 => product(r#""name":"Tea","status":"published""#),
                1 => product(r#""status":"archived""#),
                2 => product(r#""name":"Green tea","brand_id":4"#),
                3 => News::Sku(11, sku(r#""price":1.50"#)),
                4 => News::Sku(11, sku(r#""price":1.5"#)),
                _ => News::Sku(12, sku(r#""price":2"#)),
            };
            let run = |ids: &mut dyn Iterator<Item = usize>| ids.fold(Known::default(), |known, id| {
                let (second, kind) = events[id];
                known.after(news(kind), at(second, id))
            });
            let in_order = run(&mut (0..events.len()));
            let again = order.iter().map(|i| i % events.len());
            let any = run(&mut again.chain((0..events.len()).rev()));
            assert_eq!(any, in_order);
            let stored = serde_json::to_vec(&any).unwrap();
            assert_eq!(serde_json::from_slice::<Known>(&stored).unwrap(), any);
        }
    }
}
