//! Semantic checks: what is well-formed but cannot work, or probably is not meant.

mod settings;

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::time::Duration;

use crate::event_type::{EventType, Pattern};
use crate::routing::duration::{Span, show};
use crate::routing::model::{Model, StreamModel};
use crate::routing::names::{NameKind, name_problem};
use crate::routing::problem::{Problem, Severity, did_you_mean};
use crate::routing::redact::{ENTITY, Of, Pointer};
use crate::routing::structure::cut;
use crate::routing::yaml::{Node, Place};
use crate::schemas::SchemaSet;

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);
/// Longer than anyone keeps anything, and short enough to be added to any time.
const CENTURY: Duration = Duration::from_secs(36_500 * 86_400);

/// The parts of the file in its own order, with patterns read; what the table is compiled from.
#[derive(Debug, Default)]
pub(super) struct Checked<'a> {
    pub(super) streams: Vec<CheckedStream<'a>>,
    routes: Vec<(Pattern, Vec<&'a str>)>,
    pub(super) retired: Vec<&'a str>,
    pub(super) redact: Vec<(Of, Vec<Pointer>)>,
}

/// A stream with its patterns and their positions in its list.
#[derive(Debug)]
pub(super) struct CheckedStream<'a> {
    pub(super) name: &'a str,
    pub(super) model: &'a StreamModel,
    patterns: Vec<(usize, Pattern)>,
}

impl CheckedStream<'_> {
    fn takes(&self, event_type: &EventType) -> bool {
        self.patterns
            .iter()
            .any(|(_, pattern)| pattern.matches(event_type))
    }
}

impl Checked<'_> {
    /// The stream that takes an event type.
    pub(super) fn stream_of(&self, event_type: &EventType) -> Option<&str> {
        self.streams
            .iter()
            .find(|stream| stream.takes(event_type))
            .map(|stream| stream.name)
    }

    /// The subscribers of all routes that match, each once, in the order of the file.
    pub(super) fn receivers(&self, event_type: &EventType) -> Vec<&str> {
        let mut seen = HashSet::new();
        self.routes
            .iter()
            .filter(|(pattern, _)| pattern.matches(event_type))
            .flat_map(|(_, to)| to)
            .copied()
            .filter(|name| seen.insert(*name))
            .collect()
    }

    /// Everyone named in routes, sorted, each once.
    pub(super) fn subscribers(&self) -> impl Iterator<Item = &str> {
        self.routes
            .iter()
            .flat_map(|(_, to)| to)
            .copied()
            .collect::<BTreeSet<_>>()
            .into_iter()
    }
}

/// What the checks look at.
pub(super) struct Input<'a> {
    pub(super) file: &'a Path,
    pub(super) tree: &'a Node,
    pub(super) model: &'a Model,
    /// Absent if they could not be loaded: then nothing is said about which types are known.
    pub(super) schemas: Option<&'a SchemaSet>,
    /// Paths of what the structural check took out or missed.
    pub(super) broken: &'a [Vec<String>],
}

/// Runs every check.
pub(super) fn check(input: Input<'_>) -> (Checked<'_>, Vec<Problem>) {
    let mut checker = Checker {
        input,
        problems: Vec::new(),
    };
    checker.top_level();
    let (streams, patterns_read) = checker.streams();
    checker.overlaps(&streams);
    let routes = checker.routes();
    let redact = checker.redact();
    let mut checked = Checked {
        streams,
        routes,
        retired: Vec::new(),
        redact,
    };
    checked.retired = checker.retired(&checked);
    checker.settings(&checked);
    // A stream or route that could not be read may be just the one that is missed here.
    let whole = |section: &str, part: &str| {
        !checker
            .input
            .broken
            .iter()
            .any(|path| match path.as_slice() {
                [first] => first == section,
                [first, _] => first == section,
                [first, _, third, ..] => first == section && (part.is_empty() || third == part),
                [] => true,
            })
    };
    let streams_whole = patterns_read && whole("streams", "events");
    let routes_whole = whole("routes", "");
    if let Some(schemas) = checker.input.schemas {
        checker.route_types(&checked, schemas, streams_whole);
        checker.unused(&checked, schemas, streams_whole, routes_whole);
    }
    if routes_whole {
        checker.idle_settings(&checked);
    }
    (checked, checker.problems)
}

