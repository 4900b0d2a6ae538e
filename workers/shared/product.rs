//! What the events so far say about a product, each field by event time. Pure.

use serde::{Deserialize, Serialize};

use super::latest::{Latest, Stamp, offer};

/// Only what is published is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Draft,
    Published,
    Archived,
}

/// `Product.Created` or `Product.Updated`, as far as a reader of the catalogue needs it. A field
/// that is absent is one that the event does not speak of.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Change {
    pub(crate) product_id: i64,
    pub(crate) name: Option<String>,
    pub(crate) category_id: Option<i64>,
    pub(crate) status: Option<Status>,
    pub(crate) description: Option<String>,
    pub(crate) brand_id: Option<i64>,
}

/// A product as it is known; an update may come before the event that created it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Product {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<Latest<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) category_id: Option<Latest<i64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<Latest<Status>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<Latest<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) brand_id: Option<Latest<i64>>,
}

impl Product {
    pub(crate) fn apply(&mut self, change: Change, stamp: Stamp) {
        offer(&mut self.name, change.name, stamp);
        offer(&mut self.category_id, change.category_id, stamp);
        offer(&mut self.status, change.status, stamp);
        offer(&mut self.description, change.description, stamp);
        offer(&mut self.brand_id, change.brand_id, stamp);
    }

    /// The name under which it is shown, if it is.
    pub(crate) fn shown_as(&self) -> Option<&str> {
        let status = self.status.as_ref()?.value;
        let name = self.name.as_ref()?;
        (status == Status::Published).then_some(&name.value)
    }

    /// The fields that customers see, as text, if they may see the product.
    pub(crate) fn shown(&self) -> Option<Vec<(&'static str, String)>> {
        let mut fields = vec![("name", self.shown_as()?.to_owned())];
        let number = |field: &Option<Latest<i64>>| field.as_ref().map(|id| id.value.to_string());
        let description = self.description.as_ref().map(|text| text.value.clone());
        fields.extend(
            [
                ("category_id", number(&self.category_id)),
                ("brand_id", number(&self.brand_id)),
                ("description", description.filter(|text| !text.is_empty())),
            ]
            .into_iter()
            .filter_map(|(field, value)| Some((field, value?))),
        );
        Some(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Stamp {
        Stamp {
            at: jiff::Timestamp::from_second(second).unwrap(),
            by: uuid::Uuid::nil(),
        }
    }

    fn change(json: &str) -> Change {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn only_what_is_published_is_shown() {
        assert_eq!(change(r#"{"product_id":7}"#).product_id, 7);
        let mut product = Product::default();
        assert_eq!(product.shown(), None);
        product.apply(change(r#"{"product_id":1,"status":"published"}"#), at(2));
        assert_eq!(product.shown(), None, "nobody knows its name");
        let created = r#"{"product_id":1,"name":"Tea","category_id":3,"status":"draft"}"#;
        product.apply(change(created), at(1));
        let shown = [("name", "Tea".to_owned()), ("category_id", "3".to_owned())];
        assert_eq!(product.shown().unwrap(), shown);
        product.apply(change(r#"{"product_id":1,"status":"archived"}"#), at(4));
        product.apply(change(r#"{"product_id":1,"status":"published"}"#), at(3));
        assert_eq!(product.shown(), None, "older than what archived it");
    }

    #[test]
    fn it_survives_being_stored() {
        let mut product = Product::default();
        let all = r#"{"product_id":1,"name":"T","category_id":3,"status":"draft","description":"","brand_id":4}"#;
        product.apply(change(all), at(1));
        let stored = serde_json::to_string(&product).unwrap();
        assert_eq!(serde_json::from_str::<Product>(&stored).unwrap(), product);
    }
}
