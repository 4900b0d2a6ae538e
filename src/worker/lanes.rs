//! Lanes: where fresh deliveries run. Most handlers need no more than one step: a lane takes that
//! step, and hands over what has ended many at a time. What is not done by then (a handler that
//! waits for something, a failure) goes on in a task of its own.
//!
//! There is a lane for each thread of the runtime, and one queue for all, so a handler that keeps
//! its thread holds up nobody: see `supervise`. For this to hold, whatever a lane has at hand while
//! a handler runs lies where the supervisor can get at it, and nothing is woken or spawned between
//! two handlers: the runtime keeps the last such task for this thread alone. (What a handler wakes
//! that is done in one step itself may have to wait for the next one's step.)

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::core::{Core, Source};
use super::delivery::{InHand, Slotted};
use super::execute::{
    Ran, Stage, acknowledgement, execute, go_on, go_on_unsettled, panicked, request,
};
use super::handler::{Effects, Handler};
use super::settle::{Commit, End, Unsettled, Waits};
use crate::trace::Traced;

/// What has ended is handed over after so many deliveries at the latest…
const HANDED_OVER: usize = 64;
/// … or after this time. Also, one lane is enough for what it can do within it.
const TURN: Duration = Duration::from_micros(300);

/// The queue, and who works on it.
#[derive(Default)]
pub(crate) struct Lanes {
    queue: Mutex<VecDeque<Slotted>>,
    /// Rouses a lane that waits.
    work: Notify,
    waiting: AtomicUsize,
    /// Rouses the supervisor.
    pub(super) busy: Notify,
    all: Mutex<Vec<Arc<Lane>>>,
}

/// What a lane is at; the supervisor sees it too.
#[derive(Default)]
pub(super) struct Lane(Mutex<State>);

#[derive(Default)]
pub(super) struct State {
    /// How many deliveries it began; and the number of the one that the supervisor saw first when.
    turns: u64,
    seen: Option<(u64, Instant)>,
    /// Whose handler runs.
    pub(super) running: Option<InHand>,
    /// What a lane is done with, to be handed over.
    done: Vec<Done>,
    /// The slots of what was acknowledged.
    slots: Option<OwnedSemaphorePermit>,
    /// A stop waits until it is handed over.
    tracked: Option<TaskTrackerToken>,
}

/// What a lane is done with.
enum Done {
    /// To be settled.
    Ended(Arc<Source>, End),
    /// Its first step was not its last.
    GoesOn(Box<(InHand, Stage)>),
    /// It was not begun: it may be another's by now, has expired, or is not an event.
    Doubtful(Box<Slotted>),
}

