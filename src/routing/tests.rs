//! Whole files: what loads, and what is said about what does not.

use std::time::Duration;

use super::*;
use crate::retry::Backoff;

const TYPES: [&str; 6] = [
    "User.Created",
    "Product.Created",
    "SKU.Created",
    "Order.Created",
    "Payment.Order.Paid",
    "System.Health.CheckFailed",
];

const SHOP: &str = r#"version: 1
schemas: schemas
streams:
  user-events:    { events: ["User.**"],                 maxlen: 10000,  retention: 7d }
  product-events: { events: ["Product.**", "SKU.**"],    maxlen: 50000,  retention: 30d }
  order-events:   { events: ["Order.**", "Payment.**"],  maxlen: 100000, retention: 90d }
  system-events:  { events: ["System.**"] }
routes:
  User.Created:    [notification-service, analytics-service]
  "*.Created":     [analytics-service, audit-log]
  Payment.Order.*: [order-service]
  System.**:       [ops]
defaults:
  max_attempts: 5
  backoff: { initial: 500ms, jitter: 0 }
subscribers:
  analytics-service:
    start: beginning
    concurrency: 64
    backoff: { max: 10s }
  ops: { worker: pager, start: 2026-01-31T00:00:00Z }
"#;

/// A folder with `routing.yaml` and a schema for each of `TYPES`.
fn folder(yaml: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("schemas")).unwrap();
    for name in TYPES {
        std::fs::write(dir.path().join(format!("schemas/{name}.v1.json")), "{}").unwrap();
    }
    std::fs::write(dir.path().join("routing.yaml"), yaml).unwrap();
    dir
}

fn load(yaml: &str) -> Result<Config, ConfigError> {
    Config::load(&folder(yaml).path().join("routing.yaml"))
}

fn problems(yaml: &str) -> Vec<Problem> {
    match load(yaml) {
        Ok(config) => config.warnings,
        Err(error) => error.problems,
    }
}

fn names(list: &[Arc<str>]) -> Vec<&str> {
    list.iter().map(|name| &**name).collect()
}

#[test]
fn the_shop_loads() {
    let config = load(SHOP).unwrap();
    let routing = &config.routing;
    let route = routing.route("User.Created").unwrap();
    assert_eq!(&*route.stream, "user-events");
    assert_eq!(
        &*route.to_joined,
        "notification-service,analytics-service,audit-log"
    );
    assert_eq!(
        names(&route.to),
        ["notification-service", "analytics-service", "audit-log"]
    );
    assert!(routing.is_for("audit-log", "SKU.Created"));
    assert!(!routing.is_for("ops", "SKU.Created"));
    assert!(routing.route("Unknown.Type").is_none());
    assert_eq!(
        names(routing.streams_of("analytics-service")),
        ["user-events", "product-events", "order-events"]
    );
    assert_eq!(names(routing.streams_of("order-service")), ["order-events"]);
    assert!(routing.streams_of("nobody").is_empty());
    let streams: Vec<_> = routing.streams().map(|stream| &*stream.name).collect();
    assert_eq!(
        streams,
        [
            "user-events",
            "product-events",
            "order-events",
            "system-events"
        ]
    );
    assert_eq!(routing.streams().last().unwrap().retention, None);
    let subscribers: Vec<_> = routing.subscribers().map(|s| &*s.name).collect();
    assert_eq!(
        subscribers,
        [
            "analytics-service",
            "audit-log",
            "notification-service",
            "ops",
            "order-service"
        ]
    );

    let analytics = routing.subscriber("analytics-service").unwrap();
    assert_eq!((analytics.max_attempts, analytics.concurrency), (5, 64));
    assert_eq!(analytics.start, Start::Beginning);
    assert_eq!(analytics.worker, "analytics-worker");
    let expected = Backoff {
        initial: Duration::from_millis(500),
        multiplier: 2.0,
        max: Duration::from_secs(10),
        jitter: 0.0,
    };
    assert_eq!(analytics.backoff, expected);
    let ops = routing.subscriber("ops").unwrap();
    assert_eq!((ops.worker.as_str(), ops.concurrency), ("pager", 16));
    assert!(matches!(ops.start, Start::At(_)));
    assert_eq!(
        routing.subscriber("audit-log").unwrap().worker,
        "audit-log-worker"
    );

    assert_eq!(routing.namespace(), None);
    assert_eq!(routing.dedupe_window(), Duration::from_secs(86_400));
    assert_eq!(routing.dead_retention(), Duration::from_secs(30 * 86_400));
    assert_eq!(
        routing.limits(),
        Limits {
            event_bytes: 1_048_576,
            depth: 64
        }
    );
    assert_eq!(config.warnings, []);
}

