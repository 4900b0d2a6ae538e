//! What the metrics of this process tell of what was settled.

use std::sync::Arc;
use std::time::Duration;

use super::settle::Ack;
use crate::metrics::{self, CONFLICTS, HANDLED, OVERTAKEN};
use crate::store::{AckCounts, CommitRequest, Committed, Settled};

/// Acknowledgements that were answered. Those of entries for others are nobody's deliveries.
pub(super) fn acknowledged(acks: &[Ack], counts: &AckCounts, resent: bool) {
    let ours = || acks.iter().filter(|ack| ack.guard.is_some());
    if resent || counts.done == acks.len() {
        return metrics::handled(ours().map(|ack| ack.fence.id.ms));
    }
    // Which of them came too late is not told.
    let late = (acks.len() - counts.done).min(ours().count());
    metrics::came_to(OVERTAKEN, late as u64);
    metrics::came_to(HANDLED, (ours().count() - late) as u64);
}

/// Commits that were answered, in one call that took so long.
pub(super) fn committed(
    requests: &[Arc<CommitRequest>],
    answers: &[Committed],
    resent: bool,
    took: Duration,
) {
    let done = || {
        let both = requests.iter().zip(answers);
        both.filter(|(_, answer)| is_done(answer, resent))
    };
    metrics::handled(done().map(|(request, _)| request.fence.id.ms));
    let published = done().map(|(request, _)| request.asked.follow_ups).sum();
    if published > 0 {
        metrics::published(published, took, true);
    }
    let conflicts = answers.iter().filter(|a| matches!(a, Committed::Conflict));
    CONFLICTS.add(conflicts.count() as u64);
}

/// Whether this call, or one before it whose answer was lost, settled the delivery.
pub(super) fn is_done(answer: &Committed, resent: bool) -> bool {
    match answer {
        Committed::Settled(settled) => settles(*settled, resent),
        _ => false,
    }
}

/// The same of what is settled by itself.
pub(super) fn settles(settled: Settled, resent: bool) -> bool {
    match settled {
        Settled::Done => true,
        Settled::Gone => resent,
        Settled::Fenced | Settled::Lost => false,
    }
}
