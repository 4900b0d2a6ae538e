//! How long each pure step of an event takes: `cargo bench --bench hot_path [-- <filter>]`.
#![allow(clippy::expect_used, missing_docs, unreachable_pub)]

mod stages;

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Calls that are prepared at a time: inputs that are taken by value must fit the memory.
const CHUNK: u64 = 128;

fn hot_path(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hot path");
    group.throughput(Throughput::Elements(1));
    group.warm_up_time(Duration::from_secs(1));
    group.measurement_time(Duration::from_secs(2));
    for stage in stages::stages() {
        group.bench_function(&stage.name, |bencher| {
            bencher.iter_custom(|calls| {
                let mut spent = Duration::ZERO;
                let mut left = calls;
                while left > 0 {
                    let now = left.min(CHUNK);
                    left -= now;
                    let work = stage.work(now);
                    let start = Instant::now();
                    work();
                    spent += start.elapsed();
                }
                spent / stage.events
            });
        });
    }
    group.finish();
}

criterion_group!(benches, hot_path);
criterion_main!(benches);
