//! What must hold in every state: I1 to I8 of the design, and what they rest on.
//!
//! I8, when faults stop everything ends handled or dead, is checked without a fairness
//! assumption, in two halves. Each step, whichever it is, raises `rank` (asserted for every
//! step that is explored), and `rank` is bounded where faults are: so every run ends. And where
//! no step is left but faults, everything is settled: so every run ends well, whatever the order
//! of its steps and however its handlers answered.

use stateright::Model;

use super::process::Step;
use super::scripts::{Call, Claim};
use super::store::{Event, Group, Owner, Queue, Reason, Subscriber};
use super::system::{Action, Fault, State, System};

/// A condition on a state.
pub(crate) type Condition = fn(&System, &State) -> bool;

pub(crate) const EFFECTS_ONCE: &str = "I1 effects at most once";
pub(crate) const ONE_PLACE: &str = "I2 in exactly one place";
pub(crate) const NOTHING_DROPPED: &str = "I2 nothing is dropped silently";
pub(crate) const NOT_BOTH: &str = "I3 never both handled and dead";
pub(crate) const TRIM_FLOOR: &str = "I4 nothing unsettled is trimmed";
pub(crate) const FOLLOW_UPS: &str = "I5 follow-ups if and only if committed";
pub(crate) const ATTEMPTS: &str = "I6 at most max_attempts charged";
pub(crate) const FENCED: &str = "I7 a fenced script changes nothing";
pub(crate) const SETTLES: &str = "I8 when nothing but faults is left, all is settled";
pub(crate) const LEASES: &str = "a worker that renews keeps its delivery";
pub(crate) const POISON: &str = "a delivery kills three processes at most";
pub(crate) const CRASHED: &str = "given up as crashed only after three lost starts";
pub(crate) const TIDY: &str = "attempts only of what is pending";

/// What is checked in every state.
pub(crate) const INVARIANTS: [(&str, Condition); 13] = [
    (EFFECTS_ONCE, |_, s| {
        s.store.effects.values().all(|&times| times == 1)
    }),
    (ONE_PLACE, |m, s| {
        owed(m, s).all(|(event, of)| places(s, event, of) == 1)
    }),
    (NOTHING_DROPPED, nothing_dropped),
    (NOT_BOTH, |_, s| {
        !s.store
            .effects
            .keys()
            .any(|&(of, event)| s.letters(event, of) > 0)
    }),
    (TRIM_FLOOR, |_, s| {
        s.store
            .groups
            .keys()
            .all(|&queue| nothing_owed_is_gone(s, queue))
    }),
    (FOLLOW_UPS, follow_ups),
    (ATTEMPTS, |_, s| !s.ghost.overcharged),
    (FENCED, |_, s| !s.ghost.stale_write),
    (SETTLES, |m, s| !is_at_rest(m, s) || is_settled(m, s)),
    (LEASES, leases),
    (POISON, |_, s| {
        s.ghost.killed.values().all(|&killed| killed <= 3)
    }),
    // Whatever loses a start is a fault.
    (CRASHED, |_, s| {
        !s.died(Reason::Crashed) || s.faults.iter().sum::<u8>() >= 3
    }),
    (TIDY, tidy),
];

/// A follow-up was published if and only if its parent was committed.
fn follow_ups(model: &System, state: &State) -> bool {
    let Some(child) = model.bounds.follow_up(0, 0) else {
        return true;
    };
    let waits = state
        .store
        .inbox
        .entries
        .iter()
        .any(|entry| entry.event == child);
    let published = waits || state.store.seen.contains_key(&child);
    published == state.store.effects.contains_key(&(0, 0))
}

/// Unless it froze or somebody took its name, who runs a delivery holds it.
fn leases(_: &System, state: &State) -> bool {
    let disturbed = state.used(Fault::Freeze) + state.used(Fault::Namesake) > 0;
    let holds = |claim: &Claim| {
        let pending = state.store.pending(claim.queue, claim.id);
        state.is_current(claim) && pending.is_some_and(|pending| pending.count == claim.count)
    };
    disturbed || state.running().all(|delivery| holds(delivery.claim()))
}

