//! What one configuration changes of another. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use super::duration::show;
use super::{Config, Routing, Start, SubscriberSettings};
use crate::event_type::EventType;

/// One thing that is another in the new configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Of which kind it is.
    pub what: What,
    /// Its name in the file; of a schema, that of its own file without `.json`.
    pub name: String,
    /// What becomes of it.
    pub how: How,
    /// Subscribers that a route has and had not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gains: Vec<String>,
    /// Subscribers that a route had and has no more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub loses: Vec<String>,
    /// Settings that differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<Setting>,
}

/// What a change is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// A setting of the whole.
    Setting,
    /// A stream.
    Stream,
    /// Who receives an event type.
    Route,
    /// A subscriber.
    Subscriber,
    /// A version of an event type.
    Schema,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// A subscriber that gets nothing new and settles what it owes.
    Retired,
    /// It is another.
    Changed,
}

/// A setting that differs; a dash for one that is not set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// As routing.yaml names it.
    pub name: &'static str,
    /// As it was.
    pub old: String,
    /// As it is to be.
    pub new: String,
}

impl Change {
    fn new(what: What, name: impl Into<String>, how: How) -> Self {
        Self {
            what,
            name: name.into(),
            how,
            gains: Vec::new(),
            loses: Vec::new(),
            settings: Vec::new(),
        }
    }
}

/// Everything that `new` changes of `old`, sorted by kind and name.
pub fn changes(old: &Config, new: &Config) -> Vec<Change> {
    let mut changes: Vec<Change> = general(&old.routing)
        .into_iter()
        .zip(general(&new.routing))
        .filter_map(|(old, new)| Some((old.0, different(old, new)?)))
        .map(|(name, setting)| Change {
            settings: vec![setting],
            ..Change::new(What::Setting, name, How::Changed)
        })
        .collect();
    changes.extend(streams(&old.routing, &new.routing));
    changes.extend(routes(old, new));
    changes.extend(subscribers(&old.routing, &new.routing));
    changes.extend(schemas(old, new));
    changes
}

