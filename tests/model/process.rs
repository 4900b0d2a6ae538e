//! What a worker or a router does with the delivery in its hands: pure decisions, as in
//! src/worker/execute.rs and src/worker/delivery.rs. A process has one slot.

use super::bounds::Bounds;
use super::mutants::Mutant;
use super::scripts::{Answer, Bare, Call, Claim, Handed, Request, Scripts};
use super::store::{Consumer, Content, Due, Event, Owner, Queue, Reason};

/// A process; a crash ends one life and starts the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub(crate) consumer: Consumer,
    pub(crate) holds: Option<Delivery>,
}

/// One entry in a process' hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Delivery {
    pub(crate) claim: Claim,
    pub(crate) event: Event,
    pub(crate) content: Content,
    pub(crate) failures: u8,
    pub(crate) starts: Option<u8>,
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
        let Handed {
            claim,
            entry,
            failures,
            starts,
            again,
        } = handed;
        let (step, troubled) = match (claim.queue, starts) {
            (Queue::Inbox, _) => (Step::Sending(Call::Route, None), false),
            (Queue::Domain(me), _) if !bounds.is_for(entry.event, me) => {
                (Step::Sending(Call::Ack, None), again)
            }
            (_, Some(2..)) => (sending(Call::DeadLetter(Reason::Crashed), scripts), true),
            (_, Some(_)) if scripts.broken(Mutant::StartsUnmarked) => (Step::Running, true),
            (_, Some(n)) => (sending(Call::Mark { starts: n + 1 }, scripts), true),
            (_, None) => (Step::Running, failures > 0),
        };
        let (event, content) = (entry.event, entry.content);
        Self {
            claim,
            event,
            content,
            failures,
            starts,
            troubled,
            step,
        }
    }

    /// What the end of the handler calls for.
    pub(crate) fn finish(mut self, outcome: Outcome, bounds: &Bounds, scripts: &Scripts) -> Self {
        let failures = self.failures + 1;
        let log = (self.failures > 0).then_some(self.failures);
        let call = match outcome {
            Outcome::Done => Call::Commit {
                follow_up: self.follow_up(bounds),
            },
            Outcome::Failed if failures < bounds.max_attempts => self.park(Some(failures), true),
            Outcome::Failed => Call::DeadLetter(Reason::Exhausted),
            Outcome::Rejected => Call::DeadLetter(Reason::Rejected),
            Outcome::Unavailable => self.park(log, false),
            Outcome::Interrupted => Call::Park {
                to: Owner::Released,
                failures: None,
                charged: false,
                starts: self.starts,
                due: Due::Now,
            },
        };
        self.step = sending(call, scripts);
        self
    }

    fn park(&self, failures: Option<u8>, charged: bool) -> Call {
        // This start had an outcome: the marks are again those of before.
        let (to, starts, due) = (Owner::Retry, self.starts, Due::Now);
        Call::Park {
            to,
            failures,
            charged,
            starts,
            due,
        }
    }

    fn follow_up(&self, bounds: &Bounds) -> Option<Event> {
        let (Queue::Domain(me) | Queue::Redrive(me)) = self.claim.queue else {
            return None;
        };
        bounds.follow_up(self.event, me)
    }

    /// The script that it sends.
    pub(crate) fn request(&self) -> Option<Request> {
        let Step::Sending(call, _) = self.step else {
            return None;
        };
        let Self {
            claim,
            event,
            content,
            troubled,
            ..
        } = *self;
        Some(Request {
            claim,
            event,
            content,
            troubled,
            call,
        })
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
        Call::Park {
            to,
            failures: Some(n),
            charged: true,
            starts,
            due,
        } => {
            let unrecorded = Call::Park {
                to,
                failures: None,
                charged: true,
                starts,
                due,
            };
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
