//! Removing shadows: of a rebuild that is given up, and of one that was killed.

use std::collections::BTreeSet;

use crate::fleet;
use crate::store::{Keys, Link, StoreError, retire_group, scan};

/// Keys that one command unlinks: it must not hold Redis up.
const STEP: usize = 1_000;

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Groups.
    pub groups: usize,
    /// Keys, of the model and of its upkeep.
    pub keys: usize,
}

/// Removes everything of all shadows of a subscriber. The groups go first: without them, a worker
/// that still runs can write nothing more.
///
/// # Errors
/// Redis could not be asked. A repetition goes on where this stopped.
pub async fn remove(link: &Link, keys: &Keys, subscriber: &str) -> Result<Removed, StoreError> {
    let mut removed = Removed::default();
    let records = fleet::group_records(link, keys).await?;
    for (stream, group) in records.keys() {
        if Keys::shadow_of(group) != Some(subscriber) {
            continue;
        }
        let holder = fleet::holder(keys, stream, group, "");
        let (holder, fleet) = (&holder, keys.fleet());
        let field = Keys::fleet_group(stream, group);
        link.run(|mut c| async move { retire_group(&mut c, &fleet, holder, &field, true).await })
            .await?;
        removed.groups += 1;
    }
    let any = Keys::shadow_glob(subscriber);
    let mut found = BTreeSet::new();
    for glob in [
        keys.effect(&any, "*"),
        keys.dead(&any),
        keys.stream(&Keys::restored_name(&any)),
        keys.stats(&any),
        keys.control(&any),
        keys.attempts("*", &any),
    ] {
        found.extend(scan(link, &glob, None).await?);
    }
    let found: Vec<_> = found
        .into_iter()
        .filter(|key| {
            let parts = keys.strip(key).split(':');
            parts
                .take(3)
                .any(|part| Keys::shadow_of(part) == Some(subscriber))
        })
        .collect();
    for part in found.chunks(STEP) {
        link.run(|mut c| async move { redis::cmd("UNLINK").arg(part).exec_async(&mut c).await })
            .await?;
    }
    removed.keys = found.len();
    Ok(removed)
}
