//! Durations as people write them: `500ms`, `30s`, `1h30m`, `7d`.

use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

/// A duration in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

/// What the JSON schema asks for; [`parse`] takes exactly that.
const PATTERN: &str = "^([0-9]{1,9}(ms|s|m|h|d))+$";

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).map(Span).ok_or_else(|| {
            serde::de::Error::custom("a duration is a whole number and ms, s, m, h or d")
        })
    }
}

impl JsonSchema for Span {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": PATTERN, "maxLength": 32 })
    }
}

/// Reads a duration; numbers have at most 9 digits, so that no sum overflows.
fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = rest
            .split_at_checked(digits)
            .filter(|_| (1..=9).contains(&digits))?;
        let number: u64 = number.parse().ok()?;
        let unit = tail.len()
            - tail
                .trim_start_matches(|c: char| c.is_ascii_alphabetic())
                .len();
        let (unit, tail) = tail.split_at_checked(unit)?;
        total = total.saturating_add(match unit {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number * 60),
            "h" => Duration::from_secs(number * 3_600),
            "d" => Duration::from_secs(number * 86_400),
            _ => return None,
        });
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

/// The shortest way to write a duration, to milliseconds.
pub(super) fn show(duration: Duration) -> String {
    let ms = duration.as_millis();
    for (unit, size) in [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
    ] {
        if ms >= size && ms.is_multiple_of(size) {
            return format!("{}{unit}", ms / size);
        }
    }
    format!("{ms}ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [
            ("500ms", Some(500)),
            ("30s", Some(30_000)),
            ("1h30m", Some(5_400_000)),
            ("7d", Some(604_800_000)),
            ("0s", Some(0)),
            ("999999999d", Some(86_399_999_913_600_000)),
            ("1234567890s", None),
            ("", None),
            ("30", None),
            ("s", None),
            ("-1s", None),
            ("1.5s", None),
            ("1 s", None),
            ("1w", None),
            ("１s", None),
        ] {
            assert_eq!(parse(text), ms.map(Duration::from_millis), "{text}");
        }
        assert_eq!(show(Duration::from_secs(5_400)), "90m");
        assert_eq!(show(Duration::from_secs(604_800)), "7d");
        assert_eq!(show(Duration::from_millis(1_500)), "1500ms");
    }
}
