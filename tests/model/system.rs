//! The whole: Redis, routers, workers, producers and an operator, and everything that can happen
//! next. A request is one step (only the order in which Redis runs scripts matters), with one of
//! three fates; that a process waits between two steps is any other step that comes between.

use std::collections::BTreeMap;

use stateright::{Model, Property};

use super::bounds::Bounds;
use super::invariants;
use super::mutants::Mutant;
use super::process::{Delivery, Outcome, Process, Step};
use super::redis::{Consumer, Id, Owner, Pending, Queue, Reason, Store};
use super::scripts::{Answer, Call, Claim, Handed, Request, Scripts};

/// Everything at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) store: Store,
    pub(crate) processes: Vec<Process>,
    /// Requests that their sender gave up and Redis may still run.
    pub(crate) late: Vec<Request>,
    pub(crate) published: u8,
    pub(crate) redriven: u8,
    pub(crate) faults: [u8; FAULTS],
    pub(crate) ghost: Ghost,
}

/// What no one in the system knows, for the invariants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Ghost {
    /// Charged attempts of what is pending.
    pub(crate) charged: BTreeMap<(Queue, Id), u8>,
    pub(crate) overcharged: bool,
    /// Processes that died while they ran what is pending.
    pub(crate) killed: BTreeMap<(Queue, Id), u8>,
    /// A script of a delivery that was no longer its sender's has written something.
    pub(crate) stale_write: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    Crash,
    LostAnswer,
    LateRequest,
    Freeze,
    Namesake,
    Interruption,
    Departure,
}
const FAULTS: usize = 7;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fate {
    Answered,
    /// Redis runs it; the sender never learns, and sends again.
    AnswerLost,
    /// The sender gives up and sends again; Redis may run the first copy at any later time.
    Late,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    Publish,
    Read(Consumer, Queue, Fate),
    Reclaim(Consumer, Queue, Id, Fate),
    Handle(Consumer, Outcome),
    Send(Consumer, Fate),
    /// A late request is run.
    Arrive(usize),
    Renew(Consumer),
    /// No sign of life for a lease.
    Freeze(Queue, Id),
    Crash(Consumer),
    Depart(Consumer),
    TakeOver(Consumer, Queue, Consumer),
    Redrive(Id),
    Trim(Id),
}

/// The model: bounds, and the scripts or a broken variant of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct System {
    pub(crate) bounds: Bounds,
    pub(crate) scripts: Scripts,
    /// For a mutant: the one property that is checked.
    pub(crate) only: Option<&'static str>,
}

impl Action {
    /// Whether it brings what is owed nearer to its end: faults, and what nobody need do, do not.
    pub(crate) fn is_progress(&self) -> bool {
        match self {
            Self::Read(.., fate) | Self::Reclaim(.., fate) | Self::Send(_, fate) => {
                *fate == Fate::Answered
            }
            Self::Handle(_, Outcome::Done | Outcome::Failed | Outcome::Rejected) => true,
            _ => false,
        }
    }
}

impl State {
    pub(crate) fn used(&self, fault: Fault) -> u8 {
        self.faults[fault as usize]
    }

    /// The living process with this name, if this is its present life.
    pub(crate) fn alive(&self, consumer: Consumer) -> Option<&Process> {
        let process = self.processes.get(usize::from(consumer.name))?;
        (process.consumer == consumer).then_some(process)
    }

    /// Whether this pending entry is in the hands of a living process that knows of it, and
    /// therefore renews it.
    fn is_renewed(&self, queue: Queue, id: Id, pending: &Pending) -> bool {
        let Owner::Process(owner) = pending.owner else {
            return false;
        };
        let holds = self.alive(owner).and_then(|process| process.holds);
        !pending.idle && holds.is_some_and(|d| (d.claim.queue, d.claim.id) == (queue, id))
    }