#[test]
fn the_hash_follows_the_bytes() {
    let dir = folder(SHOP);
    let path = dir.path().join("routing.yaml");
    let hash = || Config::load(&path).unwrap().content_hash;
    let before = hash();
    assert_eq!(before, hash());
    std::fs::write(dir.path().join("schemas/User.Created.v1.json"), "{ }").unwrap();
    let with_schema = hash();
    assert_ne!(before, with_schema);
    std::fs::write(&path, format!("{SHOP}# a comment\n")).unwrap();
    assert_ne!(with_schema, hash());
}

/// It gets nothing, and has the settings by which it settles what it owes.
#[test]
fn whoever_is_retired_is_served_and_in_no_route() {
    let retired = SHOP.replace("version: 1", "version: 1\nretired: [fax, ops]");
    let retired = retired.replace("[ops]", "[pager]");
    let config = load(&retired).unwrap();
    assert_eq!(config.warnings, [], "its settings have a use");
    let routing = &config.routing;
    let names: Vec<_> = routing.retired().map(|s| &*s.name).collect();
    assert_eq!(names, ["fax", "ops"]);
    assert!(routing.subscriber("ops").is_none() && routing.streams_of("ops").is_empty());
    assert_eq!(routing.served("ops").unwrap().worker, "pager");
    assert_eq!(routing.served("fax").unwrap().max_attempts, 5);
    assert!(routing.served("pager").is_some() && routing.served("nobody").is_none());
}

