//! What must happen in some state of some scenario, so that no invariant holds only because
//! nothing happened.

use super::invariants::Condition;
use super::process::{Delivery, Step};
use super::scripts::Call;
use super::store::{Owner, Reason};
use super::system::State;

/// What has to be seen.
pub(crate) const WITNESSES: [(&str, Condition); 18] = [
    ("an event was handled", |_, s| !s.store.effects.is_empty()),
    ("a retry waits", |_, s| {
        owners(s).any(|owner| owner == Owner::Retry)
    }),
    ("a delivery waits released", |_, s| {
        owners(s).any(|owner| owner == Owner::Released)
    }),
    ("a retry runs", |_, s| {
        s.running()
            .any(|d| d.handed.failures > 0 && d.handed.starts.is_none())
    }),
    ("a delivery runs again after its worker was lost", |_, s| {
        s.running().any(|d| d.handed.starts.is_some())
    }),
    ("two workers run one delivery", two_run_one),
    ("a commit is about to be fenced", |_, s| {
        commits(s).any(|d| !s.is_current(d.claim()) && is_pending(s, &d))
    }),
    ("a commit is sent again after it was done", |_, s| {
        commits(s).any(|d| !is_pending(s, &d))
    }),
    ("a late request is about to be fenced", |_, s| {
        s.late.iter().any(|r| !s.is_current(&r.claim))
    }),
    ("a late request is about to be obeyed", |_, s| {
        s.late.iter().any(|r| s.is_current(&r.claim))
    }),
    ("an event may be routed by a transaction", |_, s| {
        s.held().any(|d| d.step == Step::Sending(Call::Write, None))
    }),
    ("a transaction is late", |_, s| {
        s.late.iter().any(|request| request.call == Call::Write)
    }),
    ("attempts were exhausted", |_, s| s.died(Reason::Exhausted)),
    ("a crash loop was given up", |_, s| s.died(Reason::Crashed)),
    ("a duplicate was dropped", |_, s| {
        s.store.stats.duplicates > 0
    }),
    ("a conflict was refused", |_, s| s.died(Reason::Conflict)),
    ("a redriven event was handled", |_, s| {
        s.redriven > 0 && s.store.letters.is_empty() && !s.store.effects.is_empty()
    }),
    ("history was trimmed", |_, s| {
        s.store.domain.entries.len() < s.store.domain.last.into()
    }),
];

fn owners(state: &State) -> impl Iterator<Item = Owner> {
    let groups = state.store.groups.values();
    groups.flat_map(|group| group.pending.values().map(|pending| pending.owner))
}

fn commits(state: &State) -> impl Iterator<Item = Delivery> {
    let commits =
        |delivery: &Delivery| matches!(delivery.step, Step::Sending(Call::Commit { .. }, _));
    state.held().filter(commits)
}

fn is_pending(state: &State, delivery: &Delivery) -> bool {
    let claim = delivery.claim();
    state.store.pending(claim.queue, claim.id).is_some()
}

fn two_run_one(_: &super::system::System, state: &State) -> bool {
    let entry = |delivery: Delivery| (delivery.claim().queue, delivery.claim().id);
    let mut running: Vec<_> = state.running().map(entry).collect();
    running.sort_unstable();
    running.windows(2).any(|pair| pair[0] == pair[1])
}
