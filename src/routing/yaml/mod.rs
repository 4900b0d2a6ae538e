//! `routing.yaml` as a tree whose every key and value knows its line and column.
//!
//! The tree is what problems are located in; the typed model is read from its JSON form. Budgets
//! bound what anchors and aliases may unfold to.

use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};
use serde_saphyr::{
    DefaultMessageFormatter, DuplicateKeyPolicy, Error, Location, MessageFormatter, Spanned,
};

use super::problem::Problem;

/// Keys, values and containers of a file. Enough for thousands of event types with a route each;
/// few enough for checks that look everything up by its name.
const MAX_NODES: usize = 25_000;

/// Line and column, counted from 1; 0 where unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) column: u64,
}

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        Self {
            line: location.line(),
            column: location.column(),
        }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Yaml,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub(super) enum Yaml {
    /// `null`, a boolean, a number or a text.
    Scalar(Value),
    /// A list.
    List(Vec<Node>),
    /// Keys in the order of the file; a key may occur twice until duplicates are removed.
    Map(Vec<Entry>),
    /// Taken out because a problem was reported for it.
    Refused,
}

/// A key with its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_place: Place,
    pub(super) value: Node,
}

impl Entry {
    /// Where a reader looks for this entry: at a scalar itself, at the key of anything larger.
    pub(super) fn place(&self) -> Place {
        match self.value.value {
            Yaml::Scalar(Value::Null) | Yaml::List(_) | Yaml::Map(_) => self.key_place,
            _ => self.value.place,
        }
    }
}