struct Checker<'a> {
    input: Input<'a>,
    problems: Vec<Problem>,
}

impl<'a> Checker<'a> {
    fn push(
        &mut self,
        severity: Severity,
        place: Place,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let problem = Problem::error(self.input.file, message, fix).at(place.line, place.column);
        self.problems.push(Problem {
            severity,
            ..problem
        });
    }

    fn error(&mut self, path: &[&str], message: impl Into<String>, fix: impl Into<String>) {
        self.push(
            Severity::Error,
            self.input.tree.place_of(path),
            message,
            fix,
        );
    }

    fn warn_key(&mut self, path: &[&str], message: impl Into<String>, fix: impl Into<String>) {
        self.push(
            Severity::Warning,
            self.input.tree.key_place_of(path),
            message,
            fix,
        );
    }

    fn name(&mut self, kind: NameKind, place: Place, name: &str) -> bool {
        let problem = name_problem(kind, name);
        let fine = problem.is_none();
        if let Some((message, fix)) = problem {
            self.push(Severity::Error, place, message, fix);
        }
        fine
    }

    fn range(&mut self, path: &[&str], set: Option<Span>, min: Duration, max: Duration) {
        if let Some(Span(span)) = set
            && !(min..=max).contains(&span)
        {
            let name = path.last().copied().unwrap_or_default();
            let (min, max) = (show(min), show(max));
            self.error(
                path,
                format!(
                    "`{name}` must be between {min} and {max}, found {}",
                    show(span)
                ),
                format!("choose a duration between {min} and {max}"),
            );
        }
    }

    fn top_level(&mut self) {
        let model = self.input.model;
        if let Some(version) = model.version
            && version != 1
        {
            self.error(
                &["version"],
                format!("version {version} of this format is not supported"),
                "write `version: 1`, or install a newer streamfleet",
            );
        }
        if let Some(namespace) = &model.namespace {
            let place = self.input.tree.place_of(&["namespace"]);
            self.name(NameKind::Namespace, place, namespace);
        }
        self.range(&["dedupe_window"], model.dedupe_window, SECOND, 30 * DAY);
        self.range(&["dead_retention"], model.dead_retention, SECOND, CENTURY);
        if let Some(audit) = &model.audit {
            self.range(&["audit", "retention"], audit.retention, SECOND, CENTURY);
            let broken = |path: &Vec<String>| path.first().is_some_and(|first| first == "audit");
            let unlimited = audit.maxlen.is_none() && audit.retention.is_none();
            if unlimited && !self.input.broken.iter().any(broken) {
                self.error(
                    &["audit"],
                    "`audit` has no limit: it would grow for ever",
                    "say how much is kept: `audit: { maxlen: 100000 }`",
                );
            }
        }
        let trace_ttl = model.trace.as_ref().and_then(|trace| trace.ttl);
        self.range(&["trace", "ttl"], trace_ttl, SECOND, 30 * DAY);
    }

    /// The streams in file order, and whether all their patterns could be read.
    fn streams(&mut self) -> (Vec<CheckedStream<'a>>, bool) {
        let mut streams = Vec::new();
        let mut all_read = true;
        for (name, model) in in_file_order(self.input.tree, "streams", &self.input.model.streams) {
            let place = self.input.tree.key_place_of(&["streams", name]);
            self.name(NameKind::Stream, place, name);
            self.range(
                &["streams", name, "retention"],
                model.retention,
                SECOND,
                CENTURY,
            );
            let mut patterns = Vec::new();
            for (at, text) in model.events.iter().flatten().enumerate() {
                let index = at.to_string();
                let place = self
                    .input
                    .tree
                    .place_of(&["streams", name, "events", &index]);
                match self.pattern(place, &text.0) {
                    Some(pattern) => patterns.push((at, pattern)),
                    None => all_read = false,
                }
            }
            streams.push(CheckedStream {
                name,
                model,
                patterns,
            });
        }
        if streams.is_empty() && self.input.broken.is_empty() {
            self.error(
                &["streams"],
                "there is no stream",
                "add one: `order-events: { events: [\"Order.**\"] }`",
            );
        }
        (streams, all_read)
    }