impl Lanes {
    pub(super) fn queue(&self) -> MutexGuard<'_, VecDeque<Slotted>> {
        // Nothing under this lock can panic half-way; nor under the others below.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn all(&self) -> MutexGuard<'_, Vec<Arc<Lane>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self) -> Arc<Lane> {
        let lane = Arc::new(Lane::default());
        self.all().push(lane.clone());
        lane
    }

    /// Rouses a lane; answers whether one waits for that.
    pub(super) fn rouse(&self) -> bool {
        self.work.notify_one();
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Lets deliveries run.
    pub(crate) fn push(&self, deliveries: Vec<Slotted>) {
        self.queue().extend(deliveries);
        self.work.notify_one();
    }

    async fn wait_for_work(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        while self.queue().is_empty() {
            self.work.notified().await;
        }
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl State {
    /// Whether a thread was free for it so far.
    pub(super) fn has_begun(&self) -> bool {
        self.turns > 0
    }

    /// Whether there is anything in the lane.
    pub(super) fn is_busy(&self) -> bool {
        self.running.is_some() || !self.done.is_empty()
    }

    /// For how long the supervisor has seen it at the same delivery: nothing at first sight.
    pub(super) fn at_it(&mut self, now: Instant) -> Duration {
        match self.seen {
            Some((turns, since)) if turns == self.turns => now - since,
            _ => {
                self.seen = Some((self.turns, now));
                Duration::ZERO
            }
        }
    }
}

impl Lane {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Goes to the end of the line, from which any thread takes it. (The runtime's own `yield_now` waits
/// for this thread, and with it for a handler that keeps it.)
pub(super) async fn let_others_run() {
    let mut waited = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Starts the lanes; they end with the runtime, or when nothing is left to do after a stop.
pub(crate) fn spawn<H: Handler>(
    core: &Arc<Core<H>>,
    unsettled: mpsc::UnboundedReceiver<Unsettled>,
) -> tokio::task::JoinSet<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..core.runtime.metrics().num_workers() {
        let lane = core.lanes.add();
        let core = core.clone();
        tasks.spawn(async move {
            loop {
                core.lanes.wait_for_work().await;
                core.work_off(&lane).await;
            }
        });
    }
    tasks.spawn(core.clone().take_up(unsettled));
    tasks
}

impl<H: Handler> Core<H> {
    /// Goes on with what commits did not settle.
    async fn take_up(self: Arc<Self>, mut unsettled: mpsc::UnboundedReceiver<Unsettled>) {
        while let Some(unsettled) = unsettled.recv().await {
            self.tasks.spawn(go_on_unsettled(self.clone(), unsettled));
        }
    }

    /// Works until the queue is empty.
    pub(super) async fn work_off(self: &Arc<Self>, lane: &Lane) {
        loop {
            if self.stop.now.is_cancelled() {
                self.give_back_unstarted();
            }
            let begun = Instant::now();
            let (mut now, mut count, mut waits) = (begun, 0, false);
            while count < HANDED_OVER && now - begun < TURN && !waits {
                let Some(next) = self.lanes.queue().pop_front() else {
                    break;
                };
                waits = self.take_first_step(lane, next, now);
                now = Instant::now();
                count += 1;
            }
            if now - begun >= TURN && !self.lanes.queue().is_empty() {
                self.lanes.work.notify_one(); // this takes longer: another thread may help
            }
            self.hand_over(lane);
            if waits {
                let_others_run().await;
            } else {
                // Also lets the runtime look for replies. Should this thread be kept meanwhile,
                // another lane goes on.
                tokio::task::yield_now().await;
            }
            if count == 0 {
                return;
            }
        }
    }

    /// Hands over what a lane is done with.
    pub(super) fn hand_over(self: &Arc<Self>, lane: &Lane) {
        let (done, mut slots, _tracked) = {
            let state = &mut *lane.state();
            let done = std::mem::take(&mut state.done);
            (done, state.slots.take(), state.tracked.take())
        };
        let mut done = done.into_iter().peekable();
        while let Some(first) = done.next() {
            let (source, end) = match first {
                Done::Ended(source, end) => (source, end),
                Done::GoesOn(waiting) => {
                    let (in_hand, stage) = *waiting;
                    self.tasks
                        .spawn_on(go_on(self.clone(), in_hand, stage), &self.runtime);
                    continue;
                }
                Done::Doubtful(slotted) => {
                    self.tasks
                        .spawn_on(execute(self.clone(), *slotted), &self.runtime);
                    continue;
                }
            };
            let mut ends = vec![end];
            while let Some(Done::Ended(_, end)) = done.next_if(
                |next| matches!(next, Done::Ended(other, _) if Arc::ptr_eq(other, &source)),
            ) {
                ends.push(end);
            }
            self.breaker.outcomes.passed(ends.len());
            // A commit keeps its slot until it is settled.
            let acks = ends.iter().filter(|end| matches!(end, End::Ack(_))).count();
            let slots = slots.as_mut().and_then(|slots| slots.split(acks));
            source.ends.push(ends, slots);
        }
    }

    /// Answers whether it waits for something: whatever its handler has woken for that must not
    /// come after the next one's step, in which this thread may be kept.
    fn take_first_step(self: &Arc<Self>, lane: &Lane, slotted: Slotted, now: Instant) -> bool {
        let event = match slotted.delivery.read_event() {
            Ok(event) if !self.is_too_late(&event) && !self.is_doubtful(&slotted.delivery, now) => {
                Arc::new(event)
            }
            _ => {
                lane.state().done.push(Done::Doubtful(Box::new(slotted)));
                return false;
            }
        };
        let Slotted {
            delivery,
            slot,
            tracked,
        } = slotted;
        let mut run = self.call(&event, delivery.failures() + 1);
        lane.state().begin(InHand {
            delivery,
            event,
            slot,
            tracked,
            began: now,
        });
        let step = || tokio::task::unconstrained(&mut run).now_or_never();
        // Of a panic nothing is used but what it says.
        let stepped = catch_unwind(AssertUnwindSafe(step));
        let mut state = lane.state();
        let Some(in_hand) = state.running.take() else {
            drop(state);
            // Taken away meanwhile. Of what may panic here nobody wants to hear.
            drop(catch_unwind(AssertUnwindSafe(move || drop(run))));
            return false;
        };
        let stage = match stepped {
            Ok(Some(returned)) if returned.result.is_ok() => {
                let hop = self.handled(&in_hand.event, &in_hand.delivery, in_hand.began);
                state.end(in_hand, returned.effects, hop);
                return false;
            }
            Ok(Some(failed)) => Stage::Ran(Ran::Returned(failed)),
            Ok(None) => Stage::Running(run),
            Err(panic) => Stage::Ran(Ran::Failed(panicked(&*panic))),
        };
        let waits = matches!(stage, Stage::Running(_));
        state.done.push(Done::GoesOn(Box::new((in_hand, stage))));
        waits
    }
}

impl State {
    fn begin(&mut self, in_hand: InHand) {
        self.turns += 1;
        self.running = Some(in_hand);
    }

    /// The handler is done, and asked for this.
    fn end(&mut self, in_hand: InHand, effects: Effects, hop: Option<Traced>) {
        let (source, end) = if effects.is_empty() {
            let InHand {
                delivery,
                slot,
                tracked,
                ..
            } = in_hand;
            self.tracked = Some(tracked);
            match &mut self.slots {
                Some(slots) => slots.merge(slot),
                none => *none = Some(slot),
            }
            acknowledgement(delivery, hop)
        } else {
            let source = in_hand.delivery.source.clone();
            let commit = Commit {
                request: request(&in_hand.delivery, effects),
                waits: Waits::Delivery(Box::new(in_hand)),
                hop,
            };
            (source, End::Commit(commit))
        };
        self.done.push(Done::Ended(source, end));
    }
}
