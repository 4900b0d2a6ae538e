//! What the metrics of this process tell of batches.

use super::batch::Decided;
use crate::admission::Refusal;
use crate::metrics::{self, BATCHES, REFUSED};
use crate::store::{Fields, RouteCounts, Routed};

/// A batch that was answered.
pub(super) fn routed(batch: &Decided, counts: &RouteCounts) {
    BATCHES.observe(batch.entries.len() as u64, 1);
    // Which of them another router has is not told.
    if counts.fenced == 0 {
        metrics::routed(batch.entries.iter().map(|(fence, _)| fence.id.ms));
    }
    if counts.conflicts > 0 {
        REFUSED.add(Refusal::EventIdConflict.as_str(), counts.conflicts);
    }
    if counts.refused > 0 {
        let letters = batch.entries.iter().filter_map(|(_, routed)| match routed {
            Routed::Dead(letter) => Some(letter),
            Routed::Append { .. } | Routed::Schedule { .. } => None,
        });
        refused(letters, counts.refused);
    }
}

/// Of these letters so many were written.
pub(super) fn refused<'a>(letters: impl Iterator<Item = &'a Fields> + Clone, written: u64) {
    if letters.clone().count() as u64 != written {
        REFUSED.add("other", written); // which of them, is not told
        return;
    }
    for letter in letters {
        REFUSED.add(letter.text("reason").unwrap_or_default(), 1);
    }
}