impl Node {
    /// Parses the file. A file that is no YAML has one problem: where the parser stopped.
    pub(super) fn parse(file: &Path, text: &str) -> Result<Node, Problem> {
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                max_depth: 32,
                max_nodes: MAX_NODES,
                max_events: 3 * MAX_NODES,
                max_aliases: 1_000,
                max_anchors: 1_000,
                max_documents: 1,
            },
            alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 10_000 },
            // All duplicates are reported, by `take_duplicates`, not only the first.
            duplicate_keys: DuplicateKeyPolicy::LastWins,
            strict_booleans: true,
            reject_unsupported_tags: true,
            with_snippet: false,
        };
        serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| syntax_problem(file, text, &error))
    }

    /// The value at a path of keys and list positions.
    pub(super) fn get(&self, path: &[&str]) -> Option<&Node> {
        let Some((first, rest)) = path.split_first() else {
            return Some(self);
        };
        match &self.value {
            Yaml::Map(entries) => entries.iter().find(|e| e.key == *first)?.value.get(rest),
            Yaml::List(items) => items.get(first.parse::<usize>().ok()?)?.get(rest),
            _ => None,
        }
    }

    fn get_mut(&mut self, path: &[&str]) -> Option<&mut Node> {
        let Some((first, rest)) = path.split_first() else {
            return Some(self);
        };
        match &mut self.value {
            Yaml::Map(entries) => entries
                .iter_mut()
                .find(|e| e.key == *first)?
                .value
                .get_mut(rest),
            Yaml::List(items) => items.get_mut(first.parse::<usize>().ok()?)?.get_mut(rest),
            _ => None,
        }
    }

    /// Where the value at the path stands; of a path that is absent, its nearest ancestor.
    pub(super) fn place_of(&self, path: &[&str]) -> Place {
        let Some((last, parents)) = path.split_last() else {
            return self.place;
        };
        let found = self.get(parents).and_then(|parent| match &parent.value {
            Yaml::Map(entries) => entries.iter().find(|e| e.key == *last).map(Entry::place),
            Yaml::List(items) => last
                .parse::<usize>()
                .ok()
                .and_then(|at| items.get(at))
                .map(|item| item.place),
            _ => None,
        });
        found.unwrap_or_else(|| self.place_of(parents))
    }

    /// Where the key at the path stands; of a path that is absent, its nearest ancestor.
    pub(super) fn key_place_of(&self, path: &[&str]) -> Place {
        let found = path.split_last().and_then(|(last, parents)| {
            let entry = self
                .get(parents)?
                .entries()
                .iter()
                .find(|e| e.key == *last)?;
            Some(entry.key_place)
        });
        found.unwrap_or_else(|| self.place_of(path))
    }

    /// The entries of a map, none of anything else.
    pub(super) fn entries(&self) -> &[Entry] {
        match &self.value {
            Yaml::Map(entries) => entries,
            _ => &[],
        }
    }

    /// Keeps the first of each key, and hands back the key, the place of the first and the place
    /// of every further one.
    pub(super) fn take_duplicates(&mut self) -> Vec<(String, Place, Place)> {
        let mut found = Vec::new();
        match &mut self.value {
            Yaml::Map(entries) => {
                let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
                let mut first = std::collections::HashMap::new();
                for mut entry in entries.drain(..) {
                    match first.get(&entry.key) {
                        Some(place) => found.push((entry.key, *place, entry.key_place)),
                        None => {
                            first.insert(entry.key.clone(), entry.key_place);
                            found.extend(entry.value.take_duplicates());
                            kept.push(entry);
                        }
                    }
                }
                *entries = kept;
            }
            Yaml::List(items) => {
                found.extend(items.iter_mut().flat_map(Node::take_duplicates));
            }
            _ => {}
        }
        found
    }

    /// Marks a value as refused; `sweep` takes it out.
    pub(super) fn refuse(&mut self, path: &[&str]) {
        if let Some(node) = self.get_mut(path) {
            node.value = Yaml::Refused;
        }
    }

    /// Takes out what was refused.
    pub(super) fn sweep(&mut self) {
        match &mut self.value {
            Yaml::Map(entries) => {
                entries.retain(|e| !matches!(e.value.value, Yaml::Refused));
                entries.iter_mut().for_each(|e| e.value.sweep());
            }
            Yaml::List(items) => {
                items.retain(|item| !matches!(item.value, Yaml::Refused));
                items.iter_mut().for_each(Node::sweep);
            }
            _ => {}
        }
    }

    /// The same value without places.
    pub(super) fn to_json(&self) -> Value {
        match &self.value {
            Yaml::Scalar(value) => value.clone(),
            Yaml::List(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            Yaml::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|e| (e.key.clone(), e.value.to_json()))
                    .collect(),
            ),
            Yaml::Refused => Value::Null,
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Yaml>::deserialize(deserializer)?;
        Ok(Node {
            place: spanned.referenced.into(),
            value: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(YamlVisitor)
    }
}

struct YamlVisitor;

impl<'de> Visitor<'de> for YamlVisitor {
    type Value = Yaml;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(Value::from(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(Value::from(value)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Yaml, E> {
        // `1e3` is a whole number to JSON Schema; make it one to serde too.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        Ok(Yaml::Scalar(
            if value.fract() == 0.0 && value.abs() <= EXACT {
                Value::from(value as i64)
            } else {
                Number::from_f64(value).map_or(Value::Null, Value::Number)
            },
        ))
    }

    fn visit_str<E>(self, value: &str) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(Value::from(value)))
    }

    fn visit_string<E>(self, value: String) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(Value::String(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Yaml, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Yaml::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Yaml, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = access.next_entry::<Node, Node>()? {
            let text = match key.value {
                Yaml::Scalar(Value::String(text)) => text,
                Yaml::Scalar(other) => other.to_string(),
                _ => return Err(serde::de::Error::custom("a key must be a text")),
            };
            entries.push(Entry {
                key: text,
                key_place: key.place,
                value,
            });
        }
        Ok(Yaml::Map(entries))
    }
}

fn syntax_problem(file: &Path, text: &str, error: &Error) -> Problem {
    let place = error.location().map(Place::from).unwrap_or_default();
    let line = usize::try_from(place.line.saturating_sub(1)).unwrap_or(usize::MAX);
    let line = text.lines().nth(line).unwrap_or_default();
    let problem = if let Some(column) = bare_wildcard(line) {
        let message = "a bare `*` starts a YAML alias, not a pattern";
        let place = Place {
            line: place.line,
            column,
        };
        return Problem::error(file, message, "quote the pattern: \"*.Created\"")
            .at(place.line, place.column);
    } else if matches!(
        innermost(error),
        Error::Budget { .. }
            | Error::AliasReplayLimitExceeded { .. }
            | Error::AliasExpansionLimitExceeded { .. }
            | Error::AliasReplayStackDepthExceeded { .. }
    ) {
        Problem::error(
            file,
            format!(
                "the file unfolds to more than a routing file can need: {}",
                said(error)
            ),
            format!(
                "write it without anchors and aliases, flat, with at most {MAX_NODES} keys and values"
            ),
        )
    } else {
        Problem::error(
            file,
            format!("not valid YAML: {}", said(error)),
            "correct the YAML here: check indentation, quotes, brackets and the space after `:`",
        )
    };
    problem.at(place.line, place.column)
}

fn said(error: &Error) -> String {
    DefaultMessageFormatter
        .format_message(innermost(error))
        .into_owned()
}

fn innermost(error: &Error) -> &Error {
    let mut error = error.without_snippet();
    while let Error::AliasError { error: inner, .. } = error {
        error = inner.without_snippet();
    }
    error
}

/// The column of a `*` that YAML reads as an alias although it looks like a pattern: it starts a
/// value or a key, and a dot, another `*` or nothing that could be a name follows.
fn bare_wildcard(line: &str) -> Option<u64> {
    let mut quote = None;
    let mut starts_value = true;
    let chars: Vec<char> = line.chars().collect();
    for (at, c) in chars.iter().enumerate() {
        match (quote, c) {
            (Some(open), c) if open == *c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(*c),
            (None, '#') if starts_value => return None,
            (None, '*')
                if starts_value
                    && chars
                        .get(at + 1)
                        .is_none_or(|next| ".*,] :}".contains(*next)) =>
            {
                return Some(at as u64 + 1);
            }
            _ => {}
        }
        starts_value = matches!(c, ' ' | '\t' | '[' | ',' | '{') && quote.is_none();
    }
    None
}

#[cfg(test)]
mod tests;
