//! What to do with one entry of the inbox: a pure decision.

use jiff::Timestamp;

use crate::admission::{Admitted, Refusal, Rejection, admit};
use crate::letter::Letter;
use crate::routing::Config;
use crate::store::{EntryId, Fields, Routed, StreamField};

/// An admitted event with the length of its chain of follow-ups, or why it is refused.
pub type Verdict = Result<(Admitted, u32), Rejection>;

/// Turns a verdict into what the script does. `targets` collects the domain streams of the batch.
pub fn decide(id: EntryId, fields: Fields, verdict: Verdict, targets: &mut Vec<String>) -> Routed {
    match verdict {
        Ok((admitted, hops)) => {
            let event = fields
                .0
                .into_iter()
                .find(|(n, _)| n == StreamField::EVENT.as_bytes());
            if let Some(due) = admitted.due {
                return Routed::Schedule {
                    event_id: admitted.envelope.event_id.to_string(),
                    content: admitted.content,
                    event_type: admitted.envelope.event_type.to_string(),
                    due_ms: milliseconds(due),
                    hops,
                    event: event.map(|(_, bytes)| bytes).unwrap_or_default(),
                };
            }
            let target = targets
                .iter()
                .position(|t| **t == *admitted.stream)
                .unwrap_or_else(|| {
                    targets.push(admitted.stream.to_string());
                    targets.len() - 1
                });
            Routed::Append {
                event_id: admitted.envelope.event_id.to_string(),
                content: admitted.content,
                target,
                event_type: admitted.envelope.event_type.to_string(),
                to: admitted.to,
                hops,
                event: event.map(|(_, bytes)| bytes).unwrap_or_default(),
            }
        }
        Err(rejection) => Routed::Dead(Letter::refused(id, fields, &rejection).to_fields()),
    }
}

/// Who published an event, as far as that is known.
pub(super) fn source(verdict: &Verdict) -> Option<String> {
    match verdict {
        Ok((admitted, _)) => admitted.published_by.clone(),
        Err(rejection) => rejection.published_by.as_deref().map(str::to_owned),
    }
}

/// A time in whole milliseconds since 1970, never before it.
fn milliseconds(at: Timestamp) -> u64 {
    let ms = (at.as_nanosecond() + 999_999).div_euclid(1_000_000);
    ms.try_into().unwrap_or(0)
}

/// Whether it is refused for a reason that a newer configuration could remove.
pub(super) fn might_pass_with_newer_config<T>(verdict: &Result<T, Rejection>) -> bool {
    verdict
        .as_ref()
        .is_err_and(|rejection| rejection.code.depends_on_config())
}

/// Judges an entry: the one place where its event is parsed.
pub fn examine(fields: &Fields, config: &Config) -> Verdict {
    let odd = |what: &str| Rejection {
        code: Refusal::BadEnvelope,
        error: format!("the entry has {what}: XADD inbox * event '<json>'"),
        details: Vec::new(),
        event_id: None,
        event_type: None,
        published_by: None,
    };
    let mut events = fields
        .0
        .iter()
        .filter(|(name, _)| name == StreamField::EVENT.as_bytes());
    let Some((_, event)) = events.next() else {
        return Err(odd("no field `event`"));
    };
    // Which of them is meant cannot be known, and none may vanish without a trace.
    if events.next().is_some() {
        return Err(odd("more than one field `event`"));
    }
    let hops = fields
        .number(StreamField::HOPS)
        .map_or(0, |n| n.try_into().unwrap_or(u32::MAX));
    admit(event, hops, config).map(|admitted| (admitted, hops))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_within_a_millisecond_is_due_at_its_end() {
        let ms = |text: &str| milliseconds(text.parse().unwrap());
        assert_eq!(ms("1970-01-01T00:00:01.002Z"), 1_002);
        assert_eq!(ms("1970-01-01T00:00:01.002000001Z"), 1_003);
        assert_eq!(ms("1969-12-31T00:00:00Z"), 0);
    }
}
