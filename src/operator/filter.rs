//! The filters of `streamfleet dead`.

use std::time::Duration;

use jiff::Timestamp;

use crate::dead::Filter;
use crate::event_type::Pattern;

/// Which letters; everything that is given must fit.
#[derive(Debug, clap::Args)]
pub(super) struct FilterArgs {
    /// Only letters of this subscriber, or of `router` (what was refused at the door).
    #[arg(long, value_name = "NAME")]
    pub(super) subscriber: Option<String>,
    /// Only events of this type, or of a quoted pattern such as 'Order.**'.
    #[arg(long = "type", value_name = "TYPE", value_parser = Pattern::parse)]
    event_type: Option<Pattern>,
    /// Only letters with this reason, such as exhausted, rejected or schema_violation.
    #[arg(long, value_name = "CODE")]
    reason: Option<String>,
    /// Only letters with this text in their error.
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// Only letters of this group of `dead list --group`.
    #[arg(long, value_name = "FINGERPRINT")]
    fingerprint: Option<String>,
    /// Only letters that died since then: an RFC 3339 time, or how long ago, such as 2h.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Only letters that died before then: an RFC 3339 time, or how long ago, such as 2h.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
}

impl FilterArgs {
    pub(super) fn filter(&self) -> Filter {
        Filter {
            subscriber: self.subscriber.clone(),
            event_type: self.event_type.clone(),
            reason: self.reason.clone(),
            error: self.error.clone(),
            fingerprint: self.fingerprint.clone(),
            since: self.since,
            until: self.until,
        }
    }
}

/// A time, or how long ago it was.
pub(super) fn moment(text: &str) -> Result<Timestamp, String> {
    let ago = |d: Duration| Timestamp::now().checked_sub(d).map_err(|e| e.to_string());
    match (text.parse(), super::duration(text)) {
        (Ok(time), _) => Ok(time),
        (_, Ok(duration)) => ago(duration),
        _ => Err("write a time such as 2026-01-31T08:00:00Z, or how long ago, such as 2h".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_times_or_ages() {
        let time = moment("2026-01-31T08:00:00Z").unwrap();
        assert_eq!(time.to_string(), "2026-01-31T08:00:00Z");
        let ago = Timestamp::now().duration_since(moment("2h").unwrap());
        assert!((7_195..7_205).contains(&ago.as_secs()), "{ago}");
        assert!(moment("yesterday").is_err());
        assert!(moment("999999999999d").is_err(), "before all time");
    }
}
