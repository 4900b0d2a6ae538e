//! The gate between Redis and this worker: whether it may read, and an end to a read that waits when
//! it may no longer.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::fleet::control::{BreakerState, Control};

/// What may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Whatever there is.
    Free,
    /// One delivery for each probe.
    Probing,
    /// Nothing.
    Shut,
}

impl Way {
    /// What the control of a subscriber leaves; without a breaker of ours, what others say of
    /// theirs is nothing to us.
    pub(super) fn under(control: &Control, breaker: bool) -> Self {
        match control.breaker.state {
            _ if control.paused.is_some() => Self::Shut,
            BreakerState::Open if breaker => Self::Shut,
            BreakerState::HalfOpen if breaker => Self::Probing,
            _ => Self::Free,
        }
    }
}

/// Leave to read in one way, until further notice.
#[derive(Clone)]
pub(crate) struct Passage {
    pub(crate) way: Way,
    /// Fires when there is another, or when reading ends.
    pub(crate) ends: CancellationToken,
}

pub(crate) struct Gate {
    passage: watch::Sender<Passage>,
    /// Fires when reading ends.
    stop: CancellationToken,
}

impl Gate {
    /// `stop` ends all reading.
    pub(crate) fn new(way: Way, stop: CancellationToken) -> Self {
        let passage = Passage {
            way,
            ends: stop.child_token(),
        };
        Self {
            passage: watch::Sender::new(passage),
            stop,
        }
    }

    pub(crate) fn way(&self) -> Way {
        self.passage.borrow().way
    }

    /// Waits until there is something to read; `None` when reading ends.
    pub(crate) async fn passage(&self) -> Option<Passage> {
        let mut watched = self.passage.subscribe();
        let open = watched.wait_for(|passage| passage.way != Way::Shut);
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            open = open => open.ok().map(|passage| passage.clone()),
        }
    }

    /// Waits until there is another way than this one.
    pub(crate) async fn changed(&self, from: Way) {
        let mut watched = self.passage.subscribe();
        // The sender is ours: it outlives the wait.
        drop(watched.wait_for(|passage| passage.way != from).await);
    }

    /// Takes in which way is the right one by now. Answers whether it is another than before.
    pub(super) fn set(&self, way: Way) -> bool {
        self.passage.send_if_modified(|passage| {
            if way == passage.way {
                return false;
            }
            passage.ends.cancel();
            *passage = Passage {
                way,
                ends: self.stop.child_token(),
            };
            true
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::control::{Breaker, Pause};

    #[test]
    fn a_pause_shuts_whatever_the_breaker_says_and_a_breaker_only_those_that_have_one() {
        let control = |paused: bool, state| Control {
            paused: paused.then(Pause::default),
            breaker: Breaker {
                state,
                ..Breaker::default()
            },
        };
        use BreakerState::{Closed, HalfOpen, Open};
        let table = [
            (Closed, Way::Free, Way::Free),
            (Open, Way::Shut, Way::Free),
            (HalfOpen, Way::Probing, Way::Free),
        ];
        for (state, with, without) in table {
            assert_eq!(Way::under(&control(false, state), true), with);
            assert_eq!(Way::under(&control(false, state), false), without);
            assert_eq!(Way::under(&control(true, state), true), Way::Shut);
            assert_eq!(Way::under(&control(true, state), false), Way::Shut);
        }
    }

    #[tokio::test]
    async fn a_change_ends_the_passage_and_a_stop_the_wait_for_one() {
        let gate = Gate::new(Way::Free, CancellationToken::new());
        let free = gate.passage().await.unwrap();
        assert!(!gate.set(Way::Free));
        assert!(!free.ends.is_cancelled());
        assert!(gate.set(Way::Shut));
        assert!(free.ends.is_cancelled());
        gate.changed(Way::Free).await;
        assert_eq!(gate.way(), Way::Shut);
        assert!(gate.set(Way::Probing));
        let probing = gate.passage().await.unwrap();
        assert_eq!(probing.way, Way::Probing);
        gate.stop.cancel();
        assert!(probing.ends.is_cancelled());
        assert!(gate.passage().await.is_none());
    }
}