    fn pattern(&mut self, place: Place, text: &str) -> Option<Pattern> {
        Pattern::parse(text)
            .map_err(|error| {
                self.push(
                    Severity::Error,
                    place,
                    format!("`{}` is not an event type or pattern: {error}", cut(text)),
                    "write a name like `Order.Created` or a pattern like \"Order.*\" or \"Order.**\"",
                );
            })
            .ok()
    }

    fn redact(&mut self) -> Vec<(Of, Vec<Pointer>)> {
        let mut rules = Vec::new();
        for (key, texts) in in_file_order(self.input.tree, "redact", &self.input.model.redact) {
            let place = self.input.tree.key_place_of(&["redact", key]);
            let of = match key.strip_prefix(ENTITY) {
                Some(kind) => self.entities(place, kind),
                None => self.pattern(place, key).map(Of::Events),
            };
            let stored = key.starts_with(ENTITY);
            let mut pointers = Vec::new();
            for (at, text) in texts.0.iter().enumerate() {
                let pointer = match Pointer::parse(&text.0) {
                    Ok(pointer) if stored && !pointer.is_of_entities() => Err((
                        "the history of an entity has nothing there",
                        "name its data or something in them, like /data or /data/email",
                    )),
                    read => read,
                };
                match pointer {
                    Ok(pointer) => pointers.push(pointer),
                    Err((why, fix)) => {
                        let path = ["redact", key, &at.to_string()];
                        let message = format!("`{}` cannot be hidden: {why}", cut(&text.0));
                        self.error(&path, message, fix);
                    }
                }
            }
            rules.extend(of.map(|of| (of, pointers)));
        }
        rules
    }

    /// A kind of entity, or `*` for every kind.
    fn entities(&mut self, place: Place, kind: &str) -> Option<Of> {
        if kind == "*" {
            return Some(Of::Entities(None));
        }
        if kind.is_empty() || kind.contains([':', '*']) {
            self.push(
                Severity::Error,
                place,
                format!("`{ENTITY}{}` is no kind of entity", cut(kind)),
                "write entity:<Entity>, such as entity:Order, or \"entity:*\" for every kind",
            );
            return None;
        }
        Some(Of::Entities(Some(kind.to_owned())))
    }