/// One change to the shop, and the one error it leads to: line, column, message, fix.
#[test]
fn single_errors() {
    #[rustfmt::skip]
    let table = [
        ("version: 1", "version: 2", 1, 10, "version 2 of this format", "version: 1"),
        ("version: 1", "version: one", 1, 10, "must be a whole number, found the text `one`", "1"),
        ("version: 1", "partitions: 4\nversion: 1", 1, 1, "`partitions` does not exist yet", ""),
        ("version: 1", "tests: []\nversion: 1", 1, 1, "`tests` does not exist yet", ""),
        ("version: 1", "namespace: Shop\nversion: 1", 1, 12, "cannot be the name of a namespace", ""),
        ("version: 1", "namespace: dead\nversion: 1", 1, 12, "`dead` is reserved", ""),
        ("version: 1", "dedupe_window: 31d\nversion: 1", 1, 16, "between 1s and 30d", ""),
        ("version: 1", "retired: [fax, ops]\nversion: 1", 1, 16, "`ops` is retired and in a route", "routes"),
        ("version: 1", "retired: [fax, fax]\nversion: 1", 1, 16, "`fax` is retired twice", "remove one"),
        ("version: 1", "retired: [Fax]\nversion: 1", 1, 11, "cannot be the name of a subscriber", ""),
        ("version: 1", "limits: { depth: 3 }\nversion: 1", 1, 18, "at least 4, found `3`", "depth: 64"),
        ("version: 1", "limits: { event_bytes: 1e9 }\nversion: 1", 1, 24, "at most 67108864", ""),
        ("version: 1", "limits:\nversion: 1", 1, 1, "`limits` has no value", "remove the line"),
        ("version: 1\n", "", 1, 1, "missing field `version`", "version: 1"),
        ("schemas: schemas", "schemas: nowhere", 2, 10, "there is no schema folder", "relative"),
        ("user-events: ", "User: ", 4, 3, "`User` cannot be the name of a stream", "lower-case"),
        ("user-events: ", "inbox: ", 4, 3, "`inbox` is reserved", "inbox-stream"),
        ("retention: 7d", "retension: 7d", 4, 74, "unknown field `retension`", "did you mean `retention`?"),
        ("retention: 7d", "retention: 7 days", 4, 85, "must be a duration, found the text `7 days`", "`retention: 30d`"),
        ("retention: 7d", "retention: 7", 4, 85, "must be a duration, found `7`", "`retention: 30d`"),
        ("retention: 7d", "retention: 0s", 4, 85, "must be between 1s and", ""),
        ("maxlen: 10000", "maxlen: 0", 4, 66, "`maxlen` must be at least 1", ""),
        ("{ events: [\"System.**\"] }", "{ maxlen: 5 }", 7, 3, "missing field `events`", "events: [\"Order.**\"]"),
        ("[\"System.**\"]", "[]", 7, 21, "`events` is empty", "events: [\"Order.**\"]"),
        ("[\"System.**\"]", "[\"System.**\", \"Sys*\"]", 7, 43, "`Sys*` is not an event type or pattern", ""),
        ("[\"System.**\"]", "[\"System.**\", 5]", 7, 43, "item 2 of `events` must be a text, found `5`", "\"Order.**\""),
        ("[\"System.**\"]", "[\"System.**\", \"*.Created\"]", 7, 43, "overlaps \"User.**\" of stream `user-events`", "narrow"),
        ("  User.Created: ", "  User.Craeted: ", 9, 3, "no schema knows `User.Craeted`", "did you mean `User.Created`?"),
        ("  User.Created: ", "  Zoo.Opened: ", 9, 3, "no schema knows `Zoo.Opened`", "Zoo.Opened.v1.json"),
        ("  Payment.Order.*:", "  Payment.*:", 11, 3, "\"Payment.*\" matches no event type", ""),
        ("\"Payment.**\"", "\"Orders.**\"", 11, 3, "no stream takes `Payment.Order.*`", "`events`"),
        ("[ops]", "ops", 12, 20, "`System.**` must be a list, found the text `ops`", "analytics-service"),
        ("[ops]", "[router]", 12, 21, "`router` is reserved", ""),
        ("[ops]", "[ops, ops]", 12, 26, "`ops` is named twice", "once"),
        ("[ops]", "[Ops, ops]", 12, 21, "cannot be the name of a subscriber", ""),
        ("max_attempts: 5", "max_attempts: 101", 14, 17, "at most 100", ""),
        ("max_attempts: 5", "max_attempts: 1.5", 14, 17, "must be a whole number", ""),
        ("max_attempts: 5", "lease: 99ms", 14, 10, "between 100ms and 1h, found 99ms", ""),
        ("max_attempts: 5", "timeout: 0s", 14, 12, "`timeout` must be between", ""),
        ("max_attempts: 5", "worker: x", 14, 11, "`worker` cannot have a default", ""),
        ("initial: 500ms", "initial: 500ms, max: 400ms", 15, 23, "the first wait (500ms) is longer than the longest (400ms)", ""),
        ("initial: 500ms", "initial: 0s", 15, 23, "must be between 1ms", ""),
        ("jitter: 0 ", "jitter: 1.1 ", 15, 38, "at most 1, found `1.1`", ""),
        ("jitter: 0 ", "multiplier: 0.5 ", 15, 42, "at least 1", ""),
        ("concurrency: 64", "concurrency: 0", 19, 18, "at least 1", ""),
        ("start: beginning", "start: yesterday", 18, 12, "`start` must be new, beginning or a time", "RFC 3339"),
        ("max: 10s", "max: 400ms", 20, 21, "the first wait (500ms) is longer", ""),
        ("max_attempts: 5", "breaker: off", 14, 12, "`breaker` must be a map of fields, found the text `off`", "`breaker: { enabled: false }`"),
        ("max_attempts: 5", "breaker: { enabled: 1 }", 14, 23, "`enabled` must be true or false, found `1`", "`enabled: false`"),
        ("max_attempts: 5", "breaker: { consecutive: 0 }", 14, 27, "at least 1", ""),
        ("max_attempts: 5", "breaker: { failure_rate: 0 }", 14, 28, "at least 0.01", ""),
        ("max_attempts: 5", "breaker: { failure_rate: 1.5 }", 14, 28, "at most 1", ""),
        ("max_attempts: 5", "breaker: { window: 900ms }", 14, 22, "between 1s and 10m, found 900ms", ""),
        ("max_attempts: 5", "breaker: { open: 50ms }", 14, 20, "between 100ms and 1h, found 50ms", ""),
        ("max_attempts: 5", "breaker: { open: 2m }", 14, 20, "the first time open (2m) is longer than the longest (1m)", "`max_open`"),
        ("max_attempts: 5", "breaker: { max_open: 1s }", 14, 24, "the first time open (5s) is longer than the longest (1s)", ""),
        ("max_attempts: 5", "breaker: { probes: 0 }", 14, 22, "at least 1", ""),
        ("max_attempts: 5", "breaker: { opens: 5s }", 14, 14, "unknown field `opens`", "did you mean `open`?"),
        ("worker: pager", "worker: /bin/sh", 21, 18, "cannot be the name of a worker", ""),
        ("worker: pager", "deliver: { http: x }", 21, 10, "`deliver` does not exist yet", ""),
        ("worker: pager", "max_attempts: 3, max_attempts: 4", 21, 27, "duplicate key `max_attempts`, first on line 21", ""),
        ("  \"*.Created\": ", "  *.Created: ", 10, 3, "a bare `*` starts a YAML alias", "quote"),
    ];
    for (from, to, line, column, message, fix) in table {
        let mut problems = problems(&changed(from, to));
        problems.retain(|problem| problem.severity == Severity::Error);
        assert_eq!(problems.len(), 1, "{to}: {problems:#?}");
        expect(&problems, (line, column), message, fix);
    }
}

fn changed(from: &str, to: &str) -> String {
    assert!(SHOP.contains(from), "{from}");
    SHOP.replacen(from, to, 1)
}

fn expect(problems: &[Problem], (line, column): (u64, u64), message: &str, fix: &str) {
    let found = problems
        .iter()
        .find(|problem| problem.message.contains(message));
    let found = found.unwrap_or_else(|| panic!("no `{message}` in {problems:#?}"));
    assert!(found.fix.contains(fix), "{found}");
    assert_eq!(
        (found.line, found.column),
        (Some(line), Some(column)),
        "{found}"
    );
}