fn tidy(_: &System, state: &State) -> bool {
    let pending = |group: &Group| {
        group
            .attempts
            .keys()
            .all(|id| group.pending.contains_key(id))
    };
    state.store.groups.values().all(pending)
}

/// The routed events, each with each subscriber that it is for.
fn owed<'a>(model: &'a System, state: &'a State) -> impl Iterator<Item = (Event, Subscriber)> + 'a {
    let routed = 0..model.bounds.events.len() as Event;
    let routed = routed.filter(|event| state.store.seen.contains_key(event));
    routed.flat_map(|event| {
        model.bounds.events[usize::from(event)]
            .iter()
            .map(move |&x| (event, x))
    })
}

/// In how many places a routed event is, for a subscriber.
fn places(state: &State, event: Event, subscriber: Subscriber) -> usize {
    let open = |queue| {
        let (stream, group) = (state.store.stream(queue), state.store.group(queue));
        let same = stream.entries.iter().filter(|entry| entry.event == event);
        let open = |id| id > group.last || group.pending.contains_key(&id);
        same.filter(|entry| open(entry.id)).count()
    };
    let handled = usize::from(state.store.effects.contains_key(&(subscriber, event)));
    let dead = state.letters(event, subscriber);
    open(Queue::Domain(subscriber)) + open(Queue::Redrive(subscriber)) + handled + dead
}

/// What came in is in the inbox, routed, a counted duplicate, or in dead:router.
fn nothing_dropped(model: &System, state: &State) -> bool {
    let (store, stats) = (&state.store, state.store.stats);
    let child = model.bounds.follow_up(0, 0).and(store.effects.get(&(0, 0)));
    let came = state.published + child.copied().unwrap_or(0);
    let refused = store
        .letters
        .iter()
        .filter(|letter| letter.of.is_none())
        .count() as u8;
    let there = store.inbox.entries.len() as u8;
    refused == stats.refused && came == there + stats.routed + stats.duplicates + refused
}

/// Whatever a group has yet to settle is in its stream.
fn nothing_owed_is_gone(state: &State, queue: Queue) -> bool {
    let (stream, group) = (state.store.stream(queue), state.store.group(queue));
    let pending = group.pending.keys().copied();
    let mut owed = pending.chain(group.last + 1..=stream.last);
    owed.all(|id| stream.get(id).is_some())
}

/// Whether no step is left but faults, and what nobody need do.
fn is_at_rest(model: &System, state: &State) -> bool {
    let mut actions = Vec::new();
    model.actions(state, &mut actions);
    !actions.iter().any(Action::is_progress)
}

fn is_settled(model: &System, state: &State) -> bool {
    let settled = |(e, x)| state.store.effects.contains_key(&(x, e)) || state.letters(e, x) > 0;
    state.store.inbox.entries.is_empty() && owed(model, state).all(settled)
}

/// Rises with every step of the protocol as built: no run is endless.
fn rank(state: &State) -> i64 {
    let events = state.faults.iter().sum::<u8>() + state.published + state.redriven;
    let mut rank = 100 * i64::from(events) - state.late.len() as i64;
    rank += i64::from(state.store.domain.last) - state.store.domain.entries.len() as i64;
    for group in state.store.groups.values() {
        // Settling outweighs every delivery; delivering outweighs what the holder then does.
        rank += 10_000 * (i64::from(group.last) - group.pending.len() as i64);
        for pending in group.pending.values() {
            rank += 10 * i64::from(pending.count);
            if matches!(pending.owner, Owner::Process(_)) {
                // To take it away outweighs that it ends a transaction.
                rank -= 2 + i64::from(pending.idle);
            }
        }
    }
    let left = |step| match step {
        Step::Sending(Call::Mark { .. }, _) => 5,
        Step::Running => 4,
        Step::Sending(Call::Write, _) => 2,
        Step::Sending(..) => 3,
    };
    rank - state
        .held()
        .map(|delivery| left(delivery.step))
        .sum::<i64>()
}

/// Every step is a step forward.
pub(crate) fn assert_forward(from: &State, to: &State, action: Action) {
    assert!(
        rank(from) < rank(to),
        "{action} leads nowhere:\n{from:?}\n{to:?}"
    );
}
