//! The figures that have a target, and what the processes in production are like.

use serde::Serialize;

use super::cast::WORKER;
use super::process::ProcessFigures;
use super::report::{Figure, Outcome, Spread};
use super::roles::Kind;
use super::stage::{Sample, Side, Stage};
use crate::fleet::ROUTER;

/// What the processes of one role were like, in all samples of one side.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct RoleFigures {
    pub(super) role: &'static str,
    pub(super) side: Side,
    /// From being spawned to being ready.
    pub(super) ready_ms: Spread,
    /// Memory when the work was done, and the most that it ever was; MB are a million bytes.
    pub(super) rss_mb: Spread,
    pub(super) peak_rss_mb: Spread,
}

/// Routers and workers: what runs in production.
pub(super) fn roles(samples: &[Sample]) -> Vec<RoleFigures> {
    let mut all = Vec::new();
    for role in [ROUTER, WORKER] {
        for side in [Side::Ours, Side::Floor] {
            let mine = samples.iter().filter(|s| s.side == side);
            let mine: Vec<_> = mine
                .flat_map(|s| &s.processes)
                .filter(|p| p.role == role)
                .collect();
            let spread =
                |of: fn(&ProcessFigures) -> f64| Spread::of(mine.iter().map(|p| of(p)).collect());
            let ready = spread(|p| p.ready_ms);
            let rss = spread(|p| p.rss_bytes as f64 / 1e6);
            let peak = spread(|p| p.peak_bytes as f64 / 1e6);
            if let (Some(ready_ms), Some(rss_mb), Some(peak_rss_mb)) = (ready, rss, peak) {
                all.push(RoleFigures {
                    role,
                    side,
                    ready_ms,
                    rss_mb,
                    peak_rss_mb,
                });
            }
        }
    }
    all
}

/// A figure that has a target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Target {
    pub(super) name: &'static str,
    pub(super) value: f64,
    /// What it is to be: at least, or at most.
    pub(super) wanted: f64,
    pub(super) at_least: bool,
    pub(super) unit: &'static str,
    pub(super) met: bool,
}

/// All targets for which there are figures.
pub(super) fn targets(outcomes: &[Outcome], roles: &[RoleFigures]) -> Vec<Target> {
    let get = |stage: Stage, kind: Option<Kind>, figure: Figure| {
        let mut these = outcomes.iter().filter(|o| o.stage == stage);
        these
            .find(|o| kind.is_none_or(|k| o.handler == Some(k)))?
            .get(figure)
            .copied()
    };
    let ratio = |stage, kind, figure| get(stage, kind, figure)?.ratio;
    let ours = |stage, kind, figure| Some(get(stage, kind, figure)?.ours?.median);
    let worst = |of: fn(&RoleFigures) -> f64| {
        roles
            .iter()
            .filter(|r| r.side == Side::Ours)
            .map(of)
            .reduce(f64::max)
    };
    use Figure::{EventsPerSecond, LatencyP50Ms, LatencyP99Ms, RedisUsPerEvent};
    let rows = [
        (
            "routing: throughput by the floor's",
            ratio(Stage::Route, None, EventsPerSecond),
            0.75,
            true,
            "×",
        ),
        (
            "handling without effects: throughput by the floor's",
            ratio(Stage::Handle, Some(Kind::None), EventsPerSecond),
            0.7,
            true,
            "×",
        ),
        (
            "handling with one effect: throughput by the floor's",
            ratio(Stage::Handle, Some(Kind::OneEffect), EventsPerSecond),
            0.6,
            true,
            "×",
        ),
        (
            "one more subscriber: Redis CPU by that of a bare read and acknowledgement",
            ratio(Stage::Handle, Some(Kind::None), RedisUsPerEvent),
            1.3,
            false,
            "×",
        ),
        (
            "end to end: Redis CPU by the floor's",
            ratio(Stage::EndToEnd, None, RedisUsPerEvent),
            1.3,
            false,
            "×",
        ),
        (
            "latency through the router, p50",
            ours(Stage::Latency, None, LatencyP50Ms),
            1.0,
            false,
            "ms",
        ),
        (
            "latency through the router, p99",
            ours(Stage::Latency, None, LatencyP99Ms),
            5.0,
            false,
            "ms",
        ),
        (
            "memory of a router or a worker, at most",
            worst(|r| r.peak_rss_mb.max),
            40.0,
            false,
            "MB",
        ),
        (
            "from start to ready",
            worst(|r| r.ready_ms.max),
            200.0,
            false,
            "ms",
        ),
    ];
    rows.into_iter()
        .filter_map(|(name, value, wanted, at_least, unit)| {
            let value = value?;
            let met = if at_least {
                value >= wanted
            } else {
                value <= wanted
            };
            Some(Target {
                name,
                value,
                wanted,
                at_least,
                unit,
                met,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::bench::redis_figures::RedisCost;
    use crate::operator::bench::stage::Job;

    #[test]
    fn what_has_a_figure_is_held_against_its_target() {
        let job = Job {
            stage: Stage::Handle,
            kind: Some(Kind::None),
        };
        let sample = |side, seconds, rss: u64| Sample {
            stage: job.stage,
            handler: job.kind,
            side,
            events: 1_000,
            seconds,
            redis: RedisCost {
                cpu_seconds: 0.01,
                ..RedisCost::default()
            },
            processes: vec![ProcessFigures {
                role: WORKER,
                ready_ms: 50.0,
                cpu_seconds: 1.0,
                rss_bytes: rss,
                peak_bytes: 2 * rss,
            }],
            latency: None,
            publish_latency: None,
        };
        let samples = [
            sample(Side::Ours, 2.0, 30_000_000),
            sample(Side::Floor, 1.0, 90_000_000),
            sample(Side::Ours, 2.0, 10_000_000),
        ];
        let roles = roles(&samples);
        assert_eq!(roles.len(), 2, "no router took part");
        assert_eq!(roles[0].rss_mb.median, 20.0);
        let targets = targets(&[Outcome::of(job, &samples)], &roles);
        let shown: Vec<_> = targets.iter().map(|t| (t.value, t.met)).collect();
        let expected = [(0.5, false), (1.0, true), (60.0, false), (50.0, true)];
        assert_eq!(shown, expected, "throughput, CPU, memory, start");
    }
}
