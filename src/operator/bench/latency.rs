//! Latencies: recorded in an HdrHistogram where the handler starts, written to a file when the
//! process ends, merged by the bench.
//!
//! A latency counts from the moment at which the event was meant to be sent, not from when the
//! producer came to send it: a stall delays every event that was due in it, and all of them show
//! it (no coordinated omission).

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use hdrhistogram::Histogram;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::CommandError;

/// The longest latency that is told apart: an hour, in nanoseconds.
const LONGEST: u64 = 3_600_000_000_000;

/// A histogram of nanoseconds, three digits exact.
pub(super) fn histogram() -> Result<Histogram<u64>, CommandError> {
    Histogram::new_with_bounds(1, LONGEST, 3)
        .map_err(|e| CommandError::Refused(format!("cannot make a histogram: {e}")))
}

/// What one process of a role counts.
pub(super) struct Recorder {
    latencies: Mutex<Histogram<u64>>,
    handled: AtomicU64,
    failed: AtomicU64,
}

impl Recorder {
    pub(super) fn new() -> Result<Self, CommandError> {
        Ok(Self {
            latencies: Mutex::new(histogram()?),
            handled: AtomicU64::default(),
            failed: AtomicU64::default(),
        })
    }

    pub(super) fn handled(&self, count: u64) {
        self.handled.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Records the time since an event was meant to be sent.
    pub(super) fn since(&self, sent: Timestamp) {
        let passed = Timestamp::now().as_nanosecond() - sent.as_nanosecond();
        let passed = u64::try_from(passed).unwrap_or(0).max(1);
        let mut latencies = self
            .latencies
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        latencies.saturating_record(passed);
    }

    /// What was counted since it was last asked.
    pub(super) fn take(&self) -> Counted {
        let mut latencies = self
            .latencies
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let counted = Counted {
            handled: self.handled.swap(0, Ordering::Relaxed),
            failed: self.failed.swap(0, Ordering::Relaxed),
            latencies: latencies
                .iter_recorded()
                .map(|v| (v.value_iterated_to(), v.count_at_value()))
                .collect(),
        };
        latencies.reset();
        counted
    }

    /// Leaves what was counted for the bench.
    pub(super) fn write(&self, path: &Path) -> Result<(), CommandError> {
        let text = serde_json::to_string(&self.take())?;
        fs::write(path, text).map_err(|cause| CommandError::File {
            path: path.to_owned(),
            cause,
        })
    }
}

/// What a process of a role counted.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Counted {
    /// How often the handler ended well.
    pub(super) handled: u64,
    /// How often it failed, as it was told to.
    pub(super) failed: u64,
    /// Nanoseconds, and how many took so long.
    pub(super) latencies: Vec<(u64, u64)>,
}

impl Counted {
    pub(super) fn read(path: &Path) -> Result<Self, CommandError> {
        let text = fs::read_to_string(path).map_err(|cause| CommandError::File {
            path: path.to_owned(),
            cause,
        })?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Adds what another process counted.
    pub(super) fn add(&mut self, other: Self) {
        self.handled += other.handled;
        self.failed += other.failed;
        self.latencies.extend(other.latencies);
    }

    /// What is shown of the latencies; nothing if there are none.
    pub(super) fn latency(&self) -> Result<Option<Latency>, CommandError> {
        let mut all = histogram()?;
        for (value, count) in &self.latencies {
            all.saturating_record_n(*value, *count);
        }
        Ok((!all.is_empty()).then(|| Latency::of(&all)))
    }
}

/// Percentiles, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Latency {
    pub(super) count: u64,
    pub(super) mean: f64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    #[serde(rename = "p99.9")]
    pub(super) p999: f64,
    pub(super) max: f64,
    /// The curve: percentile and milliseconds.
    pub(super) curve: Vec<(f64, f64)>,
}

/// The percentiles of the curve: evenly spread on a scale of nines.
const CURVE: [f64; 16] = [
    0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.75, 99.9, 99.95, 99.975, 99.99, 99.999,
    100.0,
];

impl Latency {
    fn of(all: &Histogram<u64>) -> Self {
        let ms = |ns: u64| ns as f64 / 1e6;
        let at = |percentile| ms(all.value_at_percentile(percentile));
        Self {
            count: all.len(),
            mean: all.mean() / 1e6,
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            p999: at(99.9),
            max: ms(all.max()),
            curve: CURVE.iter().map(|p| (*p, at(*p))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_processes_counted_is_merged() {
        let counted = |values: &[(u64, u64)]| Counted {
            handled: values.iter().map(|v| v.1).sum(),
            failed: 1,
            latencies: values.to_vec(),
        };
        let mut all = counted(&[(1_000_000, 90)]);
        all.add(counted(&[(5_000_000, 9), (80_000_000, 1)]));
        assert_eq!((all.handled, all.failed), (100, 2));
        let latency = all.latency().unwrap().unwrap();
        let near = |a: f64, b: f64| (a - b).abs() < b / 500.0;
        assert_eq!(latency.count, 100);
        assert!(
            near(latency.p50, 1.0) && near(latency.p90, 1.0),
            "{latency:?}"
        );
        assert!(
            near(latency.p99, 5.0) && near(latency.max, 80.0),
            "{latency:?}"
        );
        assert_eq!(Counted::default().latency().unwrap(), None);
    }

    #[test]
    fn a_recorder_keeps_what_it_saw_on_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("counted.json");
        let recorder = Recorder::new().unwrap();
        recorder.handled(3);
        recorder.failed();
        let second = jiff::SignedDuration::from_secs(1);
        recorder.since(Timestamp::now() - second);
        recorder.since(Timestamp::now() + second); // a clock that was set back
        recorder.write(&path).unwrap();
        let counted = Counted::read(&path).unwrap();
        assert_eq!((counted.handled, counted.failed), (3, 1));
        let latency = counted.latency().unwrap().unwrap();
        assert_eq!(latency.count, 2);
        assert!(latency.max >= 999.0 && latency.p50 < 1.0, "{latency:?}");
    }
}
