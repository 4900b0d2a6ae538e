//! The Lua scripts of src/store/lua, one function each, as built. Each is atomic: it checks its
//! fence first and writes last. `Scripts::broken` is how a mutant departs from that.

use std::collections::BTreeMap;

use super::mutants::Mutant;
use super::store::{Consumer, Content, Due, Entry, Event, Id, Letter, Owner};
use super::store::{Queue, Reason, Record, Store, Subscriber};

/// A delivery as it was handed out. Consumer and count are its fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Claim {
    pub(crate) queue: Queue,
    pub(crate) id: Id,
    pub(crate) consumer: Consumer,
    pub(crate) count: u8,
    /// See [`Pending::serial`].
    pub(crate) serial: u8,
}

/// What a process learns of a delivery that is handed to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Handed {
    pub(crate) claim: Claim,
    pub(crate) entry: Entry,
    /// Length of the log of charged attempts.
    pub(crate) failures: u8,
    /// `None` unless it lost its worker; then its starts without an outcome.
    pub(crate) starts: Option<u8>,
}

/// The fenced scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Call {
    /// mark_started.lua
    Mark { starts: u8 },
    /// ack.lua: settled without effects.
    Ack,
    /// commit.lua: effects, follow-up and acknowledgement.
    Commit { follow_up: Option<Event> },
    /// park.lua
    Park(Park),
    /// dead_letter.lua
    DeadLetter(Reason),
    /// route.lua, for one entry.
    Route,
    /// The transaction of an entry that was checked (check_route.lua). It has no fence: what is
    /// watched ends it, see [`Watched`].
    Write,
    /// renew.lua
    Renew,
    /// The second half of what only mutants do in two steps: a write without a fence.
    Bare(Bare),
}

/// What a delivery is parked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Park {
    /// `retry` or `released`.
    pub(crate) to: Owner,
    /// Length of the log, if one is written.
    pub(crate) failures: Option<u8>,
    /// Whether it failed and is charged for it (of which the script knows nothing).
    pub(crate) charged: bool,
    /// The marked starts before this run, which had an outcome.
    pub(crate) starts: Option<u8>,
    pub(crate) due: Due,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Bare {
    Effect,
    Letter(Reason),
    Log(u8),
    FollowUp(Event),
}

/// A fenced script on its way to Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Request {
    pub(crate) claim: Claim,
    pub(crate) entry: Entry,
    /// Whether `attempts` has a record to clear.
    pub(crate) troubled: bool,
    pub(crate) call: Call,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
/// What a fenced script answers.
pub(crate) enum Answer {
    Held,
    Gone,
    Fenced,
    Lost,
}

/// The scripts, or a broken variant of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scripts {
    pub(crate) mutant: Option<Mutant>,
}

impl Scripts {
    pub(crate) fn broken(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// prelude.lua: whether a delivery is still its holder's.
    fn fence(&self, store: &Store, request: &Request) -> Answer {
        let claim = &request.claim;
        if self.broken(Mutant::NoFence) {
            return Answer::Held;
        }
        let Some(pending) = store.pending(claim.queue, claim.id) else {
            return Answer::Gone;
        };
        // Where nobody else holds anything, and nothing was claimed, whatever is pending is ours.
        let batched = matches!(request.call, Call::Ack | Call::Commit { .. } | Call::Route);
        let group = store.group(claim.queue);
        let mut holders = group.pending.values().map(|pending| pending.owner);
        let holds_all = group.attempts.is_empty()
            && holders.all(|owner| owner == Owner::Process(claim.consumer));
        if batched && holds_all {
            return Answer::Held;
        }
        let same_owner = pending.owner == Owner::Process(claim.consumer)
            || self.broken(Mutant::FenceWithoutConsumer);
        let same_count = pending.count == claim.count || self.broken(Mutant::FenceWithoutCount);
        if same_owner && same_count {
            Answer::Held
        } else {
            Answer::Fenced
        }
    }

    /// Runs a fenced script.
    pub(crate) fn run(&self, store: &mut Store, request: &Request) -> Answer {
        let claim = &request.claim;
        let (queue, id) = (claim.queue, claim.id);
        match request.call {
            Call::Bare(write) => {
                bare(store, request, write);
                return Answer::Held;
            }
            Call::Write => {
                append(store, request.entry);
                settle(store, claim, false);
                return Answer::Held;
            }
            _ => {}
        }
        match self.fence(store, request) {
            Answer::Held => {}
            answer => return answer,
        }
        let troubled = request.troubled && !self.broken(Mutant::RecordsOutlive);
        match request.call {
            Call::Mark { starts } => store.note(queue, id, |record| record.starts = Some(starts)),
            // A count other than 1 tells of a record as well.
            Call::Ack => {
                let claimed = claim.count != 1 && !self.broken(Mutant::RecordsOutlive);
                settle(store, claim, troubled || claimed);
            }
            Call::Commit { follow_up } => {
                bare(store, request, Bare::Effect);
                if let Some(event) = follow_up {
                    store.inbox.add(event, Content::Original);
                }
                settle(store, claim, troubled);
            }
            Call::DeadLetter(reason) => {
                bare(store, request, Bare::Letter(reason));
                settle(store, claim, !self.broken(Mutant::RecordsOutlive));
            }
            Call::Route => self.route(store, request),
            Call::Renew => return self.renew(store, claim),
            Call::Park(park) => return self.park(store, claim, park),
            Call::Bare(_) | Call::Write => {}
        }
        Answer::Held
    }

    /// park.lua: the entry changes hands, its delivery count stays.
    fn park(&self, store: &mut Store, claim: &Claim, park: Park) -> Answer {
        let (queue, id) = (claim.queue, claim.id);
        if store.stream(queue).get(id).is_none() {
            lose(store, queue, id);
            return Answer::Lost;
        }
        if let Some(pending) = store.group_mut(queue).pending.get_mut(&id) {
            pending.owner = park.to;
            pending.idle = park.due == Due::Now;
            if self.broken(Mutant::ParkLowersCount) {
                pending.count = 0;
            }
        }
        store.note(queue, id, |record| {
            record.due = Some(park.due);
            if !self.broken(Mutant::ParkKeepsMark) {
                record.starts = park.starts.or(record.starts);
            }
            record.failures = park.failures.unwrap_or(record.failures);
        });
        Answer::Held
    }

    fn renew(&self, store: &mut Store, claim: &Claim) -> Answer {
        if store.stream(claim.queue).get(claim.id).is_none() {
            lose(store, claim.queue, claim.id);
            return Answer::Lost;
        }
        if let Some(pending) = store.group_mut(claim.queue).pending.get_mut(&claim.id) {
            pending.idle = false;
            if self.broken(Mutant::RenewalCounts) {
                pending.count += 1;
            }
        }
        Answer::Held
    }

    /// route.lua: each entry ends in one place and leaves the inbox in the same step.
    fn route(&self, store: &mut Store, request: &Request) {
        let (event, content) = (request.entry.event, request.entry.content);
        let refuse = |store: &mut Store, reason| {
            write_letter(store, None, event, reason);
            store.stats.refused += 1;
        };
        match store.seen.get(&event).copied() {
            _ if content == Content::Invalid => refuse(store, Reason::Refused),
            Some(seen) if seen == content => store.stats.duplicates += 1,
            Some(_) if self.broken(Mutant::ConflictUnrecorded) => {}
            Some(_) => refuse(store, Reason::Conflict),
            None => {
                append(store, request.entry);
                if self.broken(Mutant::NoDedupeMark) {
                    store.seen.remove(&event);
                }
            }
        }
        let troubled = request.claim.count != 1;
        settle(store, &request.claim, troubled);
    }
}

/// What a transaction watches, as far as the protocol rests on it. (The streams that are appended
/// to are watched as well.)
type Watched<'a> = (
    Option<&'a BTreeMap<Id, Record>>,
    Option<&'a BTreeMap<Event, Content>>,
);

