//! What is counted in: atomics of a fixed number, so that counting neither allocates nor locks.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A number that only grows, or that is set.
pub(crate) struct Number(AtomicU64);

impl Number {
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A counter for each value of one label. The last value is that of everything which is none of the
/// others: nothing that comes from outside makes a series of its own.
pub(crate) struct Labelled<const N: usize> {
    pub(super) values: [&'static str; N],
    counts: [AtomicU64; N],
}

impl<const N: usize> Labelled<N> {
    pub(super) const fn new(values: [&'static str; N]) -> Self {
        Self {
            values,
            counts: [const { AtomicU64::new(0) }; N],
        }
    }

    pub(crate) fn add(&self, value: &str, more: u64) {
        let found = self.values.iter().position(|known| *known == value);
        if let Some(count) = self.counts.get(found.unwrap_or(N.saturating_sub(1))) {
            count.fetch_add(more, Relaxed);
        }
    }

    /// Each value with its count.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.counts.iter().map(|count| count.load(Relaxed));
        self.values.into_iter().zip(counts)
    }
}

/// How values are spread: a count for each bucket, and their sum.
pub(crate) struct Histogram<const N: usize> {
    /// Upper bounds of the buckets, in ascending order.
    bounds: &'static [u64; N],
    /// How many of these make one of the unit that is shown.
    per_unit: u64,
    counts: [AtomicU64; N],
    beyond: AtomicU64,
    sum: AtomicU64,
}

/// A histogram as it was at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spread {
    /// Upper bound and count, not cumulative; the last bound is infinite.
    pub(super) buckets: Vec<(f64, u64)>,
    pub(super) sum: f64,
    pub(super) count: u64,
}

impl<const N: usize> Histogram<N> {
    /// Of counts.
    pub(super) const fn of_counts(bounds: &'static [u64; N]) -> Self {
        Self::new(bounds, 1)
    }

    /// Of times: bounds in microseconds, shown in seconds.
    pub(super) const fn of_times(bounds: &'static [u64; N]) -> Self {
        Self::new(bounds, 1_000_000)
    }

    const fn new(bounds: &'static [u64; N], per_unit: u64) -> Self {
        Self {
            bounds,
            per_unit,
            counts: [const { AtomicU64::new(0) }; N],
            beyond: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }

    /// The same value, so many times.
    pub(crate) fn observe(&self, value: u64, times: u64) {
        let bucket = self.bounds.iter().position(|bound| value <= *bound);
        self.bucket(bucket).fetch_add(times, Relaxed);
        self.sum.fetch_add(value.saturating_mul(times), Relaxed);
    }

    /// A time.
    pub(crate) fn took(&self, time: Duration) {
        self.observe(micros(time), 1);
    }

    /// Many values at once: each bucket is touched once.
    pub(crate) fn observe_all(&self, values: impl Iterator<Item = u64>) {
        let (mut counts, mut beyond, mut sum) = ([0_u64; N], 0_u64, 0_u64);
        for value in values {
            let bucket = self.bounds.iter().position(|bound| value <= *bound);
            *bucket
                .and_then(|b| counts.get_mut(b))
                .unwrap_or(&mut beyond) += 1;
            sum = sum.saturating_add(value);
        }
        for (bucket, count) in self.counts.iter().zip(counts) {
            if count > 0 {
                bucket.fetch_add(count, Relaxed);
            }
        }
        self.beyond.fetch_add(beyond, Relaxed);
        self.sum.fetch_add(sum, Relaxed);
    }

    fn bucket(&self, bucket: Option<usize>) -> &AtomicU64 {
        let bounded = bucket.and_then(|bucket| self.counts.get(bucket));
        bounded.unwrap_or(&self.beyond)
    }

    /// How many values there were.
    pub(crate) fn count(&self) -> u64 {
        let bounded = self.counts.iter().map(|count| count.load(Relaxed));
        bounded.sum::<u64>() + self.beyond.load(Relaxed)
    }

    /// Their sum; of times in microseconds.
    pub(crate) fn sum(&self) -> u64 {
        self.sum.load(Relaxed)
    }

    pub(super) fn spread(&self) -> Spread {
        let unit = self.per_unit as f64;
        let counts = self.counts.iter().map(|count| count.load(Relaxed));
        let bounds = self.bounds.iter().map(|bound| *bound as f64 / unit);
        let mut buckets: Vec<_> = bounds.zip(counts).collect();
        buckets.push((f64::INFINITY, self.beyond.load(Relaxed)));
        Spread {
            // Of the same moment as the buckets: the two must agree.
            count: buckets.iter().map(|(_, count)| count).sum(),
            sum: self.sum() as f64 / unit,
            buckets,
        }
    }
}

/// Whole microseconds.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_each_value_in_the_first_bucket_that_holds_it() {
        let times: Histogram<2> = Histogram::of_times(&[1_000, 2_500]);
        times.took(Duration::from_micros(1_000));
        times.observe(1_001, 2);
        times.observe_all([7, 2_501, 9_000].into_iter());
        let spread = times.spread();
        assert_eq!(
            spread.buckets,
            [(0.001, 2), (0.0025, 2), (f64::INFINITY, 2)]
        );
        assert_eq!((spread.count, times.count()), (6, 6));
        assert_eq!(times.sum(), 1_000 + 2 * 1_001 + 7 + 2_501 + 9_000);
        assert!((spread.sum - times.sum() as f64 / 1e6).abs() < 1e-12);
    }

    #[test]
    fn what_is_no_value_of_a_label_counts_as_the_last() {
        let reasons = Labelled::new(["a", "b", "other"]);
        reasons.add("b", 2);
        reasons.add("from outside", 3);
        let counts: Vec<_> = reasons.counts().collect();
        assert_eq!(counts, [("a", 0), ("b", 2), ("other", 3)]);
    }
}
