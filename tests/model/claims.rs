//! The scripts that hand deliveries out and bring them back, move letters, and trim: as built,
//! each atomic, none of them behind a fence.

use super::mutants::Mutant;
use super::scripts::{Claim, Handed, Scripts, lose};
use super::store::{Consumer, Content, Due, Id, Letter, Owner, Pending, Queue, Store};

impl Scripts {
    /// XREADGROUP `>`, for one entry.
    pub(crate) fn read(&self, store: &mut Store, queue: Queue, by: Consumer) -> Option<Handed> {
        let entry = store.undelivered(queue)?;
        let group = store.group_mut(queue);
        group.last = entry.id;
        let (count, serial, idle) = (1, 1, false);
        let owner = Owner::Process(by);
        group.pending.insert(
            entry.id,
            Pending {
                owner,
                count,
                idle,
                serial,
            },
        );
        let claim = Claim {
            queue,
            id: entry.id,
            consumer: by,
            count,
            serial,
        };
        Some(Handed {
            claim,
            entry,
            failures: 0,
            starts: None,
        })
    }

    /// The probe of reclaim.lua: what is idle beyond the lease, oldest first; of the parked alone
    /// in the time after an outage, when the living could not renew.
    pub(crate) fn due(&self, store: &Store, queue: Queue, parked_only: bool) -> Vec<Id> {
        let held_by = |wanted: &dyn Fn(Owner) -> bool| -> Vec<Id> {
            let pending = store.group(queue).pending.iter();
            let due = pending.filter(|(_, pending)| pending.idle && wanted(pending.owner));
            due.map(|(id, _)| *id).collect()
        };
        if !parked_only {
            return held_by(&|_| true);
        }
        let retries = held_by(&|owner| owner == Owner::Retry);
        if retries.is_empty() {
            return held_by(&|owner| owner == Owner::Released);
        }
        retries
    }

    /// The rest of reclaim.lua, for one such entry. `None`: it was not due yet and is parked
    /// again, or it was deleted.
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
        if parked && record.due == Some(Due::FarAway) {
            pending.idle = false;
            return None;
        }
        if !self.broken(Mutant::ReclaimKeepsCount) {
            pending.count += 1;
        }
        pending.serial += 1;
        pending.idle = false;
        pending.owner = Owner::Process(by);
        let (count, serial) = (pending.count, pending.serial);
        store.note(queue, id, |record| {
            record.due = None;
            record.claimed = true;
        });
        let claim = Claim {
            queue,
            id,
            consumer: by,
            count,
            serial,
        };
        // Parked deliveries have a recorded outcome; any other lost its worker.
        let lost = if parked { None } else { Some(0) };
        let (failures, starts) = (record.failures, record.starts.or(lost));
        Some(Handed {
            claim,
            entry,
            failures,
            starts,
        })
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
                if !self.broken(Mutant::TakeOverForgetsLoss) {
                    record.starts = record.starts.or(Some(0));
                }
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
        let by_length = (excess > 0).then(|| {
            entries
                .get(excess.min(entries.len() - 1))
                .map_or(0, |e| e.id)
        });
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
