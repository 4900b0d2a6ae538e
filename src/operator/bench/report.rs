//! What is made of the samples: a median of each figure for either side, and their ratio.

use std::collections::BTreeMap;

use serde::Serialize;

use super::roles::Kind;
use super::stage::{Job, Sample, Side, Stage};

/// A figure that a sample has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Figure {
    EventsPerSecond,
    /// CPU of Redis.
    RedisUsPerEvent,
    /// CPU of the other processes together.
    ClientUsPerEvent,
    /// What Redis' memory grew by.
    RedisBytesPerEvent,
    LatencyP50Ms,
    LatencyP90Ms,
    LatencyP99Ms,
    #[serde(rename = "latency_p99_9_ms")]
    LatencyP999Ms,
    LatencyMaxMs,
    PublishP50Ms,
    PublishP99Ms,
}

impl Figure {
    pub(super) const ALL: [Self; 11] = [
        Self::EventsPerSecond,
        Self::RedisUsPerEvent,
        Self::ClientUsPerEvent,
        Self::RedisBytesPerEvent,
        Self::LatencyP50Ms,
        Self::LatencyP90Ms,
        Self::LatencyP99Ms,
        Self::LatencyP999Ms,
        Self::LatencyMaxMs,
        Self::PublishP50Ms,
        Self::PublishP99Ms,
    ];

    pub(super) fn of(self, sample: &Sample) -> Option<f64> {
        let events = sample.events as f64;
        let (latency, published) = (sample.latency.as_ref(), sample.publish_latency.as_ref());
        match self {
            // A fixed rate is not achieved but given.
            Self::EventsPerSecond if sample.stage == Stage::Latency => None,
            Self::EventsPerSecond => Some(events / sample.seconds),
            Self::RedisUsPerEvent => Some(sample.redis.cpu_seconds * 1e6 / events),
            Self::ClientUsPerEvent => {
                let cpu: f64 = sample.processes.iter().map(|p| p.cpu_seconds).sum();
                Some(cpu * 1e6 / events)
            }
            Self::RedisBytesPerEvent => Some(sample.redis.memory_bytes as f64 / events),
            Self::LatencyP50Ms => latency.map(|l| l.p50),
            Self::LatencyP90Ms => latency.map(|l| l.p90),
            Self::LatencyP99Ms => latency.map(|l| l.p99),
            Self::LatencyP999Ms => latency.map(|l| l.p999),
            Self::LatencyMaxMs => latency.map(|l| l.max),
            Self::PublishP50Ms => published.map(|l| l.p50),
            Self::PublishP99Ms => published.map(|l| l.p99),
        }
    }
}

/// A figure over all repetitions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Spread {
    pub(super) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self {
            median: f64::midpoint(low, high),
            min,
            max,
        })
    }
}

/// One figure of one job, both sides.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Compared {
    pub(super) ours: Option<Spread>,
    pub(super) floor: Option<Spread>,
    /// Ours by the floor's.
    pub(super) ratio: Option<f64>,
}

/// How a command's calls compare: per event, calls and microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct PerEvent {
    pub(super) calls: f64,
    pub(super) usec: f64,
}

/// What a job showed.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) stage: Stage,
    pub(super) handler: Option<Kind>,
    pub(super) figures: BTreeMap<Figure, Compared>,
    /// Of the first repetition, by command.
    pub(super) commands: BTreeMap<String, [PerEvent; 2]>,
}

impl Outcome {
    pub(super) fn of(job: Job, samples: &[Sample]) -> Self {
        let of_side = |side: Side| {
            let mine =
                |s: &&Sample| s.stage == job.stage && s.handler == job.kind && s.side == side;
            samples.iter().filter(mine).collect::<Vec<_>>()
        };
        let sides = [of_side(Side::Ours), of_side(Side::Floor)];
        let compare = |figure: Figure| {
            let [ours, floor] = sides
                .each_ref()
                .map(|side| Spread::of(side.iter().filter_map(|s| figure.of(s)).collect()));
            ours.or(floor)?;
            let ratio = match (ours, floor) {
                (Some(ours), Some(floor)) if floor.median != 0.0 => {
                    Some(ours.median / floor.median)
                }
                _ => None,
            };
            Some((figure, Compared { ours, floor, ratio }))
        };
        let mut commands = BTreeMap::<String, [PerEvent; 2]>::new();
        for (at, side) in sides.iter().enumerate() {
            let Some(sample) = side.first() else { continue };
            let events = sample.events as f64;
            for (name, calls) in &sample.redis.commands {
                commands.entry(name.clone()).or_default()[at] = PerEvent {
                    calls: calls.calls as f64 / events,
                    usec: calls.usec as f64 / events,
                };
            }
            if sample.redis.script_own_usec > 0 {
                commands.entry(OWN.to_owned()).or_default()[at] = PerEvent {
                    calls: 0.0,
                    usec: sample.redis.script_own_usec as f64 / events,
                };
            }
        }
        Self {
            stage: job.stage,
            handler: job.kind,
            figures: Figure::ALL.into_iter().filter_map(compare).collect(),
            commands,
        }
    }

    pub(super) fn get(&self, figure: Figure) -> Option<&Compared> {
        self.figures.get(&figure)
    }
}

/// The line for what scripts took themselves.
const OWN: &str = "scripts without their commands";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::bench::redis_figures::{Calls, RedisCost};

    fn sample(stage: Stage, kind: Option<Kind>, side: Side, seconds: f64) -> Sample {
        let commands = [(
            "xadd".to_owned(),
            Calls {
                calls: 2_000,
                usec: 4_000,
            },
        )];
        Sample {
            stage,
            handler: kind,
            side,
            events: 1_000,
            seconds,
            redis: RedisCost {
                cpu_seconds: 0.01,
                commands: commands.into(),
                ..RedisCost::default()
            },
            processes: Vec::new(),
            latency: None,
            publish_latency: None,
        }
    }

    #[test]
    fn a_median_is_in_the_middle() {
        let median = |values: &[f64]| Spread::of(values.to_vec()).map(|s| (s.min, s.median, s.max));
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some((3.0, 3.0, 3.0)));
        assert_eq!(median(&[3.0, 1.0, 100.0]), Some((1.0, 3.0, 100.0)));
        assert_eq!(median(&[3.0, 1.0]), Some((1.0, 2.0, 3.0)));
    }

    #[test]
    fn figures_are_compared_and_held_against_targets() {
        let job = Job {
            stage: Stage::Handle,
            kind: Some(Kind::None),
        };
        let of = |side, seconds| sample(job.stage, job.kind, side, seconds);
        let samples = [
            of(Side::Ours, 2.0),
            of(Side::Floor, 1.0),
            of(Side::Ours, 4.0),
            of(Side::Floor, 1.0),
            of(Side::Ours, 2.0),
            sample(Stage::Handle, Some(Kind::OneEffect), Side::Ours, 9.0),
        ];
        let outcome = Outcome::of(job, &samples);
        let speed = outcome.get(Figure::EventsPerSecond).unwrap();
        assert_eq!(speed.ours.unwrap().median, 500.0);
        assert_eq!(speed.ours.unwrap().min, 250.0);
        assert_eq!(speed.ratio, Some(0.5));
        assert_eq!(outcome.get(Figure::LatencyP50Ms), None);
        assert_eq!(
            outcome.commands["xadd"][1],
            PerEvent {
                calls: 2.0,
                usec: 4.0
            }
        );
    }
}