#[test]
fn warnings() {
    #[rustfmt::skip]
    let table = [
        ("  ops: {", "  oops: {", 21, 3, "`oops` has settings but is in no route", "did you mean `ops`?"),
        ("[ops]", "[]", 7, 3, "`System.Health.CheckFailed` goes to nobody", "add a route"),
        (", \"SKU.**\"", "", 3, 1, "no stream takes `SKU.Created`", "remove the schema"),
        ("max: 10s", "max: 31s", 20, 21, "the longest wait (31s) exceeds the lease (30s)", ""),
        ("max_attempts: 5", "lease: 10s", 14, 10, "exceeds the lease (10s)", ""),
    ];
    for (from, to, line, column, message, fix) in table {
        let config = load(&changed(from, to)).unwrap_or_else(|error| panic!("{to}: {error}"));
        expect(&config.warnings, (line, column), message, fix);
    }
}

#[test]
fn all_problems_together_and_in_order() {
    let yaml = r#"version: 3
colour: red
streams:
  Bad: { events: ["User.**", 7, "Or*der"], retension: 7d }
  order-events: { events: ["Order.**", "*.Created"], maxlen: -1 }
routes:
  User.Created: [a-service, a-service, router]
  Order.Creatd: [b-service]
defaults: { lease: 2h, backoff: { initial: soon } }
subscribers:
  a-service: { concurrency: many, start: later }
  a-service: { concurrency: 1 }
"#;
    let dir = folder(yaml);
    std::fs::write(dir.path().join("schemas/Broken.v1.json"), "{").unwrap();
    let path = dir.path().join("routing.yaml");
    let error = Config::load(&path).unwrap_err();
    let found: Vec<_> = error
        .problems
        .iter()
        .filter(|p| p.severity == Severity::Error)
        .map(|p| (p.line.unwrap_or_default(), p.column.unwrap_or_default()))
        .collect();
    // The type that is misspelt is not judged: one of the schemas could not be loaded.
    let expected = [
        (1, 10),
        (2, 1),
        (4, 3),
        (4, 30),
        (4, 33),
        (4, 44),
        (5, 40),
        (5, 62),
        (7, 29),
        (7, 40),
        (9, 20),
        (9, 44),
        (11, 29),
        (11, 42),
        (12, 3),
        (0, 0),
        (1, 1),
    ];
    assert_eq!(found, expected, "{error}");
    assert!(error.to_string().ends_with("17 errors"), "{error}");
    assert_eq!(
        error.to_string(),
        Config::load(&path).unwrap_err().to_string()
    );
}

#[test]
fn files_that_are_no_configuration() {
    for (yaml, message) in [
        ("", "the file is empty"),
        ("# nothing\n", "the file is empty"),
        ("- a\n- b\n", "not a map of fields"),
        ("version: [1\n", "not valid YAML"),
        ("{}", "missing field `version`"),
        (
            "streams: 1\nroutes: 2\nversion: 1\n",
            "`streams` must be a map of fields",
        ),
    ] {
        let problems = problems(yaml);
        assert!(
            problems[0].message.contains(message),
            "{yaml}: {problems:?}"
        );
        assert!(problems[0].line.is_some(), "{yaml}: {problems:?}");
    }
    let dir = folder("");
    let path = dir.path().join("routing.yaml");
    std::fs::write(&path, b"version: 1\n# caf\xe9\n").unwrap();
    let error = Config::load(&path).unwrap_err();
    assert_eq!(error.problems[0].line, Some(2), "{error}");
    std::fs::write(&path, vec![b'#'; 1024 * 1024 + 1]).unwrap();
    assert!(
        Config::load(&path)
            .unwrap_err()
            .to_string()
            .contains("larger than 1024 KiB")
    );
    assert!(Config::load(&dir.path().join("absent.yaml")).is_err());
    assert!(
        Config::load(dir.path())
            .unwrap_err()
            .to_string()
            .contains("not a regular file")
    );
}

#[test]
fn an_error_in_a_stream_does_not_blame_the_routes() {
    let problems = problems(&changed("events: [\"User.**\"]", "events: 5"));
    let errors: Vec<_> = problems
        .iter()
        .filter(|p| p.severity == Severity::Error)
        .collect();
    assert_eq!(errors.len(), 1, "{problems:?}");
    assert_eq!(problems.len(), 1, "{problems:?}");
}

#[test]
fn problems_serialize() {
    let problems = problems(&changed("version: 1", "version: 2"));
    let json = serde_json::to_value(&problems).unwrap();
    assert_eq!(json[0]["severity"], "error");
    assert_eq!(json[0]["line"], 1);
}
