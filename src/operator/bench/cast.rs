//! Who plays which part: how the processes of either side are started.

use super::super::CommandError;
use super::super::child::{Listener, Spec};
use super::process::Player;
use super::roles::Kind;
use super::stage::{Bench, Job, Side, Stage};
use crate::fleet::ROUTER;
use crate::process::args::CONFIG;

pub(super) const WORKER: &str = "worker";
pub(super) const PRODUCER: &str = "producer";

impl Bench<'_> {
    fn role(&self, listener: Listener, name: &str) -> Spec {
        self.connected(Spec::new(&self.me, listener).arg("bench-role"))
            .arg(name)
    }

    fn connected(&self, spec: Spec) -> Spec {
        spec.env(CONFIG, &self.config)
            .envs(self.place.redis.environment())
            .env("STREAMFLEET_LOG_FORMAT", "json")
            .env("STREAMFLEET_LOG", "info")
    }

    pub(super) fn router(&self, side: Side) -> Result<Player, CommandError> {
        Player::start(ROUTER, None, |listener| match side {
            Side::Ours => self.connected(Spec::new(&self.router, listener)),
            Side::Floor => {
                let spec = self.role(listener, "floor-route");
                let spec = spec.arg("--to").arg(&self.recipients);
                let spec = spec.arg("--event-type").arg(self.workload.event_type(0));
                match self.scale.routers {
                    1 => spec,
                    _ => spec.arg("--several"),
                }
            }
        })
    }

    pub(super) fn worker(
        &self,
        job: Job,
        side: Side,
        subscriber: &str,
        at: usize,
    ) -> Result<Player, CommandError> {
        let counted = self.folder.join(format!("counted-{at}.json"));
        Player::start(WORKER, Some(counted.clone()), |listener| {
            let role = if side == Side::Ours {
                "work"
            } else {
                "floor-work"
            };
            let spec = self
                .role(listener, role)
                .arg("--subscriber")
                .arg(subscriber);
            let kind = job.kind.unwrap_or(Kind::None);
            let spec = spec.arg("--kind").arg(kind.as_str());
            let spec = spec
                .arg("--fail")
                .arg(self.scale.failures_per_million.to_string());
            let spec = spec.arg("--counted").arg(&counted);
            let spec = spec.arg("--threads").arg(self.scale.threads.to_string());
            match job.stage {
                Stage::Handle => spec,
                _ => spec.arg("--record"),
            }
        })
    }

    pub(super) fn producer(
        &self,
        stage: Stage,
        side: Side,
        events: u64,
        warm_up: u64,
    ) -> Result<Player, CommandError> {
        let counted = self.folder.join("published.json");
        Player::start(PRODUCER, Some(counted.clone()), |listener| {
            let number = |n: u64| n.to_string();
            let spec = self
                .role(listener, "produce")
                .arg("--types")
                .arg(number(self.scale.types));
            let spec = spec
                .arg("--event-bytes")
                .arg(number(self.scale.event_bytes));
            let spec = spec.arg("--events").arg(number(events));
            let spec = spec
                .arg("--warm-up")
                .arg(number(warm_up))
                .arg("--counted")
                .arg(&counted);
            let spec = match self.scale.inbox_limit {
                Some(limit) if stage == Stage::EndToEnd => {
                    spec.arg("--inbox-limit").arg(number(limit))
                }
                _ => spec,
            };
            match (stage, side) {
                (Stage::Latency, _) => spec.arg("--rate").arg(number(self.scale.rate)),
                (_, Side::Floor) => spec.arg("--bare"),
                (_, Side::Ours) => spec,
            }
        })
    }
}
