//! Supervising: sees to it that a handler that keeps its thread costs its own slot and nothing else,
//! and that only until its time is up. What had ended in its lane is handed over, another lane is
//! roused, the delivery is taken away when its time is up, when it is another's by now, or when the
//! process must end. What a lane finds taken when its handler comes back at last, it drops.
//!
//! It runs beside the renewer, on a thread that no handler can keep. From there it also keeps the
//! runtime awake while anything is held: a thread that has looked for replies and then runs a
//! handler that blocks has told nobody to look in its stead, and all others may be asleep.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::core::Core;
use super::execute::{Ran, Stage, go_on, timed_out};
use super::handler::Handler;
use super::lanes::Lane;

/// A lane that is at the same delivery after this time keeps its thread from others.
const TICK: Duration = Duration::from_millis(10);
/// How long replies and timers may wait for a thread that a handler keeps.
const AWAKE: Duration = Duration::from_millis(100);

/// Supervises until it is dropped.
pub(crate) async fn run<H: Handler>(core: Arc<Core<H>>) {
    loop {
        core.lanes.busy.notified().await;
        while core.held.count() > 0 || !core.lanes.queue().is_empty() {
            let pause = if core.look_after_lanes() { TICK } else { AWAKE };
            core.runtime.spawn(async {});
            tokio::time::sleep(pause).await;
        }
    }
}

impl<H: Handler> Core<H> {
    /// Answers whether there is anything in the lanes.
    fn look_after_lanes(self: &Arc<Self>) -> bool {
        let now = Instant::now();
        let lanes = self.lanes.all().clone();
        let (mut busy, mut gets_on) = (false, false);
        for lane in &lanes {
            let at_it = lane.state().at_it(now);
            gets_on |= at_it.is_zero();
            if !at_it.is_zero() {
                self.hand_over(lane);
            }
            busy |= self.look_after(lane, now);
        }
        if self.stop.now.is_cancelled() {
            self.give_back_unstarted();
        }
        if self.lanes.queue().is_empty() {
            return busy;
        }
        let begun = lanes.iter().all(|lane| lane.state().has_begun());
        if !gets_on && !self.lanes.rouse() && begun {
            self.add_helper();
        }
        true
    }

    /// Takes a delivery away from a lane that has been at it for too long, or must not go on with
    /// it. Answers whether the lane is busy.
    fn look_after(self: &Arc<Self>, lane: &Lane, now: Instant) -> bool {
        let timeout = self.settings.borrow().timeout;
        let mut state = lane.state();
        let at_it = state.at_it(now); // it may be another delivery by now
        let Some(running) = &state.running else {
            return state.is_busy();
        };
        let ran = if running.delivery.guard.is_lost() {
            Ran::Lost
        } else if self.stop.now.is_cancelled() && !at_it.is_zero() {
            Ran::Interrupted
        } else if at_it >= timeout {
            Ran::Failed(timed_out(timeout))
        } else {
            return true;
        };
        if let Some(in_hand) = state.running.take() {
            drop(state);
            let rest = go_on(self.clone(), in_hand, Stage::Ran(ran));
            self.tasks.spawn_on(rest, &self.runtime);
        }
        true
    }

    /// Another lane, until the queue is empty: handlers keep all others.
    fn add_helper(self: &Arc<Self>) {
        let (core, lane) = (self.clone(), self.lanes.add());
        self.runtime.spawn(async move {
            core.work_off(&lane).await;
            core.lanes.all().retain(|other| !Arc::ptr_eq(other, &lane));
        });
    }

    /// What no lane has begun goes back when the process must end.
    pub(super) fn give_back_unstarted(self: &Arc<Self>) {
        let unstarted: Vec<_> = self.lanes.queue().drain(..).collect();
        if unstarted.is_empty() {
            return;
        }
        let core = self.clone();
        let given_back = async move {
            let (deliveries, _slots): (Vec<_>, Vec<_>) = unstarted
                .into_iter()
                .map(|slotted| (slotted.delivery, (slotted.slot, slotted.tracked)))
                .unzip();
            core.release(deliveries).await;
        };
        self.tasks.spawn_on(given_back, &self.runtime);
    }
}