    /// Whether the fence would let a claim pass, were it never broken.
    pub(crate) fn is_current(&self, claim: &Claim) -> bool {
        let pending = self.store.pending(claim.queue, claim.id);
        pending
            .is_some_and(|p| p.owner == Owner::Process(claim.consumer) && p.serial == claim.serial)
    }

    fn process(&mut self, consumer: Consumer) -> &mut Process {
        &mut self.processes[usize::from(consumer.name)]
    }

    /// The end of a life: what it held stays pending.
    fn end_life(&mut self, consumer: Consumer) {
        let process = self.process(consumer);
        process.holds = None;
        process.consumer.life += 1;
    }
}

impl System {
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
            !state.is_renewed(queue, **id, pending)
                || self.scripts.broken(Mutant::ReclaimsTheLiving)
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
        } = held.claim;
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
            Step::Sending(..) => {
                actions.push(Action::Send(me, Fate::Answered));
                if self.may(state, Fault::LostAnswer) {
                    actions.push(Action::Send(me, Fate::AnswerLost));
                }
                if self.may(state, Fault::LateRequest) {
                    actions.push(Action::Send(me, Fate::Late));
                }
            }
        }
        let current = state.is_current(&held.claim);
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
                // A router recovers by taking over from itself, while it holds nothing.
                let itself = of == me && queue == Queue::Inbox && process.holds.is_none();
                let living = of != me && state.alive(of).is_some();
                if predecessor || itself || (living && self.may(state, Fault::Namesake)) {
                    actions.push(Action::TakeOver(me, queue, of));
                }
            }
        }
    }

    /// A delivery comes into a process' hands.
    fn take(&self, state: &mut State, handed: Option<Handed>, fate: Fate) {
        match (handed, fate) {
            (Some(handed), Fate::Answered) => {
                let delivery = Delivery::begin(handed, &self.bounds, &self.scripts);
                state.process(handed.claim.consumer).holds = Some(delivery);
            }
            _ => state.faults[Fault::LostAnswer as usize] += 1,
        }
    }

    fn run(&self, state: &mut State, request: &Request) -> Answer {
        let stale = !state.is_current(&request.claim);
        let before = stale.then(|| state.store.clone());
        let answer = self.scripts.run(&mut state.store, request);
        state.ghost.stale_write |= before.is_some_and(|before| before != state.store);
        let key = (request.claim.queue, request.claim.id);
        let charged = match request.call {
            Call::Park { charged, .. } => charged,
            Call::DeadLetter(reason) => reason != Reason::Crashed,
            _ => false,
        };
        if charged && answer == Answer::Held {
            let charged = state.ghost.charged.entry(key).or_default();
            *charged += 1;
            state.ghost.overcharged |= *charged > self.bounds.max_attempts;
        }
        if state.store.pending(key.0, key.1).is_none() {
            state.ghost.charged.remove(&key);
            state.ghost.killed.remove(&key);
        }
        answer
    }

    fn send(&self, state: &mut State, me: Consumer, fate: Fate) -> Option<()> {
        let held = state.alive(me)?.holds?;
        let request = held.request()?;
        match fate {
            Fate::Late => {
                if state.late.contains(&request) {
                    return None;
                }
                state.late.push(request);
                state.late.sort_unstable();
                state.faults[Fault::LateRequest as usize] += 1;
            }
            Fate::AnswerLost => {
                self.run(state, &request);
                state.faults[Fault::LostAnswer as usize] += 1;
            }
            Fate::Answered => {
                let answer = self.run(state, &request);
                state.process(me).holds = held.answered(answer);
            }
        }
        Some(())
    }

    fn renew(&self, state: &mut State, me: Consumer) -> Option<()> {
        let held = state.alive(me)?.holds?;
        let Delivery {
            claim,
            event,
            content,
            troubled,
            ..
        } = held;
        let request = Request {
            claim,
            event,
            content,
            troubled,
            call: Call::Renew,
        };
        let answer = self.run(state, &request);
        if answer != Answer::Held && held.step == Step::Running {
            state.process(me).holds = None; // the handler is cancelled
        }
        Some(())
    }
}

