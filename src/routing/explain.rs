//! Why an event type goes where it goes: the same decisions as the compiled table, with the place
//! in the file of each. Knows nothing of Redis.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::structure::borrowed;
use super::yaml::{Node, Place, Yaml};
use super::{Config, ConfigError, MAX_FILE_BYTES, as_text, did_you_mean, only, read_bounded};
use crate::event_type::{EventType, Pattern};

/// A place in routing.yaml.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct At {
    /// The line, from 1.
    pub line: u64,
    /// The column, from 1.
    pub column: u64,
}

impl From<Place> for At {
    fn from(place: Place) -> Self {
        Self {
            line: place.line,
            column: place.column,
        }
    }
}

/// A pattern that selects the type, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Because {
    /// The pattern as written.
    pub pattern: String,
    /// Where.
    pub at: At,
}

/// A setting that holds, and who says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    /// Its name, `backoff.initial`.
    pub setting: &'static str,
    /// The section that sets it: `subscribers.<name>`, `defaults`; nothing for our own default.
    pub by: Option<String>,
    /// Where.
    pub at: Option<At>,
}

/// Someone who receives the type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Receiver {
    /// The subscriber.
    pub name: String,
    /// The routes that name it, each with the place of the name in its list.
    pub because: Vec<Because>,
    /// Where what holds for its deliveries is said.
    pub settings: Vec<Held>,
}

/// The way of one event type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The type.
    pub event_type: String,
    /// The files whose schemas validate it, by version, ascending; empty: it is refused at the door.
    pub schemas: Vec<(u32, PathBuf)>,
    /// The stream that keeps it.
    pub stream: Option<(String, Because)>,
    /// Who receives it.
    pub receivers: Vec<Receiver>,
    /// What is missing, and what to do about it, if it does not go to anybody.
    pub missing: Option<String>,
}

/// The settings that hold for deliveries.
const SETTINGS: [&str; 7] = [
    "max_attempts",
    "backoff.initial",
    "backoff.multiplier",
    "backoff.max",
    "timeout",
    "lease",
    "concurrency",
];

/// Explains what becomes of an event type under this configuration, whose file is read again.
///
/// # Errors
/// The file has changed, and cannot be read any more.
pub fn explain(config: &Config, event_type: &EventType) -> Result<Explanation, ConfigError> {
    let file = config.path.as_path();
    let bytes = read_bounded(file, MAX_FILE_BYTES).map_err(only)?;
    let tree = Node::parse(file, as_text(file, &bytes)?).map_err(only)?;
    Ok(of(&tree, config, event_type))
}

fn of(tree: &Node, config: &Config, event_type: &EventType) -> Explanation {
    let versions = config.schemas.versions(event_type);
    let schemas: Vec<_> = versions
        .map(|version| {
            (
                version,
                schema_file(&config.schema_folder, event_type, version),
            )
        })
        .collect();
    let stream = stream_of(tree, event_type);
    let receivers = receivers(tree, event_type);
    let missing = match (schemas.is_empty(), &stream, receivers.is_empty()) {
        (false, Some(_), false) => None,
        (true, ..) => Some(no_schema(config, event_type)),
        (_, None, _) => Some(format!(
            "no stream takes it, so that the router refuses it (unknown_type): add it to the `events` of a stream, \
             such as streams.{}",
            config
                .routing
                .streams()
                .next()
                .map_or("order-events", |s| &s.name)
        )),
        (.., true) => Some(format!(
            "nobody receives it; it is only kept as history: add a route, `{event_type}: [analytics-service]`"
        )),
    };
    Explanation {
        event_type: event_type.to_string(),
        schemas,
        stream,
        receivers,
        missing,
    }
}

fn schema_file(folder: &Path, event_type: &EventType, version: u32) -> PathBuf {
    folder.join(format!("{event_type}.v{version}.json"))
}

fn no_schema(config: &Config, event_type: &EventType) -> String {
    let known = config.schemas.event_types().map(EventType::as_str);
    let refused = "no schema knows it, so that the router refuses it (unknown_type)";
    match did_you_mean(event_type.as_str(), known) {
        Some(guess) => format!("{refused}: did you mean {guess}?"),
        None => {
            let file = schema_file(&config.schema_folder, event_type, 1);
            format!("{refused}: add {}", file.display())
        }
    }
}

fn selects(text: &str, event_type: &EventType) -> bool {
    Pattern::parse(text).is_ok_and(|pattern| pattern.matches(event_type))
}

/// The text of a scalar.
fn text(node: &Node) -> Option<&str> {
    match &node.value {
        Yaml::Scalar(value) => value.as_str(),
        _ => None,
    }
}

fn items(node: Option<&Node>) -> &[Node] {
    match node.map(|node| &node.value) {
        Some(Yaml::List(items)) => items,
        _ => &[],
    }
}

fn entries<'a>(tree: &'a Node, section: &str) -> &'a [super::yaml::Entry] {
    tree.get(&[section]).map(Node::entries).unwrap_or_default()
}

/// The first stream that takes it, as the router decides.
fn stream_of(tree: &Node, event_type: &EventType) -> Option<(String, Because)> {
    entries(tree, "streams").iter().find_map(|stream| {
        let mut events = items(stream.value.get(&["events"])).iter();
        let (node, pattern) = events.find_map(|node| {
            let pattern = text(node).filter(|text| selects(text, event_type))?;
            Some((node, pattern))
        })?;
        let because = Because {
            pattern: pattern.to_owned(),
            at: node.place.into(),
        };
        Some((stream.key.clone(), because))
    })
}

/// Everyone whom a matching route names, each once, in the order of the file.
fn receivers(tree: &Node, event_type: &EventType) -> Vec<Receiver> {
    let mut found: Vec<Receiver> = Vec::new();
    let routes = entries(tree, "routes").iter();
    for route in routes.filter(|route| selects(&route.key, event_type)) {
        for node in items(Some(&route.value)) {
            let Some(name) = text(node) else {
                continue;
            };
            let because = Because {
                pattern: route.key.clone(),
                at: node.place.into(),
            };
            match found.iter_mut().find(|one| one.name == name) {
                Some(known) => known.because.push(because),
                None => found.push(Receiver {
                    name: name.to_owned(),
                    because: vec![because],
                    settings: SETTINGS.map(|setting| held(tree, name, setting)).into(),
                }),
            }
        }
    }
    found
}

/// Who sets a setting: the subscriber's own section, else the defaults, else we.
fn held(tree: &Node, name: &str, setting: &'static str) -> Held {
    let sections = [
        vec!["subscribers".to_owned(), name.to_owned()],
        vec!["defaults".to_owned()],
    ];
    let by = sections.iter().find_map(|section| {
        let path: Vec<_> = borrowed(section)
            .into_iter()
            .chain(setting.split('.'))
            .collect();
        tree.get(&path)?;
        Some((section.join("."), tree.key_place_of(&path).into()))
    });
    let (by, at) = by.unzip();
    Held { setting, by, at }
}
