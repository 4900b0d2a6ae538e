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

/// A figure that is looked at first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Target {
    pub(super) name: &'static str,
    pub(super) value: f64,
    pub(super) unit: &'static str,
    /// What it is to be, if something is.
    pub(super) wanted: Option<Wanted>,
    pub(super) met: Option<bool>,
}

/// A bound.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Wanted {
    AtLeast(f64),
    AtMost(f64),
}

impl Wanted {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }
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
    let row = |name, value: Option<f64>, unit, wanted: Option<Wanted>| {
        let value = value?;
        let met = wanted.map(|w: Wanted| w.is_met(value));
        Some(Target {
            name,
            value,
            unit,
            wanted,
            met,
        })
    };
    let (least, most) = (|v| Some(Wanted::AtLeast(v)), |v| Some(Wanted::AtMost(v)));
    use Figure::{EventsPerSecond, LatencyP50Ms, LatencyP99Ms, RedisUsPerEvent};
    let routing = ratio(Stage::Route, None, EventsPerSecond);
    let handling = |kind| ratio(Stage::Handle, Some(kind), EventsPerSecond);
    let subscriber = ratio(Stage::Handle, Some(Kind::None), RedisUsPerEvent);
    let whole = ratio(Stage::EndToEnd, None, RedisUsPerEvent);
    let latency = |figure| ours(Stage::Latency, None, figure);
    let rows = [
        row(
            "routing: throughput by the floor's",
            routing,
            "×",
            least(0.75),
        ),
        row(
            "handling without effects: throughput by the floor's",
            handling(Kind::None),
            "×",
            least(0.7),
        ),
        row(
            "handling with one effect: throughput by the floor's",
            handling(Kind::OneEffect),
            "×",
            least(0.6),
        ),
        row(
            "one more subscriber: Redis CPU by that of a bare read and acknowledgement",
            subscriber,
            "×",
            None,
        ),
        row(
            "end to end: Redis CPU by the floor's",
            whole,
            "×",
            most(1.3),
        ),
        row(
            "latency through the router, p50",
            latency(LatencyP50Ms),
            "ms",
            most(1.0),
        ),
        row(
            "latency through the router, p99",
            latency(LatencyP99Ms),
            "ms",
            most(5.0),
        ),
        row(
            "memory of a router or a worker, at most",
            worst(|r| r.peak_rss_mb.max),
            "MB",
            most(40.0),
        ),
        row(
            "from start to ready, at most",
            worst(|r| r.ready_ms.max),
            "ms",
            most(200.0),
        ),
    ];
    rows.into_iter().flatten().collect()
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
        let met = [Some(false), None, Some(false), Some(true)];
        let expected = [0.5, 1.0, 60.0, 50.0].into_iter().zip(met);
        assert_eq!(
            shown,
            expected.collect::<Vec<_>>(),
            "throughput, CPU, memory, start"
        );
    }
}