impl Model for System {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let life = 0;
        let names = 0..self.bounds.processes.len() as u8;
        let processes = names.map(|name| Process {
            consumer: Consumer { name, life },
            holds: None,
        });
        vec![State {
            store: Store::new(self.bounds.subscribers),
            processes: processes.collect(),
            late: Vec::new(),
            published: 0,
            redriven: 0,
            faults: [0; FAULTS],
            ghost: Ghost::default(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
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

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Publish => {
                let (event, content) = self.bounds.published[usize::from(state.published)];
                state.store.inbox.add(event, content);
                state.published += 1;
            }
            Action::Read(me, queue, fate) => {
                let handed = self.scripts.read(&mut state.store, queue, me);
                self.take(&mut state, handed, fate);
            }
            Action::Reclaim(me, queue, id, fate) => {
                let handed = self.scripts.reclaim(&mut state.store, queue, id, me);
                self.take(&mut state, handed, fate);
            }
            Action::Handle(me, outcome) => {
                let held = state.alive(me)?.holds?;
                let next = held.finish(outcome, &self.bounds, &self.scripts);
                state.process(me).holds = Some(next);
                if matches!(outcome, Outcome::Unavailable | Outcome::Interrupted) {
                    state.faults[Fault::Interruption as usize] += 1;
                }
            }
            Action::Send(me, fate) => self.send(&mut state, me, fate)?,
            Action::Arrive(at) => {
                let request = state.late.remove(at);
                self.run(&mut state, &request);
            }
            Action::Renew(me) => self.renew(&mut state, me)?,
            Action::Freeze(queue, id) => {
                state.store.group_mut(queue).pending.get_mut(&id)?.idle = true;
                state.faults[Fault::Freeze as usize] += 1;
            }
            Action::Crash(me) => {
                let held = state.alive(me)?.holds?;
                if held.step == Step::Running && state.is_current(&held.claim) {
                    let key = (held.claim.queue, held.claim.id);
                    *state.ghost.killed.entry(key).or_default() += 1;
                }
                state.end_life(me);
                state.faults[Fault::Crash as usize] += 1;
            }
            Action::Depart(me) => {
                state.end_life(me);
                for queue in self.bounds.queues(me.name) {
                    self.scripts.drop_consumer(&mut state.store, queue, me);
                }
                state.faults[Fault::Departure as usize] += 1;
            }
            Action::TakeOver(me, queue, of) => {
                // (A router that takes over from itself is no namesake.)
                if of.name != me.name {
                    state.faults[Fault::Namesake as usize] += 1;
                }
                self.scripts.take_over(&mut state.store, queue, of);
            }
            Action::Redrive(letter) => {
                self.scripts
                    .redrive(&mut state.store, letter)
                    .then_some(())?;
                state.redriven += 1;
            }
            Action::Trim(oldest) => self.scripts.trim(&mut state.store, None, Some(oldest)),
        }
        if state == *last {
            return None;
        }
        if self.scripts.mutant.is_none() {
            invariants::assert_forward(last, &state, action);
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let all = invariants::properties().into_iter();
        all.filter(|property| self.only.is_none_or(|only| property.name == only))
            .collect()
    }
}

impl System {
    /// The protocol as built.
    pub(crate) fn faithful(bounds: Bounds) -> Self {
        Self {
            bounds,
            scripts: Scripts::default(),
            only: None,
        }
    }

    /// A broken variant, and the property that it should violate.
    pub(crate) fn broken(bounds: Bounds, mutant: Mutant, only: &'static str) -> Self {
        let scripts = Scripts {
            mutant: Some(mutant),
        };
        Self {
            bounds,
            scripts,
            only: Some(only),
        }
    }
}
