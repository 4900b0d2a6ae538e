//! The Lua scripts of src/store/lua, one function each, as built. Each is atomic: it checks its
//! fence first and writes last. `Scripts::broken` is how a mutant departs from that.

use super::mutants::Mutant;
use super::redis::{Consumer, Content, Due, Entry, Event, Id, Letter, Owner, Pending};
use super::redis::{Queue, Reason, Record, Store, Subscriber};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handed {
    pub(crate) claim: Claim,
    pub(crate) entry: Entry,
    pub(crate) failures: u8,
    /// `None` unless it lost its worker; then its starts without an outcome.
    pub(crate) starts: Option<u8>,
    /// It came from reclaiming, not from reading.
    pub(crate) again: bool,
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
    /// park.lua: to `retry` or `released`.
    Park {
        to: Owner,
        /// The log, if it is written.
        failures: Option<u8>,
        /// Whether this failure is charged (of which the script knows nothing).
        charged: bool,
        starts: Option<u8>,
        due: Due,
    },
    /// dead_letter.lua
    DeadLetter(Reason),
    /// route.lua, for one entry.
    Route,
    /// renew.lua
    Renew,
    /// The second half of what only mutants do in two steps: a write without a fence.
    Bare(Bare),
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
    pub(crate) event: Event,
    pub(crate) content: Content,
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
    fn fence(&self, store: &Store, claim: &Claim) -> Answer {
        if self.broken(Mutant::NoFence) {
            return Answer::Held;
        }
        let Some(pending) = store.pending(claim.queue, claim.id) else {
            return Answer::Gone;
        };
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
        if let Call::Bare(write) = request.call {
            bare(store, request, write);
            return Answer::Held;
        }
        match self.fence(store, claim) {
            Answer::Held => {}
            answer => return answer,
        }
        match request.call {
            Call::Mark { starts } => store.note(queue, id, |record| record.starts = Some(starts)),
            Call::Ack => settle(store, claim, request.troubled),
            Call::Commit { follow_up } => {
                bare(store, request, Bare::Effect);
                if let Some(event) = follow_up {
                    store.inbox.add(event, Content::Original);
                }
                settle(store, claim, request.troubled);
            }
            Call::DeadLetter(reason) => {
                bare(store, request, Bare::Letter(reason));
                settle(store, claim, true);
            }
            Call::Route => self.route(store, request),
            Call::Renew => return self.renew(store, claim),
            Call::Park { .. } => return self.park(store, request),
            Call::Bare(_) => {}
        }
        Answer::Held
    }

    /// park.lua: the entry changes hands, its delivery count stays.
    fn park(&self, store: &mut Store, request: &Request) -> Answer {
        let (queue, id) = (request.claim.queue, request.claim.id);
        let Call::Park {
            to,
            failures,
            starts,
            due,
            ..
        } = request.call
        else {
            return Answer::Held;
        };
        if store.stream(queue).get(id).is_none() {
            lose(store, queue, id);
            return Answer::Lost;
        }
        if let Some(pending) = store.group_mut(queue).pending.get_mut(&id) {
            pending.owner = to;
            pending.idle = due == Due::Now;
            if self.broken(Mutant::ParkLowersCount) {
                pending.count = 0;
            }
        }
        store.note(queue, id, |record| {
            record.due = Some(due);
            record.starts = starts.or(record.starts);
            record.failures = failures.unwrap_or(record.failures);
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
        let (event, content) = (request.event, request.content);
        let refuse = |store: &mut Store, reason| {
            write_letter(store, None, event, reason);
            store.stats.refused += 1;
        };
        match store.seen.get(&event).copied() {
            _ if content == Content::Invalid => refuse(store, Reason::Refused),
            Some(seen) if seen == content => store.stats.duplicates += 1,
            Some(_) => refuse(store, Reason::Conflict),
            None => {
                store.domain.add(event, content);
                store.stats.routed += 1;
                if !self.broken(Mutant::NoDedupeMark) {
                    store.seen.insert(event, content);
                }
            }
        }
        let troubled = request.claim.count != 1;
        settle(store, &request.claim, troubled);
    }

    /// XREADGROUP `>`, for one entry.
    pub(crate) fn read(&self, store: &mut Store, queue: Queue, by: Consumer) -> Option<Handed> {
        let entry = store.undelivered(queue)?;
        let group = store.group_mut(queue);
        group.last = entry.id;
        let (owner, count, serial) = (Owner::Process(by), 1, 1);
        let pending = Pending {
            owner,
            count,
            idle: false,
            serial,
        };
        group.pending.insert(entry.id, pending);
        let claim = Claim {
            queue,
            id: entry.id,
            consumer: by,
            count,
            serial,
        };
        let handed = Handed {
            claim,
            entry,
            failures: 0,
            starts: None,
            again: false,
        };
        Some(handed)
    }

    /// reclaim.lua, for one entry that is idle beyond the lease. `None`: it was not due yet and
    /// is parked again, or it was deleted.
    pub(crate) fn reclaim(
        &self,
        store: &mut Store,
        queue: Queue,
        id: Id,
        by: Consumer,
    ) -> Option<Handed> {
        let Some(entry) = store.stream(queue).get(id) else {
            lose(store, queue, id);
            return None;
        };
        let group = store.group_mut(queue);
        let record = group.attempts.get(&id).copied().unwrap_or_default();
        let pending = group.pending.get_mut(&id)?;
        let parked = !matches!(pending.owner, Owner::Process(_));
        pending.count += 1;
        pending.serial += 1;
        pending.idle = false;
        if parked && record.due == Some(Due::FarAway) {
            return None;
        }
        pending.owner = Owner::Process(by);
        let (count, serial) = (pending.count, pending.serial);
        store.note(queue, id, |record| record.due = None);
        let claim = Claim {
            queue,
            id,
            consumer: by,
            count,
            serial,
        };
        // Parked deliveries have a recorded outcome; any other lost its worker.
        let starts = record.starts.or(if parked { None } else { Some(0) });
        let Record { failures, .. } = record;
        let handed = Handed {
            claim,
            entry,
            failures,
            starts,
            again: true,
        };
        Some(handed)
    }

    /// take_over.lua: all of a predecessor's deliveries go to `released`, their counts kept.
    pub(crate) fn take_over(&self, store: &mut Store, queue: Queue, of: Consumer) {
        for id in owned(store, queue, of) {
            if store.stream(queue).get(id).is_none() {
                lose(store, queue, id);
                continue;
            }
            if let Some(pending) = store.group_mut(queue).pending.get_mut(&id) {
                pending.owner = Owner::Released;
                pending.idle = true;
            }
            store.note(queue, id, |record| {
                record.starts = record.starts.or(Some(0));
                record.due = None;
            });
        }
    }

    /// drop_consumer.lua: deleting a consumer would drop its deliveries, so it must own none.
    pub(crate) fn drop_consumer(&self, store: &mut Store, queue: Queue, of: Consumer) {
        if self.broken(Mutant::DropConsumerThatOwes) {
            for id in owned(store, queue, of) {
                store.group_mut(queue).pending.remove(&id);
            }
        }
    }

    /// redrive.lua: a letter leaves its stream and enters the other, or neither.
    pub(crate) fn redrive(&self, store: &mut Store, letter: Id) -> bool {
        let Some(at) = store.letters.iter().position(|l| l.id == letter) else {
            return false;
        };
        let Letter { of, event, .. } = store.letters[at];
        let target = of.map_or(Queue::Inbox, Queue::Redrive);
        store.stream_mut(target).add(event, Content::Original);
        if !self.broken(Mutant::RedriveKeepsLetter) {
            store.letters.remove(at);
        }
        true
    }

    /// trim.lua on the domain stream: the newer of what `maxlen` and `oldest` ask, but nothing
    /// that a group has yet to settle.
    pub(crate) fn trim(&self, store: &mut Store, maxlen: Option<usize>, oldest: Option<Id>) {
        let entries = &store.domain.entries;
        let excess = maxlen.map_or(0, |max| entries.len().saturating_sub(max));
        let by_length = (excess > 0).then(|| entries.get(excess).map_or(u8::MAX, |e| e.id));
        let Some(cut) = oldest.max(by_length) else {
            return;
        };
        let domain = |(queue, _): &(&Queue, _)| matches!(queue, Queue::Domain(_));
        let needs = store.groups.iter().filter(domain).map(|(_, group)| {
            let first_pending = group.pending.keys().next().copied();
            match first_pending {
                _ if self.broken(Mutant::TrimIgnoresUndelivered) => first_pending.unwrap_or(cut),
                Some(id) if !self.broken(Mutant::TrimIgnoresPending) => id,
                _ => group.last + 1,
            }
        });
        let floor = needs.min().unwrap_or(cut);
        store
            .domain
            .entries
            .retain(|entry| entry.id >= cut.min(floor));
    }
}

fn owned(store: &Store, queue: Queue, by: Consumer) -> Vec<Id> {
    let pending = store.group(queue).pending.iter();
    let owned = pending.filter(|(_, pending)| pending.owner == Owner::Process(by));
    owned.map(|(id, _)| *id).collect()
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
fn lose(store: &mut Store, queue: Queue, id: Id) {
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
                .entry((subscriber, request.event))
                .or_default() += 1
        }
        Bare::Letter(reason) => write_letter(store, Some(subscriber), request.event, reason),
        Bare::Log(failures) => store.note(queue, id, |record| record.failures = failures),
        Bare::FollowUp(event) => store.inbox.add(event, Content::Original),
    }
}
