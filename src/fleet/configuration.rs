//! The configuration that a process runs: which it is, how many it has taken since its start, and
//! what became of the last reload. Signs of life carry it to `worker:<subscriber>:<name>`: `generation`,
//! `config`, `taken`, `reload`, `reload_at`, `reload_why`.
//!
//! Guarantee: a process names a configuration as its own only once it works by it.

use std::sync::LazyLock;

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use crate::metrics::{self, RELOADS};
use crate::routing::Config;
use crate::store::StoreError;
use crate::text::bounded;

/// Bytes that are kept of why a file was refused.
const MAX_WHY: usize = 500;

/// One for each process, as its log is.
static OURS: LazyLock<watch::Sender<Configuration>> = LazyLock::new(watch::Sender::default);

/// What a process runs, and what became of its last reload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Configuration {
    /// The number that the fleet gave to this content when a process first took it: the same for all that run
    /// it. 0 before it has joined.
    pub generation: u64,
    /// Hash of routing.yaml and all schemas; empty before it has joined.
    #[serde(rename = "config")]
    pub fingerprint: String,
    /// How many configurations it has taken since its start, that of the start included.
    pub taken: u64,
    /// The last time that the files were read again because they had changed, or because it was
    /// asked to.
    pub reload: Option<Reload>,
}

/// What became of a reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reload {
    /// When, by the clock of that process.
    pub at: Timestamp,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// How a reload ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", content = "why", rename_all = "lowercase")]
pub enum Outcome {
    /// The new configuration is in force.
    Taken,
    /// The files hold what it runs.
    Unchanged,
    /// The one that it ran stays: the first thing that is wrong with the new one.
    Refused(String),
}

impl Outcome {
    fn name(&self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Unchanged => "unchanged",
            Self::Refused(_) => "refused",
        }
    }
}

impl Configuration {
    /// What to ask for.
    pub(crate) const FIELDS: [&str; 6] = [
        "generation",
        "config",
        "taken",
        "reload",
        "reload_at",
        "reload_why",
    ];

    /// Reads the answer of [`FIELDS`](Self::FIELDS).
    pub(crate) fn read(fields: [Option<String>; 6]) -> Self {
        let [generation, fingerprint, taken, outcome, at, why] = fields;
        let number = |text: Option<String>| text.and_then(|text| text.parse().ok());
        let outcome = match outcome.as_deref() {
            Some("taken") => Some(Outcome::Taken),
            Some("unchanged") => Some(Outcome::Unchanged),
            Some("refused") => Some(Outcome::Refused(why.unwrap_or_default())),
            _ => None,
        };
        let at = at.and_then(|text| text.parse().ok());
        Self {
            generation: number(generation).unwrap_or(0),
            fingerprint: fingerprint.unwrap_or_default(),
            taken: number(taken).unwrap_or(0),
            reload: at.zip(outcome).map(|(at, outcome)| Reload { at, outcome }),
        }
    }

    /// As a sign of life carries it. What does not hold any more is empty, since fields stay.
    fn fields(&self) -> [(&'static str, String); 6] {
        let [mut outcome, mut at, mut why] = [const { String::new() }; 3];
        if let Some(reload) = &self.reload {
            (outcome, at) = (reload.outcome.name().to_owned(), reload.at.to_string());
            if let Outcome::Refused(refusal) = &reload.outcome {
                why.clone_from(refusal);
            }
        }
        let values = [
            self.generation.to_string(),
            self.fingerprint.clone(),
            self.taken.to_string(),
            outcome,
            at,
            why,
        ];
        let mut values = values.into_iter();
        Self::FIELDS.map(|name| (name, values.next().unwrap_or_default()))
    }

    /// The first configuration of a process is that of its start; another one is a reload.
    fn takes(&mut self, fingerprint: String, generation: u64, now: Timestamp) {
        if self.taken > 0 && self.fingerprint != fingerprint {
            self.reload = Some(Reload {
                at: now,
                outcome: Outcome::Taken,
            });
        }
        if self.fingerprint != fingerprint {
            self.taken += 1;
        }
        (self.fingerprint, self.generation) = (fingerprint, generation);
    }
}

/// What this process runs now.
pub fn configuration() -> Configuration {
    OURS.borrow().clone()
}

/// The same, and a signal whenever it takes another or a reload ends.
pub fn configurations() -> watch::Receiver<Configuration> {
    OURS.subscribe()
}

/// This process works by a configuration from now on.
pub(crate) fn in_force(config: &Config, generation: u64) {
    let fingerprint = config.fingerprint();
    metrics::GENERATION.set(generation);
    OURS.send_modify(|ours| {
        if ours.taken > 0 && ours.fingerprint != fingerprint {
            RELOADS.add("taken", 1);
        }
        ours.takes(fingerprint, generation, Timestamp::now());
    });
}

/// A reload ended without another configuration.
pub(crate) fn reloaded(outcome: Outcome) {
    let outcome = match outcome {
        Outcome::Refused(why) => Outcome::Refused(bounded(why, MAX_WHY)),
        other => other,
    };
    RELOADS.add(outcome.name(), 1);
    let at = Timestamp::now();
    OURS.send_modify(|ours| ours.reload = Some(Reload { at, outcome }));
}

/// Redis stands against a configuration, which is tried again until that is repaired or the file is another one.
/// `told` is the reason that was told last: each is told once.
pub(crate) fn refused_by_redis(told: &mut Option<String>, error: &StoreError) {
    let why = error.to_string();
    if told.as_ref() != Some(&why) {
        tracing::error!(
            "REFUSED, the running configuration stays: {why}; once that is repaired the new one is taken"
        );
        reloaded(Outcome::Refused(why.clone()));
        *told = Some(why);
    }
}

/// What signs of life carry.
pub(super) fn fields() -> [(&'static str, String); 6] {
    OURS.borrow().fields()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carried(ours: &Configuration) -> Configuration {
        Configuration::read(ours.fields().map(|(_, value)| Some(value)))
    }

    #[test]
    fn a_process_counts_what_it_takes_and_tells_it_with_its_signs_of_life() {
        let now = Timestamp::UNIX_EPOCH;
        let mut ours = Configuration::default();
        assert_eq!(carried(&ours), ours);
        ours.takes("a".into(), 7, now);
        ours.takes("a".into(), 7, now);
        assert_eq!((ours.taken, &ours.reload), (1, &None), "that of its start");
        let why = "routing.yaml:1:1: no".to_owned();
        let outcome = Outcome::Refused(why);
        ours.reload = Some(Reload { at: now, outcome });
        assert_eq!(carried(&ours), ours);
        ours.takes("b".into(), 8, now);
        assert_eq!((ours.taken, ours.generation), (2, 8));
        let outcome = Outcome::Taken;
        assert_eq!(ours.reload, Some(Reload { at: now, outcome }));
        assert_eq!(carried(&ours), ours, "nothing is left of the refusal");
    }

    #[test]
    fn what_an_older_process_does_not_tell_is_not_known() {
        let told = [Some("3".into()), None, None, None, None, None];
        let read = Configuration::read(told);
        assert_eq!((read.generation, read.fingerprint.as_str()), (3, ""));
        assert_eq!((read.taken, read.reload), (0, None));
    }
}
