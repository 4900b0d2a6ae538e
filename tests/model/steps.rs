//! What can happen next.

use super::mutants::Mutant;
use super::process::{Delivery, Outcome, Process, Step};
use super::scripts::{Call, Claim};
use super::store::{Id, Owner, Pending, Queue};
use super::system::{Action, Fate, Fault, State, System};

impl System {
    /// All steps that are possible now.
    pub(crate) fn possible(&self, state: &State, actions: &mut Vec<Action>) {
        if usize::from(state.published) < self.bounds.published.len() {
            actions.push(Action::Publish);
        }
        for process in &state.processes {
            match &process.holds {
                None => self.idle_process(state, process, actions),
                Some(held) => self.busy_process(state, held, actions),
            }
            self.take_overs(state, process, actions);
            let owns = |queue: &Queue| state.store.owns(*queue, process.consumer);
            let something = self.bounds.queues(process.consumer.name).iter().any(owns);
            if something && self.may(state, Fault::Departure) {
                actions.push(Action::Depart(process.consumer));
            }
        }
        actions.extend((0..state.late.len()).map(Action::Arrive));
        if state.redriven < self.bounds.redrives {
            let of_subscribers = state
                .store
                .letters
                .iter()
                .filter(|letter| letter.of.is_some());
            actions.extend(of_subscribers.map(|letter| Action::Redrive(letter.id)));
        }
        if self.bounds.trims {
            actions.extend((1..=state.store.domain.last).map(|id| Action::Trim(id + 1)));
        }
    }

    /// Whether the bounds allow this fault once more.
    fn may(&self, state: &State, fault: Fault) -> bool {
        let b = &self.bounds;
        let limit = match fault {
            Fault::Crash => b.crashes,
            Fault::LostAnswer => b.lost_answers,
            Fault::LateRequest => b.late_requests,
            Fault::Freeze => b.freezes,
            Fault::Namesake => b.namesakes,
            Fault::Interruption => b.interruptions,
            Fault::Departure => b.departures,
        };
        state.used(fault) < limit && state.faults.iter().sum::<u8>() < b.faults
    }

    /// What may be reclaimed: the parked (they may be due at any moment), and what nobody renews.
    fn claimable(&self, state: &State, queue: Queue) -> Vec<Id> {
        let pending = state.store.group(queue).pending.iter();
        let claimable = pending.filter(|(id, pending)| {
            let parked = !matches!(pending.owner, Owner::Process(_));
            match self.scripts.mutant {
                Some(Mutant::ReclaimsTheLiving) => true,
                Some(Mutant::ReclaimsOnlyTheParked) => parked,
                _ => !state.is_renewed(queue, **id, pending),
            }
        });
        claimable.map(|(id, _)| *id).collect()
    }

    fn idle_process(&self, state: &State, process: &Process, actions: &mut Vec<Action>) {
        let me = process.consumer;
        let lossy = self.may(state, Fault::LostAnswer);
        let fates = [Fate::Answered, Fate::AnswerLost];
        let fates = if lossy { &fates[..] } else { &fates[..1] };
        for queue in self.bounds.queues(me.name) {
            for &fate in fates {
                if state.store.undelivered(queue).is_some() {
                    actions.push(Action::Read(me, queue, fate));
                }
                for id in self.claimable(state, queue) {
                    actions.push(Action::Reclaim(me, queue, id, fate));
                }
            }
        }
    }

    fn busy_process(&self, state: &State, held: &Delivery, actions: &mut Vec<Action>) {
        let Claim {
            queue,
            id,
            consumer: me,
            ..
        } = *held.claim();
        match held.step {
            Step::Running => {
                actions.push(Action::Handle(me, Outcome::Done));
                if self.bounds.handlers_fail {
                    actions.push(Action::Handle(me, Outcome::Failed));
                }
                if self.bounds.handlers_reject {
                    actions.push(Action::Handle(me, Outcome::Rejected));
                }
                if self.may(state, Fault::Interruption) {
                    actions.push(Action::Handle(me, Outcome::Unavailable));
                    actions.push(Action::Handle(me, Outcome::Interrupted));
                }
            }
            Step::Sending(call, _) => {
                if call == Call::Route && self.scripts.is_clean(&state.store, &held.asking(call)) {
                    actions.push(Action::Check(me));
                }
                actions.push(Action::Send(me, Fate::Answered));
                if self.may(state, Fault::LostAnswer) {
                    actions.push(Action::Send(me, Fate::AnswerLost));
                }
                if self.may(state, Fault::LateRequest) {
                    actions.push(Action::Send(me, Fate::Late));
                }
            }
        }
        let current = state.is_current(held.claim());
        let idle = current && state.store.pending(queue, id).is_some_and(|p| p.idle);
        let robbed = !current && held.step == Step::Running;
        // A router has nothing to renew.
        if queue != Queue::Inbox && (idle || robbed || self.scripts.broken(Mutant::RenewalCounts)) {
            actions.push(Action::Renew(me));
        }
        if current && !idle && self.may(state, Fault::Freeze) {
            actions.push(Action::Freeze(queue, id));
        }
        if self.may(state, Fault::Crash) {
            actions.push(Action::Crash(me));
        }
    }

    /// A restarted process takes over from its earlier lives; a namesake takes over from one
    /// that lives.
    fn take_overs(&self, state: &State, process: &Process, actions: &mut Vec<Action>) {
        let me = process.consumer;
        for queue in self.bounds.queues(me.name) {
            let mut owners: Vec<_> = state.store.group(queue).pending.values().collect();
            owners.sort_unstable_by_key(|pending| pending.owner);
            owners.dedup_by_key(|pending| pending.owner);
            for pending in owners {
                let Owner::Process(of) = pending.owner else {
                    continue;
                };
                let predecessor = of.name == me.name && of.life < me.life;
                // A router recovers by taking over from itself. It holds nothing then, unless the
                // request was late.
                let itself = of == me && queue == Queue::Inbox;
                let itself =
                    itself && (process.holds.is_none() || self.may(state, Fault::LateRequest));
                let living = of != me && state.alive(of).is_some();
                if predecessor || itself || (living && self.may(state, Fault::Namesake)) {
                    actions.push(Action::TakeOver(me, queue, of));
                }
            }
        }
    }
}

impl State {
    /// Whether this pending entry is in the hands of a living process that knows of it, and
    /// therefore renews it.
    fn is_renewed(&self, queue: Queue, id: Id, pending: &Pending) -> bool {
        let Owner::Process(owner) = pending.owner else {
            return false;
        };
        let holds = self.alive(owner).and_then(|process| process.holds);
        !pending.idle && holds.is_some_and(|d| (d.claim().queue, d.claim().id) == (queue, id))
    }
}