    /// Every type belongs to exactly one stream, so no two streams may ask for the same.
    fn overlaps(&mut self, streams: &[CheckedStream<'_>]) {
        for (at, later) in streams.iter().enumerate() {
            for (later_at, pattern) in &later.patterns {
                // One report per pattern: against the first stream that it overlaps.
                let Some((earlier, earlier_at, other)) =
                    streams.iter().take(at).find_map(|earlier| {
                        let mut others = earlier.patterns.iter();
                        let (at, other) = others.find(|(_, other)| other.overlaps(pattern))?;
                        Some((earlier.name, at.to_string(), other))
                    })
                else {
                    continue;
                };
                let first = self
                    .input
                    .tree
                    .place_of(&["streams", earlier, "events", &earlier_at]);
                self.error(
                    &["streams", later.name, "events", &later_at.to_string()],
                    format!(
                        "\"{pattern}\" of stream `{}` overlaps \"{other}\" of stream `{earlier}` \
                         ({}:{}:{})",
                        later.name,
                        self.input.file.display(),
                        first.line,
                        first.column,
                    ),
                    "let each event type match one stream only: narrow one of the two",
                );
            }
        }
    }

    fn routes(&mut self) -> Vec<(Pattern, Vec<&'a str>)> {
        let mut routes = Vec::new();
        for (key, to) in in_file_order(self.input.tree, "routes", &self.input.model.routes) {
            let place = self.input.tree.key_place_of(&["routes", key]);
            let pattern = self.pattern(place, key);
            let (mut names, mut seen) = (Vec::new(), HashSet::new());
            for (at, name) in to.0.iter().enumerate() {
                let place = self.input.tree.place_of(&["routes", key, &at.to_string()]);
                let name = name.0.as_str();
                if !seen.insert(name) {
                    self.push(
                        Severity::Error,
                        place,
                        format!("`{}` is named twice in this route", cut(name)),
                        "remove one: a subscriber receives an event once",
                    );
                } else if self.name(NameKind::Subscriber, place, name) {
                    names.push(name);
                }
            }
            routes.extend(pattern.map(|pattern| (pattern, names)));
        }
        routes
    }

    /// Whoever is retired gets nothing new, so no route may name it.
    fn retired(&mut self, checked: &Checked<'_>) -> Vec<&'a str> {
        let routed: HashSet<&str> = checked.subscribers().collect();
        let mut retired = Vec::new();
        let names = self.input.model.retired.iter().flat_map(|names| &names.0);
        for (at, name) in names.enumerate() {
            let (name, at) = (name.0.as_str(), at.to_string());
            let place = self.input.tree.place_of(&["retired", &at]);
            if !self.name(NameKind::Subscriber, place, name) {
                continue;
            }
            let (what, fix) = if routed.contains(name) {
                (
                    "is retired and in a route",
                    "take it out of the routes, or out of `retired`",
                )
            } else if retired.contains(&name) {
                ("is retired twice", "remove one")
            } else {
                retired.push(name);
                continue;
            };
            self.push(
                Severity::Error,
                place,
                format!("`{}` {what}", cut(name)),
                fix,
            );
        }
        retired
    }

    /// Routes must name types that a schema and a stream know.
    fn route_types(&mut self, checked: &Checked<'_>, schemas: &SchemaSet, streams_whole: bool) {
        for (pattern, _) in &checked.routes {
            let place = self.input.tree.key_place_of(&["routes", pattern.as_str()]);
            let known: Vec<&EventType> = schemas
                .event_types()
                .filter(|known| pattern.matches(known))
                .collect();
            if known.is_empty() {
                let all = schemas.event_types().map(EventType::as_str);
                let (message, fix) = if !pattern.is_plain() {
                    (
                        format!("\"{pattern}\" matches no event type that has a schema"),
                        "correct the pattern, or add the schemas of the types it is for".to_owned(),
                    )
                } else if let Some(guess) = did_you_mean(pattern.as_str(), all) {
                    (
                        format!("no schema knows `{pattern}`"),
                        format!("did you mean `{guess}`?"),
                    )
                } else {
                    let fix = format!("correct the name, or add the schema {pattern}.v1.json");
                    (format!("no schema knows `{pattern}`"), fix)
                };
                self.push(Severity::Error, place, message, fix);
            } else if streams_whole && known.iter().all(|t| checked.stream_of(t).is_none()) {
                self.push(
                    Severity::Error,
                    place,
                    format!("no stream takes `{pattern}`"),
                    "add it to the `events` of the stream that shall keep it",
                );
            }
        }
    }

    /// What is legal, but does nothing.
    fn unused(
        &mut self,
        checked: &Checked<'_>,
        schemas: &SchemaSet,
        streams_whole: bool,
        routes_whole: bool,
    ) {
        for event_type in schemas.event_types() {
            match checked.stream_of(event_type) {
                None if streams_whole => self.warn_key(
                    &["streams"],
                    format!("no stream takes `{event_type}`, which has a schema"),
                    "add it to the `events` of a stream, or remove the schema",
                ),
                Some(stream) if routes_whole && checked.receivers(event_type).is_empty() => self
                    .warn_key(
                        &["streams", stream],
                        format!("`{event_type}` goes to nobody: it is only kept as history"),
                        format!("add a route: `{event_type}: [analytics-service]`"),
                    ),
                _ => {}
            }
        }
    }
}

/// The parts of a section in the order of the file, which the model does not keep.
fn in_file_order<'a, T>(
    tree: &'a Node,
    section: &str,
    parts: &'a Option<std::collections::BTreeMap<String, T>>,
) -> Vec<(&'a str, &'a T)> {
    let entries = tree.get(&[section]).map(Node::entries).unwrap_or_default();
    let parts = parts.as_ref();
    entries
        .iter()
        .filter_map(|entry| Some((entry.key.as_str(), parts?.get(&entry.key)?)))
        .collect()
}
