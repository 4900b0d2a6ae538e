//! What a server had accepted and then forgot.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::harness::run::Run;

/// An answer that was on its way when the server died is noted by the publisher this soon.
const NOTED_WITHIN: Duration = Duration::from_millis(200);

/// Accepted events that were found missing, each once.
#[derive(Default)]
pub struct Forgotten(BTreeSet<String>);

impl Forgotten {
    /// The accepted events, other than those found before, that the server will not know when it
    /// answers again: ID, and when it was accepted. Asked while nobody answers, so that nothing
    /// is accepted meanwhile.
    pub fn find(&mut self, run: &Run, known: &BTreeSet<String>) -> Vec<(String, u64)> {
        std::thread::sleep(NOTED_WITHIN);
        let published = run.published().into_iter();
        let accepted = published.filter_map(|event| Some((event.id, event.accepted_ms?)));
        accepted
            .filter(|(id, _)| !known.contains(id) && self.0.insert(id.clone()))
            .collect()
    }
}