/// A setting and how it is written.
type Written = (&'static str, String);

fn different(old: Written, new: Written) -> Option<Setting> {
    (old != new).then_some(Setting {
        name: old.0,
        old: old.1,
        new: new.1,
    })
}

fn differences<const N: usize>(old: [Written; N], new: [Written; N]) -> Vec<Setting> {
    let pairs = old.into_iter().zip(new);
    pairs.filter_map(|(old, new)| different(old, new)).collect()
}

fn span(set: Option<Duration>) -> String {
    set.map_or("-".to_owned(), show)
}

fn number(set: Option<u64>) -> String {
    set.map_or("-".to_owned(), |n| n.to_string())
}

fn general(routing: &Routing) -> [Written; 8] {
    let (limits, audit) = (routing.limits(), routing.audit());
    [
        ("namespace", routing.namespace().unwrap_or("-").to_owned()),
        ("dedupe_window", show(routing.dedupe_window())),
        ("dead_retention", show(routing.dead_retention())),
        ("limits.event_bytes", limits.event_bytes.to_string()),
        ("limits.depth", limits.depth.to_string()),
        ("trace.ttl", span(routing.trace())),
        ("audit.maxlen", number(audit.and_then(|a| a.maxlen))),
        ("audit.retention", span(audit.and_then(|a| a.retention))),
    ]
}

fn streams(old: &Routing, new: &Routing) -> Vec<Change> {
    let settings = |routing: &Routing, name: &str| {
        let found = routing.streams().find(|s| *s.name == *name);
        let (maxlen, retention) = found.map_or((None, None), |s| (s.maxlen, s.retention));
        [("maxlen", number(maxlen)), ("retention", span(retention))]
    };
    let names = |routing: &Routing| routing.streams().map(|s| s.name.to_string()).collect();
    compared(names(old), names(new), What::Stream, |name| {
        differences(settings(old, name), settings(new, name))
    })
}

/// Which of two sets of names hold one, and what differs where both do.
fn compared(
    old: BTreeSet<String>,
    new: BTreeSet<String>,
    what: What,
    settings: impl Fn(&str) -> Vec<Setting>,
) -> Vec<Change> {
    let change = |name: &String| {
        let how = match (old.contains(name), new.contains(name)) {
            (false, _) => How::Added,
            (_, false) => How::Removed,
            _ => How::Changed,
        };
        let settings = match how {
            How::Removed => Vec::new(),
            _ => settings(name),
        };
        let same = how == How::Changed && settings.is_empty();
        (!same).then(|| Change {
            settings,
            ..Change::new(what, name, how)
        })
    };
    old.union(&new).filter_map(change).collect()
}

fn routes(old: &Config, new: &Config) -> Vec<Change> {
    let types = |config: &Config| -> BTreeSet<EventType> {
        let known = config.schemas.event_types();
        known
            .filter(|t| config.routing.route(t.as_str()).is_some())
            .cloned()
            .collect()
    };
    let change = |event_type: &EventType| {
        let of = |config: &Config| config.routing.route(event_type.as_str()).cloned();
        let (before, after) = (of(old), of(new));
        let names = |route: &Option<super::Route>| -> Vec<String> {
            let to = route.iter().flat_map(|route| &route.to);
            to.map(|name| name.to_string()).collect()
        };
        let (had, has) = (names(&before), names(&after));
        let without = |all: &[String], others: &[String]| {
            let left = all.iter().filter(|name| !others.contains(name));
            left.cloned().collect::<Vec<_>>()
        };
        let (gains, loses) = (without(&has, &had), without(&had, &has));
        let stream = |route: Option<super::Route>| {
            let stream = route.map_or("-".to_owned(), |route| route.stream.to_string());
            [("stream", stream)]
        };
        let how = match (&before, &after) {
            (None, _) => How::Added,
            (_, None) => How::Removed,
            _ => How::Changed,
        };
        let settings = differences(stream(before), stream(after));
        let same = gains.is_empty() && loses.is_empty() && settings.is_empty();
        (!same).then(|| Change {
            gains,
            loses,
            settings,
            ..Change::new(What::Route, event_type.as_str(), how)
        })
    };
    types(old).union(&types(new)).filter_map(change).collect()
}

fn subscribers(old: &Routing, new: &Routing) -> Vec<Change> {
    let names = |routing: &Routing| -> BTreeSet<String> {
        let served = routing.subscribers().chain(routing.retired());
        served.map(|s| s.name.to_string()).collect()
    };
    let settings = |name: &str| match (old.served(name), new.served(name)) {
        (Some(old), Some(new)) => differences(written(old), written(new)),
        (None, Some(new)) => vec![Setting {
            name: "start",
            old: "-".to_owned(),
            new: start(new.start),
        }],
        _ => Vec::new(),
    };
    let retired = |routing: &Routing, name: &str| {
        routing.subscriber(name).is_none() && routing.served(name).is_some()
    };
    let mut changes = compared(names(old), names(new), What::Subscriber, settings);
    for name in names(new) {
        if retired(new, &name) && !retired(old, &name) {
            changes.retain(|change| change.name != name);
            changes.push(Change::new(What::Subscriber, name, How::Retired));
        }
    }
    changes.sort_by(|a, b| a.name.cmp(&b.name));
    changes
}

fn written(s: &SubscriberSettings) -> [Written; 18] {
    let (backoff, breaker) = (&s.backoff, &s.breaker);
    let rate = breaker.failure_rate.map(|rate| rate.to_string());
    [
        ("max_attempts", s.max_attempts.to_string()),
        ("backoff.initial", show(backoff.initial)),
        ("backoff.multiplier", backoff.multiplier.to_string()),
        ("backoff.max", show(backoff.max)),
        ("backoff.jitter", backoff.jitter.to_string()),
        ("concurrency", s.concurrency.to_string()),
        ("timeout", show(s.timeout)),
        ("lease", show(s.lease)),
        ("breaker.enabled", breaker.enabled.to_string()),
        ("breaker.consecutive", breaker.consecutive.to_string()),
        ("breaker.failure_rate", rate.unwrap_or("-".to_owned())),
        ("breaker.window", show(breaker.window)),
        ("breaker.min_outcomes", breaker.min_outcomes.to_string()),
        ("breaker.open", show(breaker.open)),
        ("breaker.max_open", show(breaker.max_open)),
        ("breaker.probes", breaker.probes.to_string()),
        ("start", start(s.start)),
        ("worker", s.worker.clone()),
    ]
}

fn start(start: Start) -> String {
    match start {
        Start::New => "new".to_owned(),
        Start::Beginning => "beginning".to_owned(),
        Start::At(time) => time.to_string(),
    }
}

fn schemas(old: &Config, new: &Config) -> Vec<Change> {
    let names = |config: &Config| -> BTreeSet<String> {
        config.schemas.files().map(|(name, _)| name).collect()
    };
    let mut changes = compared(names(old), names(new), What::Schema, |_| Vec::new());
    let before: BTreeSet<_> = old.schemas.files().collect();
    for (name, hash) in new.schemas.files() {
        let known = before.iter().any(|(other, _)| *other == name);
        if known && !before.contains(&(name.clone(), hash)) {
            changes.push(Change::new(What::Schema, name, How::Changed));
        }
    }
    changes.sort_by(|a, b| a.name.cmp(&b.name));
    changes
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const OLD: &str = r#"version: 1
streams:
  a-events: { events: ["A.**"], maxlen: 100, retention: 30d }
  b-events: { events: ["B.**"] }
routes:
  A.One: [x-service, y-service]
  B.One: [x-service]
subscribers:
  x-service: { lease: 20s }
"#;

    fn load(yaml: &str, schemas: &[(&str, &str)]) -> Config {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("schemas")).unwrap();
        for (name, text) in schemas {
            fs::write(dir.path().join(format!("schemas/{name}.json")), text).unwrap();
        }
        let path = dir.path().join("routing.yaml");
        fs::write(&path, yaml).unwrap();
        Config::load(&path).unwrap()
    }

    /// As one line each.
    fn told(old: &Config, new: &Config) -> Vec<String> {
        let line = |change: Change| {
            let (what, how) = (change.what, change.how);
            let mut line = format!("{what:?} {} {how:?}", change.name);
            line += &change
                .gains
                .iter()
                .map(|n| format!(" +{n}"))
                .collect::<String>();
            line += &change
                .loses
                .iter()
                .map(|n| format!(" -{n}"))
                .collect::<String>();
            for Setting { name, old, new } in change.settings {
                line += &format!(" {name}: {old} {new}");
            }
            line
        };
        changes(old, new).into_iter().map(line).collect()
    }

    #[test]
    fn each_difference_is_told_once() {
        let schemas = [("A.One.v1", "{}"), ("B.One.v1", "{}")];
        let old = load(OLD, &schemas);
        assert!(told(&old, &load(OLD, &schemas)).is_empty());
        let new = r#"version: 1
dedupe_window: 1h
retired: [y-service]
streams:
  a-events: { events: ["A.**", "B.**"], maxlen: 50, retention: 30d }
  c-events: { events: ["C.**"], retention: 1d }
routes:
  A.One: [x-service]
  B.One: [x-service, z-service]
  C.One: [z-service]
subscribers:
  x-service: { lease: 20s, max_attempts: 5, backoff: { max: 20s } }
  z-service: { start: beginning }
"#;
        let schemas = [
            ("A.One.v1", "{ }"),
            ("A.One.v2", "{}"),
            ("B.One.v1", "{}"),
            ("C.One.v1", "{}"),
        ];
        let new = load(new, &schemas);
        assert_eq!(
            told(&old, &new),
            [
                "Setting dedupe_window Changed dedupe_window: 1d 1h",
                "Stream a-events Changed maxlen: 100 50",
                "Stream b-events Removed",
                "Stream c-events Added retention: - 1d",
                "Route A.One Changed -y-service",
                "Route B.One Changed +z-service stream: b-events a-events",
                "Route C.One Added +z-service stream: - c-events",
                "Subscriber x-service Changed max_attempts: 3 5 backoff.max: 30s 20s",
                "Subscriber y-service Retired",
                "Subscriber z-service Added start: - beginning",
                "Schema A.One.v1 Changed",
                "Schema A.One.v2 Added",
                "Schema C.One.v1 Added",
            ]
        );
        let back = told(&new, &old);
        assert!(
            back.contains(&"Subscriber z-service Removed".to_owned()),
            "{back:?}"
        );
        assert!(
            back.contains(&"Route C.One Removed -z-service stream: c-events -".to_owned()),
            "{back:?}"
        );
        assert!(
            !back.iter().any(|line| line.contains("y-service Retired")),
            "{back:?}"
        );
    }
}
