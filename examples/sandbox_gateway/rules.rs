//! The rules by which the sandbox gateway misbehaves; the header of `sandbox_gateway.rs` says what
//! each of them means.

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// All rules.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rules {
    pub(crate) outage: bool,
    #[serde(deserialize_with = "amount")]
    pub(crate) decline_above: Option<Decimal>,
    pub(crate) delay_ms: u64,
    pub(crate) answer_delay_ms: u64,
    pub(crate) fail_rate: f64,
}

impl Rules {
    /// These rules with those changed that `text` names.
    pub(crate) fn changed(&self, text: &[u8]) -> Result<Self, String> {
        let wrong = |error: serde_json::Error| format!("rules are a JSON object: {error}");
        let change: serde_json::Map<String, Value> = serde_json::from_slice(text).map_err(wrong)?;
        let mut all = serde_json::to_value(self).map_err(wrong)?;
        if let Some(all) = all.as_object_mut() {
            all.extend(change);
        }
        let rules: Self = serde_json::from_value(all).map_err(|error| error.to_string())?;
        rules.check()?;
        Ok(rules)
    }

    /// Whether they make sense.
    pub(crate) fn check(&self) -> Result<(), String> {
        match (0.0..=1.0).contains(&self.fail_rate) {
            true => Ok(()),
            false => Err(format!("fail_rate {} is not from 0 to 1", self.fail_rate)),
        }
    }
}

/// Amounts are strings here: a number would have become a float on its way.
fn amount<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Decimal>, D::Error> {
    let text = Option::<String>::deserialize(input)?;
    let parse = |text: &String| streamfleet::money::parse(text);
    text.as_ref()
        .map(parse)
        .transpose()
        .map_err(serde::de::Error::custom)
}

/// How one request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failing {
    /// It does not.
    No,
    /// Before anything happened.
    Before,
    /// After it happened: the answer is lost.
    After,
}

/// Spreads failures evenly, so that a test is told the same each time.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    owed: f64,
    last: bool,
}

impl Failures {
    pub(crate) fn next(&mut self, rate: f64) -> Failing {
        self.owed += rate;
        if self.owed < 1.0 {
            return Failing::No;
        }
        self.owed -= 1.0;
        self.last = !self.last;
        match self.last {
            true => Failing::Before,
            false => Failing::After,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_changes_what_it_names() {
        let rules = Rules::default();
        let slow = rules
            .changed(br#"{"delay_ms": 5, "decline_above": "9.99"}"#)
            .unwrap();
        assert_eq!((slow.delay_ms, slow.outage), (5, false));
        let away = slow
            .changed(br#"{"outage": true, "decline_above": null}"#)
            .unwrap();
        let expected = Rules {
            outage: true,
            delay_ms: 5,
            ..Rules::default()
        };
        assert_eq!(away, expected);
        for wrong in [
            r#"{"outrage": true}"#,
            r#"{"decline_above": 9.99}"#,
            r#"{"fail_rate": 1.5}"#,
            "[]",
            "",
        ] {
            assert!(rules.changed(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn failures_are_spread_and_take_turns() {
        let mut failures = Failures::default();
        let all: Vec<_> = (0..8).map(|_| failures.next(0.5)).collect();
        use Failing::{After, Before, No};
        assert_eq!(all, [No, Before, No, After, No, Before, No, After]);
        assert_eq!(Failures::default().next(0.0), No);
        assert_eq!(Failures::default().next(1.0), Before);
    }
}
