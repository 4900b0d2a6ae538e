//! The events that tell of a circuit breaker. They enter the inbox in the step that they tell of,
//! and only where the configuration admits them: without their schemas, or a stream that takes them,
//! they would do nothing but fill `dead:router`.

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use crate::fleet::announcement;
use crate::routing::Config;

/// `System.Breaker.Opened`: the data.
#[derive(Serialize)]
pub(super) struct Opened<'a> {
    pub(super) subscriber: &'a str,
    pub(super) why: &'a str,
    pub(super) opened_at: Timestamp,
    pub(super) open_for_ms: u64,
    pub(super) opened_in_a_row: u32,
    pub(super) worker: String,
}

/// `System.Breaker.Closed`: the data.
#[derive(Serialize)]
pub(super) struct Closed<'a> {
    pub(super) subscriber: &'a str,
    pub(super) closed_at: Timestamp,
    pub(super) opened_at: Timestamp,
    pub(super) opened_in_a_row: u32,
    pub(super) worker: String,
}

impl Opened<'_> {
    /// As JSON; empty if it would not pass the door.
    pub(super) fn event(&self, flow: Uuid, config: &Config) -> Vec<u8> {
        announcement("System.Breaker.Opened", self.subscriber, flow, self, config)
    }
}

impl Closed<'_> {
    /// The same.
    pub(super) fn event(&self, flow: Uuid, config: &Config) -> Vec<u8> {
        announcement("System.Breaker.Closed", self.subscriber, flow, self, config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTING: &str = "version: 1\nstreams: { system-events: { events: [\"System.**\"] } }\nroutes: { \"System.**\": [ops] }\n";

    fn opened(schema: Option<&str>) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let schemas = dir.path().join("schemas");
        std::fs::create_dir(&schemas).unwrap();
        std::fs::write(schemas.join("System.Other.Happened.v1.json"), "{}").unwrap();
        if let Some(schema) = schema {
            std::fs::write(schemas.join("System.Breaker.Opened.v1.json"), schema).unwrap();
        }
        std::fs::write(dir.path().join("routing.yaml"), ROUTING).unwrap();
        let config = Config::load(&dir.path().join("routing.yaml")).unwrap();
        let data = Opened {
            subscriber: "payment-service",
            why: "connection refused",
            opened_at: Timestamp::UNIX_EPOCH,
            open_for_ms: 5_000,
            opened_in_a_row: 1,
            worker: "a.00000000".to_owned(),
        };
        data.event(Uuid::nil(), &config)
    }

    #[test]
    fn it_fits_the_schema_that_ships_and_is_left_out_where_it_would_be_refused() {
        let ours = include_str!("../../../schemas/System.Breaker.Opened.v1.json");
        let event: serde_json::Value = serde_json::from_slice(&opened(Some(ours))).unwrap();
        assert_eq!(event["data"]["why"], "connection refused");
        assert_eq!(event["key"], "payment-service");
        assert_eq!(event["correlation_id"], Uuid::nil().to_string());
        assert!(opened(None).is_empty(), "no schema");
        let other = r#"{"properties": {"data": {"required": ["team"]}}}"#;
        assert!(opened(Some(other)).is_empty(), "another schema");
    }
}
