//! The shape of `routing.yaml`: what serde reads, and what the JSON schema is generated from.
//!
//! Every field is optional to serde, so that what is left after taking out the broken parts can
//! still be read and checked; what is required is required by the schema. The descriptions and
//! examples here are also what problems say to the user.

use std::collections::BTreeMap;

use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema, generate::SchemaSettings};
use serde::Deserialize;
use serde_json::Value;

use super::duration::Span;

/// routing.yaml of streamfleet: which stream keeps which event types, and who receives them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "streamfleet routing.yaml")]
pub(super) struct Model {
    /// The version of this format: 1.
    #[schemars(required, range(min = 1, max = 1_000), example = 1)]
    pub(super) version: Option<u64>,
    /// A prefix for every Redis key, for several fleets on one Redis.
    #[schemars(example = &"shop")]
    pub(super) namespace: Option<String>,
    /// The folder of <EventType>.v<N>.json files, relative to this file. Default: schemas.
    #[schemars(example = &"schemas")]
    pub(super) schemas: Option<String>,
    /// How long an event ID is remembered to drop duplicates, 1s to 30d. Default: 24h.
    #[schemars(example = &"24h")]
    pub(super) dedupe_window: Option<Span>,
    /// How long dead letters are kept, at least 1s. Default: 30d.
    #[schemars(example = &"30d")]
    pub(super) dead_retention: Option<Span>,
    /// What a single event may measure.
    pub(super) limits: Option<LimitsModel>,
    /// Records what came to the door and what became of it, in the stream audit. Default: off.
    pub(super) audit: Option<AuditModel>,
    /// Traces of business flows, for `streamfleet trace`. Default: none are kept.
    pub(super) trace: Option<TraceModel>,
    /// What of an event is not shown: by event type or quoted pattern, JSON pointers into it; and of the
    /// histories of entities, by `entity:<Entity>` or `entity:*`.
    pub(super) redact: Option<BTreeMap<String, Pointers>>,
    /// The streams. Every event type belongs to exactly one.
    #[schemars(required)]
    pub(super) streams: Option<BTreeMap<String, StreamModel>>,
    /// Who gets what: an event type or a quoted pattern, and the subscribers that receive it.
    #[schemars(required)]
    pub(super) routes: Option<BTreeMap<String, Subscribers>>,
    /// Subscribers that were taken out of the routes and are to settle what they still owe, until
    /// their groups are dropped with `streamfleet group retire`.
    #[schemars(example = ["fax-service"])]
    pub(super) retired: Option<Subscribers>,
    /// Settings of every subscriber.
    pub(super) defaults: Option<SettingsModel>,
    /// Settings of single subscribers: only what differs from the defaults.
    pub(super) subscribers: Option<BTreeMap<String, SettingsModel>>,
}

/// The subscribers that receive it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[schemars(inline, example = ["analytics-service"])]
pub(super) struct Subscribers(pub(super) Vec<Name>);

/// What is not shown: logs, traces, errors and commands have *** instead.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[schemars(inline, example = ["/data/email"])]
pub(super) struct Pointers(pub(super) Vec<PointerText>);

/// A JSON pointer into the event; the segment * is every field or element.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline, example = &"/data/email")]
pub(super) struct PointerText(pub(super) String);

/// The name of a subscriber.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline, example = &"analytics-service")]
pub(super) struct Name(pub(super) String);

/// An event type or a quoted pattern.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline, example = &"Order.**")]
pub(super) struct PatternText(pub(super) String);

/// What a single event may measure.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsModel {
    /// The largest event, in bytes of JSON. Default: 1048576.
    #[schemars(range(min = 1_024, max = 67_108_864), example = 1_048_576)]
    pub(super) event_bytes: Option<u64>,
    /// How deep the JSON of an event may nest. Default: 64.
    #[schemars(range(min = 4, max = 100), example = 64)]
    pub(super) depth: Option<u64>,
}

