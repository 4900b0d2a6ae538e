//! How far the model looks: a scenario is what happens, and how much may go wrong in it. Every
//! scenario is explored to its end.

use serde_json::{Value, json};

use super::store::{Content, Event, Queue, Subscriber};

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Router,
    Worker(Subscriber),
}

/// What happens, and the most that may go wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) name: &'static str,
    /// What producers send, in this order: twice the same is a producer that lost its answer.
    pub(crate) published: &'static [(Event, Content)],
    /// Per event the subscribers that it is for.
    pub(crate) events: &'static [&'static [Subscriber]],
    /// Whether event 0, committed by subscriber 0, has the last event as its follow-up.
    pub(crate) follow_up: bool,
    pub(crate) processes: &'static [Role],
    pub(crate) subscribers: Subscriber,
    pub(crate) max_attempts: u8,
    pub(crate) handlers_fail: bool,
    pub(crate) handlers_reject: bool,
    pub(crate) redrives: u8,
    pub(crate) trims: bool,
    /// Faults of all kinds together.
    pub(crate) faults: u8,
    /// kill -9 while it holds something.
    pub(crate) crashes: u8,
    /// Answers that never arrive: what was asked for happened all the same.
    pub(crate) lost_answers: u8,
    /// Requests given up by their sender, which Redis runs at any later time, or never.
    pub(crate) late_requests: u8,
    /// Deliveries of living processes without a sign of life for a lease.
    pub(crate) freezes: u8,
    /// Processes started under the name of another that lives.
    pub(crate) namesakes: u8,
    /// Handlers that find what they need away, and processes told to stop in mid-work.
    pub(crate) interruptions: u8,
    /// Processes that leave whatever they hold.
    pub(crate) departures: u8,
}

const fn quiet(name: &'static str) -> Bounds {
    Bounds {
        name,
        published: &[(0, Content::Original)],
        events: &[&[0]],
        follow_up: false,
        processes: &[Role::Router, Role::Worker(0), Role::Worker(0)],
        subscribers: 1,
        max_attempts: 2,
        handlers_fail: false,
        handlers_reject: false,
        redrives: 0,
        trims: false,
        faults: 0,
        crashes: 0,
        lost_answers: 0,
        late_requests: 0,
        freezes: 0,
        namesakes: 0,
        interruptions: 0,
        departures: 0,
    }
}

pub(crate) const fn any(faults: u8, of: Bounds) -> Bounds {
    Bounds {
        faults,
        crashes: faults,
        lost_answers: faults,
        late_requests: faults,
        freezes: faults,
        namesakes: faults,
        interruptions: faults,
        departures: faults,
        ..of
    }
}

/// One event and two workers, whatever befalls them.
pub(crate) const DELIVERY: Bounds = Bounds {
    handlers_fail: true,
    ..quiet("delivery")
};
/// Copies of one event, and one that is refused, through two routers.
pub(crate) const DOOR: Bounds = Bounds {
    published: &[
        (0, Content::Original),
        (0, Content::Original),
        (0, Content::Altered),
        (1, Content::Invalid),
    ],
    events: &[&[0], &[0]],
    processes: &[Role::Router, Role::Router, Role::Worker(0)],
    ..quiet("door")
};
/// Two events, two subscribers of which one is for both, and history that is trimmed.
pub(crate) const TRIMMING: Bounds = Bounds {
    published: &[(0, Content::Original), (1, Content::Original)],
    events: &[&[0, 1], &[1]],
    processes: &[Role::Router, Role::Worker(0), Role::Worker(1)],
    subscribers: 2,
    max_attempts: 1,
    trims: true,
    ..quiet("trimming")
};
/// A dead letter sent back.
pub(crate) const REDRIVING: Bounds = Bounds {
    processes: &[Role::Router, Role::Worker(0)],
    handlers_fail: true,
    handlers_reject: true,
    redrives: 1,
    ..quiet("redriving")
};
/// A commit that publishes a follow-up for another subscriber.
pub(crate) const FOLLOWING_UP: Bounds = Bounds {
    events: &[&[0], &[1]],
    follow_up: true,
    processes: &[Role::Router, Role::Worker(0), Role::Worker(1)],
    subscribers: 2,
    ..quiet("following up")
};
/// An event that kills whoever runs it, for ever.
pub(crate) const POISONOUS: Bounds = Bounds {
    faults: 4,
    crashes: 4,
    interruptions: 1,
    handlers_fail: true,
    ..quiet("poison")
};

/// Small enough for every change.
const SMALL: [Bounds; 6] = [
    any(2, DELIVERY),
    any(1, DOOR),
    any(1, TRIMMING),
    any(2, REDRIVING),
    any(2, FOLLOWING_UP),
    POISONOUS,
];
/// As far as patience reaches.
const LARGE: [Bounds; 6] = [
    any(3, failing(3, DELIVERY)),
    any(2, DOOR),
    any(2, failing(2, TRIMMING)),
    any(3, REDRIVING),
    any(3, failing(2, FOLLOWING_UP)),
    Bounds {
        faults: 5,
        crashes: 5,
        lost_answers: 1,
        ..POISONOUS
    },
];

const fn failing(max_attempts: u8, of: Bounds) -> Bounds {
    Bounds {
        max_attempts,
        handlers_fail: true,
        ..of
    }
}

/// What is explored.
pub(crate) fn scenarios() -> &'static [Bounds] {
    if is_large() { &LARGE } else { &SMALL }
}

/// Whether the large bounds were asked for.
pub(crate) fn is_large() -> bool {
    std::env::var("STREAMFLEET_MODEL").is_ok_and(|size| size == "large")
}

impl Bounds {
    pub(crate) fn is_for(&self, event: Event, subscriber: Subscriber) -> bool {
        self.events[usize::from(event)].contains(&subscriber)
    }

    /// The event that a commit publishes.
    pub(crate) fn follow_up(&self, event: Event, subscriber: Subscriber) -> Option<Event> {
        let parent = self.follow_up && event == 0 && subscriber == 0;
        parent.then_some(self.events.len() as Event - 1)
    }

    /// The streams that a process reads.
    pub(crate) fn queues(&self, name: u8) -> Vec<Queue> {
        match self.processes[usize::from(name)] {
            Role::Router => vec![Queue::Inbox],
            Role::Worker(s) => vec![Queue::Domain(s), Queue::Redrive(s)],
        }
    }

    /// For the report.
    pub(crate) fn describe(&self) -> Value {
        json!({
            "name": self.name,
            "published": self.published.len(),
            "processes": self.processes.len(),
            "subscribers": self.subscribers,
            "max_attempts": self.max_attempts,
            "redrives": self.redrives,
            "faults": self.faults,
            "crashes": self.crashes,
            "lost_answers": self.lost_answers,
            "late_requests": self.late_requests,
            "freezes": self.freezes,
            "namesakes": self.namesakes,
            "interruptions": self.interruptions,
            "departures": self.departures,
        })
    }
}
