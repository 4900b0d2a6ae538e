//! What a worker or a router does with the delivery in its hands: pure decisions, as in
//! src/worker/execute.rs and src/worker/delivery.rs. A process has one slot.

use super::bounds::Bounds;
use super::mutants::Mutant;
use super::scripts::{Answer, Bare, Call, Claim, Handed, Park, Request, Scripts};
use super::store::{Consumer, Due, Event, Owner, Queue, Reason};

/// A process; a crash ends one life and starts the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub(crate) consumer: Consumer,
    pub(crate) holds: Option<Delivery>,
}

/// One entry in a process' hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Delivery {
    pub(crate) handed: Handed,
    /// Whether `attempts` has a record of it.
    pub(crate) troubled: bool,
    pub(crate) step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// The handler runs.
    Running,
    /// A script is sent until it is answered. (What comes after it, only mutants have.)
    Sending(Call, Option<Call>),
}

/// How a handler ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    Done,
    /// Charged; tried again.
    Failed,
    /// Charged; never again.
    Rejected,
    /// What it needs is away: uncharged.
    Unavailable,
    /// The process is told to stop.
    Interrupted,
}

impl Delivery {
    /// How a delivery starts: what lost its worker before is marked first, and given up when two
    /// such starts are open.
    pub(crate) fn begin(handed: Handed, bounds: &Bounds, scripts: &Scripts) -> Self {
        let claim = &handed.claim;
        let (step, troubled) = match (claim.queue, handed.starts) {
            (Queue::Inbox, _) => (Step::Sending(Call::Route, None), false),
            (Queue::Domain(me), _) if !bounds.is_for(handed.entry.event, me) => {
                (Step::Sending(Call::Ack, None), claim.count > 1)
            }
            (_, Some(2..)) => (sending(Call::DeadLetter(Reason::Crashed), scripts), true),
            (_, Some(_)) if scripts.broken(Mutant::StartsUnmarked) => (Step::Running, true),
            (_, Some(n)) => (sending(Call::Mark { starts: n + 1 }, scripts), true),
            (_, None) => (Step::Running, claim.count > 1),
        };
        Self {
            handed,
            troubled,
            step,
        }
    }

    pub(crate) fn claim(&self) -> &Claim {
        &self.handed.claim
    }

    /// What the end of the handler calls for.
    pub(crate) fn finish(mut self, outcome: Outcome, bounds: &Bounds, scripts: &Scripts) -> Self {
        let Handed {
            failures, starts, ..
        } = self.handed;
        // This start has an outcome: the marks are again those of before.
        let park = Park {
            to: Owner::Retry,
            failures: None,
            charged: false,
            starts,
            due: Due::Now,
        };
        let known = (failures > 0).then_some(failures);
        let call = match outcome {
            Outcome::Done => Call::Commit {
                follow_up: self.follow_up(bounds),
            },
            Outcome::Failed if failures + 1 < bounds.max_attempts => Call::Park(Park {
                failures: Some(failures + 1),
                charged: true,
                ..park
            }),
            Outcome::Failed => Call::DeadLetter(Reason::Exhausted),
            Outcome::Rejected => Call::DeadLetter(Reason::Rejected),
            Outcome::Unavailable => Call::Park(Park {
                failures: known,
                ..park
            }),
            Outcome::Interrupted => Call::Park(Park {
                to: Owner::Released,
                ..park
            }),
        };
        self.step = sending(call, scripts);
        self
    }

    fn follow_up(&self, bounds: &Bounds) -> Option<Event> {
        let (Queue::Domain(me) | Queue::Redrive(me)) = self.handed.claim.queue else {
            return None;
        };
        bounds.follow_up(self.handed.entry.event, me)
    }

    /// The script that it sends.
    pub(crate) fn request(&self) -> Option<Request> {
        match self.step {
            Step::Sending(call, _) => Some(self.asking(call)),
            Step::Running => None,
        }
    }

    /// A script about this delivery.
    pub(crate) fn asking(&self, call: Call) -> Request {
        let Handed { claim, entry, .. } = self.handed;
        Request {
            claim,
            entry,
            troubled: self.troubled,
            call,
        }
    }

    /// A transaction whose answer is lost, or that wrote nothing, is followed by route.lua.
    pub(crate) fn the_long_way(mut self) -> Self {
        if self.step == Step::Sending(Call::Write, None) {
            self.step = Step::Sending(Call::Route, None);
        }
        self
    }

    /// After an answer: `None`, the slot is free. Whatever the answer was, it is final: HELD is
    /// done, GONE is done by an earlier send, FENCED is another's.
    pub(crate) fn answered(mut self, answer: Answer) -> Option<Self> {
        self.step = match (self.step, answer) {
            (Step::Sending(Call::Mark { .. }, _), Answer::Held) => Step::Running,
            (Step::Sending(_, Some(next)), Answer::Held) => Step::Sending(next, None),
            _ => return None,
        };
        Some(self)
    }
}

/// One atomic script; mutants take two steps instead.
fn sending(call: Call, scripts: &Scripts) -> Step {
    let two = |mutant, first, then| scripts.broken(mutant).then_some((first, then));
    let steps = match call {
        Call::Commit { follow_up } => {
            let whole = Call::Commit { follow_up: None };
            let apart = follow_up.map(|event| Call::Bare(Bare::FollowUp(event)));
            two(Mutant::AckBeforeEffect, Call::Ack, Call::Bare(Bare::Effect))
                .or_else(|| two(Mutant::EffectBeforeAck, Call::Bare(Bare::Effect), Call::Ack))
                .or_else(|| two(Mutant::FollowUpFirst, apart?, whole))
        }
        Call::DeadLetter(reason) => {
            let letter = Call::Bare(Bare::Letter(reason));
            two(Mutant::DeadLetterInTwoSteps, letter, Call::Ack)
        }
        Call::Park(
            park @ Park {
                failures: Some(n),
                charged: true,
                ..
            },
        ) => {
            let unrecorded = Call::Park(Park {
                failures: None,
                ..park
            });
            two(
                Mutant::ChargedAfterwards,
                unrecorded,
                Call::Bare(Bare::Log(n)),
            )
        }
        _ => None,
    };
    match steps {
        Some((first, then)) => Step::Sending(first, Some(then)),
        None => Step::Sending(call, None),
    }
}
