//! The whole: Redis, routers, workers, producers and an operator, and everything that can happen
//! next. A request is one step (only the order in which Redis runs scripts matters), with one of
//! three fates; that a process waits between two steps is any other step that comes between.

use std::collections::{BTreeMap, BTreeSet};

use stateright::{Model, Property};

use super::bounds::Bounds;
use super::invariants::{self, INVARIANTS};
use super::mutants::Mutant;
use super::process::{Delivery, Outcome, Process, Step};
use super::scripts::{Answer, Call, Claim, Handed, Request, Scripts};
use super::store::{Consumer, Event, Id, Letter, Owner, Queue, Reason, Store, Subscriber};
use super::witnesses::WITNESSES;

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
    /// Which runs of what is pending were charged.
    pub(crate) charged: BTreeMap<(Queue, Id), BTreeSet<u8>>,
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
    /// The router asks whether it may write by a transaction, and may.
    Check(Consumer),
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

    /// Whether the fence would let a claim pass, were it never broken.
    pub(crate) fn is_current(&self, claim: &Claim) -> bool {
        let pending = self.store.pending(claim.queue, claim.id);
        pending
            .is_some_and(|p| p.owner == Owner::Process(claim.consumer) && p.serial == claim.serial)
    }

    /// The deliveries in the hands of processes.
    pub(crate) fn held(&self) -> impl Iterator<Item = Delivery> {
        self.processes.iter().filter_map(|process| process.holds)
    }

    /// Those whose handlers run.
    pub(crate) fn running(&self) -> impl Iterator<Item = Delivery> {
        self.held()
            .filter(|delivery| delivery.step == Step::Running)
    }

    /// Dead letters of an event, for a subscriber.
    pub(crate) fn letters(&self, event: Event, of: Subscriber) -> usize {
        let same = |letter: &&Letter| letter.event == event && letter.of == Some(of);
        self.store.letters.iter().filter(same).count()
    }

    pub(crate) fn died(&self, of: Reason) -> bool {
        self.store.letters.iter().any(|letter| letter.reason == of)
    }

    /// Something that is watched has changed: transactions that were begun before write nothing,
    /// and their senders take the long way.
    fn end_transactions(&mut self) {
        self.late.retain(|request| request.call != Call::Write);
        for held in self
            .processes
            .iter_mut()
            .filter_map(|process| process.holds.as_mut())
        {
            *held = held.the_long_way();
        }
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
            Call::Park(park) => park.charged,
            Call::DeadLetter(reason) => reason != Reason::Crashed,
            _ => false,
        };
        if charged && answer == Answer::Held {
            let charged = state.ghost.charged.entry(key).or_default();
            charged.insert(request.claim.serial);
            state.ghost.overcharged |= charged.len() > self.bounds.max_attempts.into();
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
                state.process(me).holds = Some(held.the_long_way());
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
        let request = held.asking(Call::Renew);
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
        self.possible(state, actions);
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
            Action::Check(me) => {
                let held = state.alive(me)?.holds?;
                let step = Step::Sending(Call::Write, None);
                state.process(me).holds = Some(Delivery { step, ..held });
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
                if held.step == Step::Running && state.is_current(held.claim()) {
                    let key = (held.claim().queue, held.claim().id);
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
                if of.name != me.name {
                    state.faults[Fault::Namesake as usize] += 1;
                } else if last
                    .alive(of)
                    .is_some_and(|process| process.holds.is_some())
                {
                    state.faults[Fault::LateRequest as usize] += 1;
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
        if self.scripts.disturbs(&last.store, &state.store) {
            state.end_transactions();
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
        let always = |(name, holds)| Property::always(name, holds);
        let sometimes = |(name, seen)| Property::sometimes(name, seen);
        let always = INVARIANTS.into_iter().map(always);
        let all = always.chain(WITNESSES.into_iter().map(sometimes));
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