/// How much of the audit is kept: at least one of both.
///
/// While it is on, every event goes through the script that records it: routing a backlog is
/// slower.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditModel {
    /// How many records are kept.
    #[schemars(range(min = 1, max = 1_000_000_000_000_u64), example = 100_000)]
    pub(super) maxlen: Option<u64>,
    /// How long records are kept, at least 1s.
    #[schemars(example = &"30d")]
    pub(super) retention: Option<Span>,
}

/// Traces of business flows.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TraceModel {
    /// How long a trace is kept after its last hop, 1s to 30d.
    #[schemars(required, example = &"1d")]
    pub(super) ttl: Option<Span>,
}

/// A stream: the event types that it keeps, and for how long.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamModel {
    /// The event types of this stream: names or quoted patterns.
    #[schemars(required, length(min = 1), example = ["Order.**"])]
    pub(super) events: Option<Vec<PatternText>>,
    /// How many entries are kept. Default: all.
    #[schemars(range(min = 1, max = 1_000_000_000_000_u64), example = 100_000)]
    pub(super) maxlen: Option<u64>,
    /// How long entries are kept, at least 1s. Default: for ever.
    #[schemars(example = &"30d")]
    pub(super) retention: Option<Span>,
}

/// How a subscriber works.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SettingsModel {
    /// How many attempts an event gets before it is dead-lettered. Default: 3.
    #[schemars(range(min = 1, max = 100), example = 3)]
    pub(super) max_attempts: Option<u32>,
    /// How long to wait between attempts.
    pub(super) backoff: Option<BackoffModel>,
    /// How many events one worker handles at a time. Default: 16.
    #[schemars(range(min = 1, max = 1_024), example = 16)]
    pub(super) concurrency: Option<u32>,
    /// How long one handler call may take. Default: 30s.
    #[schemars(example = &"30s")]
    pub(super) timeout: Option<Span>,
    /// How long a delivery may go without a sign of life, 100ms to 1h. Default: 30s.
    #[schemars(example = &"30s")]
    pub(super) lease: Option<Span>,
    /// When all workers of a subscriber stop reading because what it depends on is down;
    /// `breaker: { enabled: false }` switches that off.
    pub(super) breaker: Option<BreakerModel>,
    /// When a router publishes System.Health.CheckFailed for a subscriber, if a schema and a stream
    /// know that type; `health: { enabled: false }` switches that off.
    pub(super) health: Option<HealthModel>,
    /// Where a new subscriber starts: new, beginning, or a time. Default: new.
    #[schemars(example = &"beginning", example = &"2026-01-31T00:00:00Z")]
    pub(super) start: Option<String>,
    /// The binary that serves it. Default: x-worker for x-service.
    #[schemars(example = &"analytics-worker")]
    pub(super) worker: Option<String>,
}

/// How long to wait between attempts.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BackoffModel {
    /// The wait after the first failure. Default: 1s.
    #[schemars(example = &"1s")]
    pub(super) initial: Option<Span>,
    /// What each wait is multiplied by for the next. Default: 2.
    #[schemars(range(min = 1, max = 1_000), example = 2)]
    pub(super) multiplier: Option<f64>,
    /// The longest wait. Default: 30s.
    #[schemars(example = &"30s")]
    pub(super) max: Option<Span>,
    /// The share of each wait that is random, 0 to 1. Default: 0.5.
    #[schemars(range(min = 0, max = 1), example = 0.5)]
    pub(super) jitter: Option<f64>,
}

