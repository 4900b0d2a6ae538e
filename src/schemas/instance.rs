//! How the validator reads events: as [`crate::json`] parsed them, without a copy.

use std::borrow::Cow;

use jsonschema::JsonType;
use jsonschema::json::{Array, Json, Node, NodeIdentity, Object, cmp};
use serde_json::{Number, Value};

use crate::json;

/// The representation; a node of it is a reference into a parsed event.
pub(super) struct Instance;

impl Json for Instance {
    type Node<'a> = &'a json::Node<'a>;
    type PreparedKey = Box<str>;
    type StringBuffer = json::Node<'static>;

    // A look-up compares some texts, as with any sorted map.
    const KEYS_PER_LOOKUP: usize = 2;

    fn prepare_key(key: &str) -> Box<str> {
        key.into()
    }

    fn with_string_node<T>(
        buffer: &mut json::Node<'static>,
        string: &str,
        f: impl FnOnce(Self::Node<'_>) -> T,
    ) -> T {
        *buffer = json::Node::String(Cow::Owned(string.to_owned()));
        f(buffer)
    }
}

impl<'a> Node<'a, Instance> for &'a json::Node<'a> {
    type Object = &'a json::Object<'a>;
    type Array = &'a [json::Node<'a>];
    type Number = &'a Number;

    fn as_object(&self) -> Option<&'a json::Object<'a>> {
        match self {
            json::Node::Object(fields) => Some(fields),
            _ => None,
        }
    }
    fn as_array(&self) -> Option<&'a [json::Node<'a>]> {
        match self {
            json::Node::Array(items) => Some(items),
            _ => None,
        }
    }
    fn as_string(&self) -> Option<Cow<'a, str>> {
        json::Node::as_str(self).map(Cow::Borrowed)
    }
    fn as_number(&self) -> Option<&'a Number> {
        match self {
            json::Node::Number(number) => Some(number),
            _ => None,
        }
    }
    fn as_boolean(&self) -> Option<bool> {
        match self {
            json::Node::Bool(value) => Some(*value),
            _ => None,
        }
    }
    fn is_null(&self) -> bool {
        matches!(self, json::Node::Null)
    }
    fn json_type(&self) -> JsonType {
        match self {
            json::Node::Null => JsonType::Null,
            json::Node::Bool(_) => JsonType::Boolean,
            json::Node::Number(_) => JsonType::Number,
            json::Node::String(_) => JsonType::String,
            json::Node::Array(_) => JsonType::Array,
            json::Node::Object(_) => JsonType::Object,
        }
    }
    fn equals_value(&self, expected: &Value) -> bool {
        match (self, expected) {
            (json::Node::String(is), Value::String(expected)) => is == expected,
            // Numbers compare as JSON Schema says, and copying one costs nothing.
            (json::Node::Number(is), expected) => cmp::equal(&Value::Number(is.clone()), expected),
            (json::Node::Bool(is), Value::Bool(expected)) => is == expected,
            (json::Node::Null, Value::Null) => true,
            (json::Node::Array(items), Value::Array(expected)) => {
                items.len() == expected.len()
                    && items.iter().zip(expected).all(|(is, e)| is.equals_value(e))
            }
            (json::Node::Object(fields), Value::Object(expected)) => {
                let same = |(key, is): (&str, &json::Node<'_>)| {
                    expected.get(key).is_some_and(|e| is.equals_value(e))
                };
                fields.len() == expected.len() && fields.iter().all(same)
            }
            _ => false,
        }
    }
    fn to_value(&self) -> Cow<'a, Value> {
        Cow::Owned(json::Node::to_value(self))
    }
    fn identity(&self) -> Option<NodeIdentity> {
        Some(NodeIdentity::new(std::ptr::from_ref(*self) as usize))
    }
}

impl<'a> Object<'a, Instance> for &'a json::Object<'a> {
    type Node = &'a json::Node<'a>;
    type MemberName = &'a str;
    type MembersIter = json::Fields<'a>;

    fn len(&self) -> usize {
        json::Object::len(self)
    }
    fn get(&self, key: &Box<str>) -> Option<&'a json::Node<'a>> {
        json::Object::get(self, key)
    }
    fn members(&self) -> json::Fields<'a> {
        json::Object::iter(self)
    }
}

impl<'a> Array<'a, Instance> for &'a [json::Node<'a>] {
    type Node = &'a json::Node<'a>;
    type ElementsIter = std::slice::Iter<'a, json::Node<'a>>;

    fn len(&self) -> usize {
        <[_]>::len(self)
    }
    fn elements(&self) -> Self::ElementsIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonschema::json::conformance;

    #[test]
    fn it_is_what_the_validator_relies_on() {
        let text = conformance::document().to_string();
        let node = json::parse(text.as_bytes(), 8).unwrap();
        conformance::assert_conformance::<Instance>(&&node);
    }
}
