//! What Redis holds, as far as the protocol depends on it: streams, the pending lists of their
//! groups, and the few hashes beside them. Time is not here: an entry is `idle` once its holder
//! gave no sign of life for a lease.

use std::collections::BTreeMap;

/// ID of an entry within its stream, from 1.
pub(crate) type Id = u8;
/// ID of an event.
pub(crate) type Event = u8;
/// A subscriber: its group has the same name.
pub(crate) type Subscriber = u8;

/// A stream as one group sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Queue {
    /// The inbox, read by the routers.
    Inbox,
    /// The domain stream, read by a subscriber.
    Domain(Subscriber),
    /// `redrive:<subscriber>`, read by that subscriber alone.
    Redrive(Subscriber),
}

/// `<name>.<nonce>`: a process, and which of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Consumer {
    pub(crate) name: u8,
    pub(crate) life: u8,
}

/// Who has a pending entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Owner {
    /// The reserved consumer of what waits for its next attempt.
    Retry,
    /// The reserved consumer of what was given back unstarted.
    Released,
    /// A process, dead or alive.
    Process(Consumer),
}

/// What an event says. A second copy of an event should say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Content {
    Original,
    /// The same event ID with other data.
    Altered,
    /// What the router refuses.
    Invalid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) id: Id,
    pub(crate) event: Event,
    pub(crate) content: Content,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Stream {
    pub(crate) entries: Vec<Entry>,
    /// The newest ID ever given.
    pub(crate) last: Id,
}

/// A row of XPENDING.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pending {
    pub(crate) owner: Owner,
    /// Redis' delivery count.
    pub(crate) count: u8,
    pub(crate) idle: bool,
    /// Which handing out this is. Redis does not keep it: it is what the delivery count must
    /// stand for, so that a broken count shows.
    pub(crate) serial: u8,
}

/// What `attempts:<stream>:<subscriber>` says of one delivery; one that says nothing is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Record {
    /// Length of the log of charged attempts.
    pub(crate) failures: u8,
    /// Starts without an outcome, once it lost its worker.
    pub(crate) starts: Option<u8>,
    /// Parked: until now, or until far away.
    pub(crate) due: Option<Due>,
    /// It was reclaimed at some time.
    pub(crate) claimed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Due {
    Now,
    FarAway,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Group {
    /// The last entry delivered.
    pub(crate) last: Id,
    pub(crate) pending: BTreeMap<Id, Pending>,
    pub(crate) attempts: BTreeMap<Id, Record>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Reason {
    Exhausted,
    Rejected,
    Crashed,
    /// Refused by the router.
    Refused,
    /// Refused by the router: the event ID was seen with other content.
    Conflict,
}

/// A dead letter: of a subscriber, or of the router (`None`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Letter {
    pub(crate) id: Id,
    pub(crate) of: Option<Subscriber>,
    pub(crate) event: Event,
    pub(crate) reason: Reason,
}

/// `stats:router`, and `lost` of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Stats {
    pub(crate) routed: u8,
    pub(crate) duplicates: u8,
    pub(crate) refused: u8,
    pub(crate) lost: u8,
}

/// Everything in Redis.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Store {
    pub(crate) inbox: Stream,
    pub(crate) domain: Stream,
    pub(crate) redrive: Vec<Stream>,
    pub(crate) groups: BTreeMap<Queue, Group>,
    /// The dedupe window.
    pub(crate) seen: BTreeMap<Event, Content>,
    pub(crate) letters: Vec<Letter>,
    pub(crate) letters_written: Id,
    pub(crate) stats: Stats,
    /// How often the effects of each event happened for each subscriber.
    pub(crate) effects: BTreeMap<(Subscriber, Event), u8>,
}

impl Stream {
    /// XADD with `*`.
    pub(crate) fn add(&mut self, event: Event, content: Content) {
        self.last += 1;
        let id = self.last;
        self.entries.push(Entry { id, event, content });
    }

    pub(crate) fn delete(&mut self, id: Id) {
        self.entries.retain(|entry| entry.id != id);
    }

    pub(crate) fn get(&self, id: Id) -> Option<Entry> {
        self.entries.iter().find(|entry| entry.id == id).copied()
    }
}

impl Store {
    /// Empty streams with a group at the beginning of each.
    pub(crate) fn new(subscribers: Subscriber) -> Self {
        let of = |s| [Queue::Domain(s), Queue::Redrive(s)];
        let queues = (0..subscribers).flat_map(of).chain([Queue::Inbox]);
        Self {
            redrive: vec![Stream::default(); usize::from(subscribers)],
            groups: queues.map(|queue| (queue, Group::default())).collect(),
            ..Self::default()
        }
    }

    pub(crate) fn stream(&self, queue: Queue) -> &Stream {
        match queue {
            Queue::Inbox => &self.inbox,
            Queue::Domain(_) => &self.domain,
            Queue::Redrive(subscriber) => &self.redrive[usize::from(subscriber)],
        }
    }

    pub(crate) fn stream_mut(&mut self, queue: Queue) -> &mut Stream {
        match queue {
            Queue::Inbox => &mut self.inbox,
            Queue::Domain(_) => &mut self.domain,
            Queue::Redrive(subscriber) => &mut self.redrive[usize::from(subscriber)],
        }
    }

    pub(crate) fn group(&self, queue: Queue) -> &Group {
        &self.groups[&queue]
    }

    pub(crate) fn group_mut(&mut self, queue: Queue) -> &mut Group {
        self.groups.entry(queue).or_default()
    }

    pub(crate) fn pending(&self, queue: Queue, id: Id) -> Option<&Pending> {
        self.group(queue).pending.get(&id)
    }

    /// Whether a consumer has pending entries.
    pub(crate) fn owns(&self, queue: Queue, by: Consumer) -> bool {
        let mut pending = self.group(queue).pending.values();
        pending.any(|pending| pending.owner == Owner::Process(by))
    }

    /// The oldest entry that was not delivered yet.
    pub(crate) fn undelivered(&self, queue: Queue) -> Option<Entry> {
        let last = self.group(queue).last;
        let entries = &self.stream(queue).entries;
        entries.iter().find(|entry| entry.id > last).copied()
    }

    /// Writes what `attempts` says of a delivery.
    pub(crate) fn note(&mut self, queue: Queue, id: Id, change: impl FnOnce(&mut Record)) {
        let attempts = &mut self.group_mut(queue).attempts;
        let mut record = attempts.get(&id).copied().unwrap_or_default();
        change(&mut record);
        if record == Record::default() {
            attempts.remove(&id);
        } else {
            attempts.insert(id, record);
        }
    }
}
