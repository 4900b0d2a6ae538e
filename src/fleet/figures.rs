//! What a process says of itself: how long the event store takes, in this process since its start,
//! and whether it was told to stop. Signs of life carry it to `worker:<subscriber>:<name>`: `loads`,
//! `loads_us`, `loads_max_us`, the same of `appends`, and `draining`. Numbers and sums are those of the metrics.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::metrics::{self, WorkTimes, micros};

static DRAINING: AtomicBool = AtomicBool::new(false);

/// Notes that this process was told to stop.
pub(crate) fn drain() {
    DRAINING.store(true, Ordering::Relaxed);
}

/// Whether it was.
pub(super) fn is_draining() -> bool {
    DRAINING.load(Ordering::Relaxed)
}

/// Histories that were read.
pub(crate) static LOADS: Figure =
    Figure::new(["loads", "loads_us", "loads_max_us"], &metrics::LOADS);
/// Commits that append to a history, from when they are sent to their answer.
pub(crate) static APPENDS: Figure = Figure::new(
    ["appends", "appends_us", "appends_max_us"],
    &metrics::APPENDS,
);

/// How often, how long in all, and how long at most.
pub(crate) struct Figure {
    names: [&'static str; 3],
    times: &'static WorkTimes,
    max_us: AtomicU64,
}

impl Figure {
    const fn new(names: [&'static str; 3], times: &'static WorkTimes) -> Self {
        Self {
            names,
            times,
            max_us: AtomicU64::new(0),
        }
    }

    /// Counts some that took so long each.
    pub(crate) fn took(&self, count: u64, time: Duration) {
        if count == 0 {
            return;
        }
        let us = micros(time);
        self.times.observe(us, count);
        self.max_us.fetch_max(us, Ordering::Relaxed);
    }

    fn fields(&self) -> [(&'static str, String); 3] {
        let max_us = self.max_us.load(Ordering::Relaxed);
        let [count, sum, max] = self.names;
        [
            (count, self.times.count().to_string()),
            (sum, self.times.sum().to_string()),
            (max, max_us.to_string()),
        ]
    }
}

/// All of it, as a sign of life carries it; nothing of what never happened.
pub(super) fn fields() -> impl Iterator<Item = (&'static str, String)> {
    let happened = |figure: &&Figure| figure.times.count() > 0;
    let figures = [&LOADS, &APPENDS].into_iter();
    figures.filter(happened).flat_map(Figure::fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_counts_adds_up_and_keeps_the_longest() {
        static TIMES: WorkTimes = metrics::work_times();
        let figure = Figure::new(["a", "b", "c"], &TIMES);
        for us in [5, 9, 1] {
            figure.took(1, Duration::from_micros(us));
        }
        figure.took(2, Duration::from_micros(3));
        figure.took(0, Duration::from_micros(99));
        let told = figure
            .fields()
            .map(|(name, value)| format!("{name}={value}"));
        assert_eq!(told, ["a=5", "b=21", "c=9"]);
    }
}