impl Scripts {
    /// check_route.lua: whether a fresh delivery may be written as it is.
    pub(crate) fn is_clean(&self, store: &Store, request: &Request) -> bool {
        let (claim, entry) = (&request.claim, &request.entry);
        // Which the router knows without asking.
        let ordinary = claim.count == 1 && entry.content != Content::Invalid;
        if !ordinary || self.broken(Mutant::Unchecked) {
            return ordinary;
        }
        let group = store.group(claim.queue);
        let mut holders = group.pending.values().map(|pending| pending.owner);
        let holds_all = group.attempts.is_empty()
            && holders.all(|owner| owner == Owner::Process(claim.consumer));
        let oldest = group.pending.keys().next() == Some(&claim.id);
        let head = store.inbox.entries.first().map(|first| first.id) == Some(claim.id);
        let seen = store.seen.contains_key(&entry.event) && !self.broken(Mutant::SeenUnchecked);
        holds_all && oldest && head && !seen
    }

    /// Whether a step ends the transactions that were begun before it.
    pub(crate) fn disturbs(&self, before: &Store, after: &Store) -> bool {
        self.watched(before) != self.watched(after)
    }

    fn watched<'a>(&self, store: &'a Store) -> Watched<'a> {
        let attempts = &store.group(Queue::Inbox).attempts;
        let attempts = (!self.broken(Mutant::AttemptsUnwatched)).then_some(attempts);
        (
            attempts,
            (!self.broken(Mutant::SeenUnwatched)).then_some(&store.seen),
        )
    }
}

/// Appended, counted and marked.
fn append(store: &mut Store, entry: Entry) {
    store.domain.add(entry.event, entry.content);
    store.stats.routed += 1;
    store.seen.insert(entry.event, entry.content);
}

/// XACK, and XDEL where the stream keeps no history.
fn settle(store: &mut Store, claim: &Claim, troubled: bool) {
    let group = store.group_mut(claim.queue);
    if troubled {
        group.attempts.remove(&claim.id);
    }
    group.pending.remove(&claim.id);
    if !matches!(claim.queue, Queue::Domain(_)) {
        store.stream_mut(claim.queue).delete(claim.id);
    }
}

/// An entry was deleted under us: Redis drops it from the pending list.
pub(crate) fn lose(store: &mut Store, queue: Queue, id: Id) {
    store.group_mut(queue).attempts.remove(&id);
    store.group_mut(queue).pending.remove(&id);
    store.stats.lost += 1;
}

fn write_letter(store: &mut Store, of: Option<Subscriber>, event: Event, reason: Reason) {
    store.letters_written += 1;
    let id = store.letters_written;
    store.letters.push(Letter {
        id,
        of,
        event,
        reason,
    });
}

fn bare(store: &mut Store, request: &Request, write: Bare) {
    let (queue, id) = (request.claim.queue, request.claim.id);
    let (Queue::Domain(subscriber) | Queue::Redrive(subscriber)) = queue else {
        return;
    };
    match write {
        Bare::Effect => {
            *store
                .effects
                .entry((subscriber, request.entry.event))
                .or_default() += 1
        }
        Bare::Letter(reason) => write_letter(store, Some(subscriber), request.entry.event, reason),
        Bare::Log(failures) => store.note(queue, id, |record| record.failures = failures),
        Bare::FollowUp(event) => store.inbox.add(event, Content::Original),
    }
}
