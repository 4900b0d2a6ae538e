//! What must hold in every state (I1 to I8 of the design, and what they rest on), and what must
//! happen in some, so that nothing holds only because nothing happened.
//!
//! I8, when faults stop everything ends handled or dead, is checked without a fairness
//! assumption, in two halves. Each step, whichever it is, raises `rank` (asserted for every
//! step that is explored), and `rank` is bounded where faults are: so every run ends. And where
//! no step is left but faults, everything is settled: so every run ends well, whatever the order
//! of its steps and however its handlers answered.

use stateright::{Model, Property};

use super::process::Step;
use super::scripts::Call;
use super::store::{Event, Owner, Queue, Reason, Subscriber};
use super::system::{Action, Fault, State, System};

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

pub(crate) fn properties() -> Vec<Property<System>> {
    let always = |name, holds: Condition| Property::always(name, holds);
    let sometimes = |(name, seen): (_, Condition)| Property::sometimes(name, seen);
    let mut all = vec![
        always(EFFECTS_ONCE, |_, s| {
            s.store.effects.values().all(|&times| times == 1)
        }),
        always(ONE_PLACE, |m, s| {
            owed(m, s).all(|(e, x)| places(s, e, x) == 1)
        }),
        always(NOTHING_DROPPED, nothing_dropped),
        always(NOT_BOTH, |_, s| {
            let mut handled = s.store.effects.keys();
            !handled.any(|&(x, e)| letters(s, e, x) > 0)
        }),
        always(TRIM_FLOOR, |_, s| {
            let domain = |queue: &&Queue| matches!(queue, Queue::Domain(_));
            s.store
                .groups
                .keys()
                .filter(domain)
                .all(|&queue| nothing_owed_trimmed(s, queue))
        }),
        always(FOLLOW_UPS, |m, s| {
            let published = |e: Event| {
                s.store.seen.contains_key(&e) || s.store.inbox.entries.iter().any(|x| x.event == e)
            };
            let child = m.bounds.follow_up(0, 0);
            child.is_none_or(|child| published(child) == s.store.effects.contains_key(&(0, 0)))
        }),
        always(ATTEMPTS, |_, s| !s.ghost.overcharged),
        always(FENCED, |_, s| !s.ghost.stale_write),
        always(SETTLES, |m, s| !is_at_rest(m, s) || is_settled(m, s)),
        always(LEASES, |_, s| {
            let undisturbed = s.used(Fault::Freeze) + s.used(Fault::Namesake) == 0;
            let running = s.processes.iter().filter_map(|process| process.holds);
            let mut running = running.filter(|held| held.step == Step::Running);
            !undisturbed
                || running.all(|held| {
                    s.is_current(held.claim()) && held.claim().count == count(s, held.claim())
                })
        }),
        always(POISON, |_, s| {
            s.ghost.killed.values().all(|&killed| killed <= 3)
        }),
        // Whatever loses a start is a fault.
        always(CRASHED, |_, s| {
            !died(s, Reason::Crashed) || s.faults.iter().sum::<u8>() >= 3
        }),
        always(TIDY, |_, s| {
            let mut groups = s.store.groups.values();
            groups.all(|group| {
                group
                    .attempts
                    .keys()
                    .all(|id| group.pending.contains_key(id))
            })
        }),
    ];
    all.extend(WITNESSED.map(sometimes));
    all
}

type Condition = fn(&System, &State) -> bool;

/// What has to be seen in at least one scenario.
pub(crate) const WITNESSED: [(&str, Condition); 15] = [
    ("an event was handled", |_, s| !s.store.effects.is_empty()),
    ("a retry waits", |_, s| {
        owners(s).any(|(_, o)| o == Owner::Retry)
    }),
    ("a delivery waits released", |_, s| {
        owners(s).any(|(_, o)| o == Owner::Released)
    }),
    ("a retry runs", |_, s| {
        running(s).any(|d| d.handed.failures > 0 && d.handed.starts.is_none())
    }),
    ("a delivery runs again after its worker was lost", |_, s| {
        running(s).any(|d| d.handed.starts.is_some())
    }),
    ("two workers run one delivery", |_, s| {
        let mut all = running(s)
            .map(|d| (d.claim().queue, d.claim().id))
            .collect::<Vec<_>>();
        let before = all.len();
        all.sort_unstable();
        all.dedup();
        all.len() < before
    }),
    ("a commit is about to be fenced", |_, s| {
        let commits =
            |d: &super::process::Delivery| matches!(d.step, Step::Sending(Call::Commit { .. }, _));
        held(s).any(|d| {
            commits(&d)
                && s.store.pending(d.claim().queue, d.claim().id).is_some()
                && !s.is_current(d.claim())
        })
    }),
    ("a commit is sent again after it was done", |_, s| {
        held(s).any(|d| {
            let gone = s.store.pending(d.claim().queue, d.claim().id).is_none();
            gone && matches!(d.step, Step::Sending(Call::Commit { .. }, _))
        })
    }),
    ("a late request is about to be fenced", |_, s| {
        s.late.iter().any(|r| !s.is_current(&r.claim))
    }),
    ("attempts were exhausted", |_, s| died(s, Reason::Exhausted)),
    ("a crash loop was given up", |_, s| died(s, Reason::Crashed)),
    ("a duplicate was dropped", |_, s| {
        s.store.stats.duplicates > 0
    }),
    ("a conflict was refused", |_, s| died(s, Reason::Conflict)),
    ("a redriven event was handled", |_, s| {
        s.redriven > 0 && s.store.letters.is_empty() && !s.store.effects.is_empty()
    }),
    ("history was trimmed", |_, s| {
        s.store.domain.entries.len() < usize::from(s.store.domain.last)
    }),
];

fn held(state: &State) -> impl Iterator<Item = super::process::Delivery> {
    state.processes.iter().filter_map(|process| process.holds)
}

fn running(state: &State) -> impl Iterator<Item = super::process::Delivery> {
    held(state).filter(|delivery| delivery.step == Step::Running)
}

fn owners(state: &State) -> impl Iterator<Item = (Queue, Owner)> {
    let groups = state.store.groups.iter();
    groups.flat_map(|(&queue, group)| group.pending.values().map(move |p| (queue, p.owner)))
}

fn count(state: &State, claim: &super::scripts::Claim) -> u8 {
    state
        .store
        .pending(claim.queue, claim.id)
        .map_or(0, |pending| pending.count)
}

fn died(state: &State, reason: Reason) -> bool {
    state
        .store
        .letters
        .iter()
        .any(|letter| letter.reason == reason)
}

fn letters(state: &State, event: Event, subscriber: Subscriber) -> usize {
    let of = |l: &&super::store::Letter| l.event == event && l.of == Some(subscriber);
    state.store.letters.iter().filter(of).count()
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
    let dead = letters(state, event, subscriber);
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

fn nothing_owed_trimmed(state: &State, queue: Queue) -> bool {
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
    let settled = |(e, x)| state.store.effects.contains_key(&(x, e)) || letters(state, e, x) > 0;
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
                rank -= 1 + i64::from(pending.idle);
            }
        }
    }
    let left = |step| match step {
        Step::Sending(Call::Mark { .. }, _) => 5,
        Step::Running => 4,
        Step::Sending(..) => 3,
    };
    rank - held(state).map(|delivery| left(delivery.step)).sum::<i64>()
}

/// Every step is a step forward.
pub(crate) fn assert_forward(from: &State, to: &State, action: Action) {
    assert!(
        rank(from) < rank(to),
        "{action} leads nowhere:\n{from:?}\n{to:?}"
    );
}
