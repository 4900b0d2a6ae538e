//! Whether the loops of a process get on, and what the process is doing: told by the loops, read by
//! whoever watches them (the watchdog and the status line of the service manager).
//!
//! A loop that waits for Redis gets on: it tries again and again, and each try is a sign of life. A
//! loop that waits for what may take as long as it likes (handlers, an end of a pause) rests, and is
//! not judged meanwhile. What is left is a loop that is stuck.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How long a loop may take for one round. Every wait for Redis in it ends far earlier, by its time-out.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A loop that rests.
const RESTING: u64 = u64::MAX;

/// What all loops of one process share.
#[derive(Clone, Debug)]
pub struct Progress(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    began: Instant,
    loops: Mutex<Vec<Weak<Pulse>>>,
    doing: Mutex<Doing>,
    begun: AtomicBool,
    events: AtomicU64,
}

struct Pulse {
    name: &'static str,
    /// Asked when it is judged: what it depends on may change meanwhile.
    patience: Box<dyn Fn() -> Duration + Send + Sync>,
    /// Milliseconds from the beginning to the last sign of life, or [`RESTING`].
    last: AtomicU64,
}

/// The signs of life of one loop. Dropped, the loop has ended and is judged no more.
#[derive(Debug)]
pub struct Beat {
    pulse: Arc<Pulse>,
    began: Instant,
}

/// What a process is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It does not read yet.
    Starting,
    /// What it is there for.
    Working,
    /// It has been told to read nothing: a pause, or an open circuit breaker.
    Shut,
    /// Redis cannot be used, for this reason; it tries again.
    Degraded(String),
    /// Redis is nearly full: nothing is routed.
    Full,
    /// A consumer group was lost, and an operator must decide.
    Halted,
    /// It finishes what was started.
    Stopping,
}

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pulse").field(&self.name).finish()
    }
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("starting"),
            Self::Working => f.write_str("working"),
            Self::Shut => f.write_str(
                "reading nothing: paused, or the circuit breaker is open (streamfleet status says which)",
            ),
            Self::Degraded(why) => write!(f, "degraded, trying again: {why}"),
            Self::Full => f.write_str("routing nothing: Redis is nearly full; events wait in the inbox"),
            Self::Halted => f.write_str("HALTED: a consumer group was lost; see streamfleet group list"),
            Self::Stopping => f.write_str("stopping: finishing what was started"),
        }
    }
}

/// A loop that gave no sign of life for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stalled {
    /// What the loop does.
    pub name: &'static str,
    /// For how long.
    pub silent: Duration,
}

impl Default for Progress {
    fn default() -> Self {
        Self(Arc::new(Shared {
            began: Instant::now(),
            loops: Mutex::default(),
            doing: Mutex::new(Doing::Starting),
            begun: AtomicBool::new(false),
            events: AtomicU64::new(0),
        }))
    }
}

impl Progress {
    /// A new loop, which rests until its first sign of life. It may be silent for `patience`.
    pub fn of(&self, name: &'static str, patience: Duration) -> Beat {
        self.as_patient_as(name, move || patience)
    }

    /// The same, where the patience changes.
    pub fn as_patient_as(
        &self,
        name: &'static str,
        patience: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Beat {
        let pulse = Arc::new(Pulse {
            name,
            patience: Box::new(patience),
            last: AtomicU64::new(RESTING),
        });
        let mut loops = lock(&self.0.loops);
        loops.retain(|pulse| pulse.strong_count() > 0);
        loops.push(Arc::downgrade(&pulse));
        Beat {
            pulse,
            began: self.0.began,
        }
    }

    /// The loop that has been silent for longest, if one has been for too long.
    pub fn stalled(&self) -> Option<Stalled> {
        self.stalled_at(self.0.began.elapsed())
    }

    fn stalled_at(&self, now: Duration) -> Option<Stalled> {
        let loops = lock(&self.0.loops);
        let silent = loops.iter().filter_map(Weak::upgrade).filter_map(|pulse| {
            let last = match pulse.last.load(Ordering::Relaxed) {
                RESTING => return None,
                ms => Duration::from_millis(ms),
            };
            let silent = now.saturating_sub(last);
            (silent > (pulse.patience)()).then_some(Stalled {
                name: pulse.name,
                silent,
            })
        });
        silent.max_by_key(|stalled| stalled.silent)
    }

    /// It reads: groups exist, and it is announced.
    pub fn begin(&self) {
        self.0.begun.store(true, Ordering::Relaxed);
    }

    /// Whether it has ever read.
    pub fn has_begun(&self) -> bool {
        self.0.begun.load(Ordering::Relaxed)
    }

    /// Tells what the process is doing. Whoever stops is stopping until its end.
    pub fn now(&self, doing: Doing) {
        let mut current = lock(&self.0.doing);
        if *current != Doing::Stopping && *current != doing {
            *current = doing;
        }
    }

    /// What the process is doing.
    pub fn doing(&self) -> Doing {
        lock(&self.0.doing).clone()
    }

    /// Counts events that were taken in hand.
    pub fn took(&self, events: usize) {
        self.0.events.fetch_add(events as u64, Ordering::Relaxed);
    }

    /// How many events were taken in hand since the start.
    pub fn events(&self) -> u64 {
        self.0.events.load(Ordering::Relaxed)
    }
}

impl Beat {
    /// A sign of life.
    pub fn touch(&self) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(0);
        self.pulse.last.store(ms, Ordering::Relaxed);
    }

    /// What comes now may take as long as it likes, until the next sign of life.
    pub fn rest(&self) {
        self.pulse.last.store(RESTING, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_stalled_when_it_is_silent_for_longer_than_it_may_be_and_does_not_rest() {
        let progress = Progress::default();
        let now = |s: u64| progress.stalled_at(Duration::from_secs(s)).map(|s| s.name);
        let reading = progress.of("reading", Duration::from_secs(30));
        assert_eq!(now(1_000), None, "it has not begun");
        reading.touch();
        assert_eq!(now(29), None);
        assert_eq!(now(31), Some("reading"));
        reading.rest();
        assert_eq!(now(1_000), None, "it rests");
        reading.touch();
        let seconds = Arc::new(AtomicU64::new(300));
        let asked = seconds.clone();
        let patience = move || Duration::from_secs(asked.load(Ordering::Relaxed));
        let patient = progress.as_patient_as("patient", patience);
        patient.touch();
        assert_eq!(now(31), Some("reading"), "each has a patience of its own");
        drop(reading);
        assert_eq!(now(31), None, "it has ended");
        assert_eq!(now(301), Some("patient"));
        seconds.store(400, Ordering::Relaxed);
        assert_eq!(now(301), None, "it is asked when it is judged");
    }

    #[test]
    fn whoever_stops_is_stopping_until_its_end() {
        let progress = Progress::default();
        progress.now(Doing::Working);
        assert_eq!(progress.doing(), Doing::Working);
        progress.now(Doing::Stopping);
        progress.now(Doing::Degraded("away".into()));
        assert_eq!(progress.doing(), Doing::Stopping);
    }
}