/// When all workers of a subscriber stop reading because what it depends on is down. Only what
/// says so counts by itself (`unavailable`): events that are bad (rejected, or failing again and
/// again) stop nobody, unless a failure rate is set.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BreakerModel {
    /// Whether there is one. Default: true. Without it, what found something unavailable waits, and
    /// everything else is read and tried all the same.
    #[schemars(example = false)]
    pub(super) enabled: Option<bool>,
    /// It opens when so many deliveries in a row, in one worker, found something unavailable. Default: 5.
    #[schemars(range(min = 1, max = 10_000), example = 5)]
    pub(super) consecutive: Option<u32>,
    /// It also opens when this share of the deliveries of a worker failed, within the window: those
    /// that found something unavailable, and those to be tried again. Default: not looked at,
    /// because bad events would open it too.
    #[schemars(range(min = 0.01, max = 1), example = 0.5)]
    pub(super) failure_rate: Option<f64>,
    /// How far back the failure rate looks, 1s to 10m. Default: 10s.
    #[schemars(example = &"10s")]
    pub(super) window: Option<Span>,
    /// With fewer deliveries in the window there is no failure rate. Default: 20.
    #[schemars(range(min = 1, max = 1_000_000), example = 20)]
    pub(super) min_outcomes: Option<u32>,
    /// How long it stays open at first, 100ms to 1h; each time in a row twice as long. Default: 5s.
    #[schemars(example = &"5s")]
    pub(super) open: Option<Span>,
    /// The longest that it stays open before it is tried again, at most 24h. Default: 1m.
    #[schemars(example = &"1m")]
    pub(super) max_open: Option<Span>,
    /// How many deliveries, of all workers, try whether it can be closed, and must find that. Default: 3.
    #[schemars(range(min = 1, max = 1_000), example = 3)]
    pub(super) probes: Option<u32>,
}

/// When a subscriber counts as not well. While it is paused, nothing is looked at.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HealthModel {
    /// Whether it is looked at. Default: true.
    #[schemars(example = false)]
    pub(super) enabled: Option<bool>,
    /// How long it may be without a live worker, 1s to 24h. Default: 1m.
    #[schemars(example = &"1m")]
    pub(super) no_worker: Option<Span>,
    /// How long the oldest event that it has not read may have waited, 1s to 30d. Default: 15m.
    #[schemars(example = &"15m")]
    pub(super) behind: Option<Span>,
    /// While it does not recover, it is published again after this time, 1m to 30d. Default: 6h.
    #[schemars(example = &"6h")]
    pub(super) again: Option<Span>,
}

/// The JSON schema of `routing.yaml` (draft-07), for editors; the checks use the same.
pub fn json_schema() -> Value {
    let settings = SchemaSettings::draft07()
        .with(|settings| settings.inline_subschemas = true)
        .with_transform(RecursiveTransform(refuse_null));
    settings
        .into_generator()
        .into_root_schema_for::<Model>()
        .to_value()
}

/// A key without a value is a slip, so an absent field is left out, never null.
fn refuse_null(schema: &mut Schema) {
    if let Some(types) = schema.get_mut("type")
        && let Some(list) = types.as_array_mut()
    {
        list.retain(|name| name != "null");
        if let [only] = list.as_slice() {
            *types = only.clone();
        }
    }
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
    let Some(Value::Array(mut options)) = schema.get("anyOf").cloned() else {
        return;
    };
    options.retain(|option| option.get("type").is_none_or(|name| name != "null"));
    if let [Value::Object(only)] = options.as_slice() {
        schema.remove("anyOf");
        for (key, value) in only {
            if schema.get(key).is_none() {
                schema.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_valid_and_strict() {
        let schema = json_schema();
        jsonschema::draft7::meta::validate(&schema).unwrap();
        let text = schema.to_string();
        assert!(
            !text.contains("\"null\"") && !text.contains("$ref"),
            "{text}"
        );
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(
            schema["required"],
            serde_json::json!(["version", "streams", "routes"])
        );
        assert_eq!(
            schema["properties"]["limits"]["additionalProperties"],
            false
        );
        let stream = &schema["properties"]["streams"]["additionalProperties"];
        assert_eq!(stream["required"], serde_json::json!(["events"]));
        assert_eq!(stream["properties"]["maxlen"]["minimum"], 1);
    }
}
