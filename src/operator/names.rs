//! Names that somebody typed: whether there is such a thing, and what was probably meant.

use std::collections::BTreeSet;

use super::text::escape;
use super::{CommandError, Session};
use crate::fleet::{self, ROUTER};
use crate::routing::did_you_mean;
use crate::store::Keys;

/// What somebody may name besides the subscribers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Router {
    /// Also the router.
    Counts,
    /// Not the router.
    DoesNot,
}

impl Session {
    /// Everyone there is: in routing.yaml, or with a group in Redis.
    pub(super) async fn subscribers(
        &self,
        router: Router,
    ) -> Result<BTreeSet<String>, CommandError> {
        let routed = self.config.routing.subscribers();
        let mut names: BTreeSet<String> = routed.map(|s| s.name.to_string()).collect();
        let groups = fleet::group_records(&self.link, &self.keys).await?;
        let groups = groups.into_keys().map(|(_, subscriber)| subscriber);
        names.extend(groups.filter(|name| Keys::shadow_of(name).is_none() && name != ROUTER));
        if router == Router::Counts {
            names.insert(ROUTER.to_owned());
        }
        Ok(names)
    }

    /// Refuses a subscriber that there is not.
    pub(super) async fn expect_subscriber(
        &self,
        name: &str,
        router: Router,
    ) -> Result<(), CommandError> {
        let names = self.subscribers(router).await?;
        match names.contains(name) {
            true => Ok(()),
            false => Err(unknown("subscriber", name, &names, "streamfleet status")),
        }
    }
}

/// There is none of this name; says what was meant, or else where to look.
pub(super) fn unknown<'a, S: AsRef<str> + 'a>(
    thing: &str,
    name: &str,
    known: impl IntoIterator<Item = &'a S>,
    look: &str,
) -> CommandError {
    let advice = advice(name, known, look);
    CommandError::Refused(format!("there is no {thing} {}: {advice}", escape(name)))
}

/// What was probably meant, or else where to look.
pub(super) fn advice<'a, S: AsRef<str> + 'a>(
    name: &str,
    known: impl IntoIterator<Item = &'a S>,
    look: &str,
) -> String {
    meant(name, known).map_or_else(
        || format!("see {look}"),
        |guess| format!("did you mean {guess}?"),
    )
}

/// What was probably meant.
pub(super) fn meant<'a, S: AsRef<str> + 'a>(
    name: &str,
    known: impl IntoIterator<Item = &'a S>,
) -> Option<String> {
    did_you_mean(name, known.into_iter().map(AsRef::as_ref)).map(escape)
}
