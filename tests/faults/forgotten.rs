//! What a server had accepted and then forgot.

use std::collections::BTreeSet;

use crate::support::ledger::Published;

/// Accepted events that were found missing, each once.
#[derive(Default)]
pub struct Forgotten(BTreeSet<String>);

impl Forgotten {
    /// Those among `published` that were accepted by then, that the server does not know, and
    /// that were not found before: ID, and when it was accepted.
    pub fn find(
        &mut self,
        published: Vec<Published>,
        known: &BTreeSet<String>,
        by_ms: u64,
    ) -> Vec<(String, u64)> {
        let accepted = published.into_iter().filter_map(|event| {
            let at = event.accepted_ms.filter(|&at| at <= by_ms)?;
            Some((event.id, at))
        });
        accepted
            .filter(|(id, _)| !known.contains(id) && self.0.insert(id.clone()))
            .collect()
    }
}
