//! `streamfleet bench`: what each stage does per second and costs per event, beside a floor that
//! issues the least commands with which the same work could be done.
//!
//! | file | what |
//! |---|---|
//! | args | its arguments |
//! | workload | the events, their schemas and routing.yaml |
//! | roles, floor | what the processes run: producer and worker; the bare client |
//! | process, redis_figures, latency | what they cost: `/proc`, INFO, HdrHistogram |
//! | place, stage, cast | the Redis, one measured run on it, and who takes part |
//! | report, targets, machine | medians and ratios; those with a target; what it was measured on |
//! | show, chart | tables and bars; SVG |
//!
//! Everything runs in processes of its own and, unless a Redis is given, on a private server.
//! Redis: everything under [`workload::NAMESPACE`], and nothing else; it is deleted in the end.

mod args;
mod cast;
mod chart;
mod floor;
mod latency;
mod machine;
mod place;
mod process;
mod redis_figures;
mod report;
mod roles;
mod show;
mod stage;
mod targets;
mod workload;

use std::fs;
use std::io::{Write, stdout};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

pub(super) use self::args::Args;
use self::machine::Machine;
use self::place::{Memory, Place};
use self::report::Outcome;
pub(super) use self::roles::{RoleArgs, run_role};
use self::stage::{Bench, Sample, Scale, Side, Stage};
use self::targets::{RoleFigures, Target, roles, targets};
use self::workload::{NAMESPACE, Shape, Workload, recipients};
use super::CommandError;
use super::answer::{Output, answer, one_line};
use super::child::{ROUTER, programs};
use super::server::{REDIS_SERVER, Server};
use super::text::Paint;
use crate::environment::variable;
use crate::process::args::RedisArgs;
use crate::process::exit::Exit;
use crate::process::interrupted;

/// Of so many events each measurement runs once before it counts.
const WARM_UP_SHARE: u64 = 10;
const WARM_UP: RangeInclusive<u64> = 500..=50_000;

/// Everything that a run found out.
#[derive(Serialize)]
struct Findings<'a> {
    machine: &'a Machine,
    parameters: &'a Scale,
    repeat: u64,
    #[serde(rename = "results")]
    outcomes: &'a [Outcome],
    targets: &'a [Target],
    #[serde(rename = "processes")]
    roles: &'a [RoleFigures],
    memory: Option<&'a Memory>,
    samples: &'a [Sample],
}

pub(super) async fn run(args: Args) -> Result<Exit, CommandError> {
    args.check();
    args.measure().await
}

impl Args {
    async fn measure(self) -> Result<Exit, CommandError> {
        // Not only in the end, when everything is measured.
        for path in [&self.save, &self.chart].into_iter().flatten() {
            let opened = fs::File::options().create(true).append(true).open(path);
            opened.map_err(|cause| CommandError::File {
                path: path.clone(),
                cause,
            })?;
        }
        let router = programs(&[ROUTER]).map_err(|missing| {
            CommandError::Refused(format!(
                "{missing}. Build it (cargo build), or install it beside this program"
            ))
        })?;
        let me = std::env::current_exe()?;
        let folder = tempfile::Builder::new()
            .prefix("streamfleet-bench-")
            .tempdir()?;
        let mut server = None;
        let redis = match &self.redis_url {
            Some(url) => RedisArgs::by_environment(url),
            None => {
                let server = server.insert(self.start_server(folder.path()).await?);
                RedisArgs::bare(&server.url)
            }
        };
        let place = Place::new(redis)?;
        if !place.present().await?.is_empty() {
            return Err(CommandError::Refused(format!(
                "there are keys under {NAMESPACE}: on this Redis, which this would delete. If they are left from a benchmark that was killed, delete them; else use another Redis"
            )));
        }
        let shape = Shape {
            types: self.types,
            event_bytes: self.event_bytes,
            subscribers: self.subscribers,
            concurrency: self.concurrency,
            maxlen: self.maxlen,
        };
        let (path, config) = shape.write(folder.path())?;
        let workload = Workload::new(self.types, self.event_bytes);
        let bench = Bench {
            place: &place,
            scale: self.scale(),
            recipients: recipients(&workload, &config)?,
            workload,
            router: router.into_iter().next().unwrap_or_default(),
            me,
            config: path,
            folder: folder.path(),
        };
        let machine = Machine::read(&place.link).await?;
        // Dropping what runs kills its processes.
        let ran = tokio::select! {
            biased;
            () = interrupted() => Err(CommandError::Refused("stopped: nothing was measured to its end".into())),
            ran = self.run_all(bench) => ran,
        };
        // Whatever came of it: on a Redis that is not ours, nothing is left.
        let cleared = place.clear().await;
        if let Some(server) = server {
            server.child.terminate();
            let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
            server.child.wait_until(deadline).await;
        }
        let (samples, memory) = ran?;
        cleared?;
        self.show(&machine, &samples, memory.as_ref())?;
        Ok(Exit::Clean)
    }

    async fn start_server(&self, folder: &Path) -> Result<Server, CommandError> {
        let mut more = vec![(
            "--appendonly",
            if self.append_only { "yes" } else { "no" }.to_owned(),
        )];
        if let Some(bytes) = self.stream_node_bytes {
            more.push(("--stream-node-max-bytes", bytes.to_string()));
        }
        let silent = Arc::new(|_: &str| {});
        let named = variable(REDIS_SERVER).map(PathBuf::from);
        let program = self.redis_server.clone().or(named);
        let program = program.unwrap_or_else(|| "redis-server".into());
        Server::start(&program, folder, None, &more, silent).await
    }

    async fn run_all(
        &self,
        mut bench: Bench<'_>,
    ) -> Result<(Vec<Sample>, Option<Memory>), CommandError> {
        let jobs = self.jobs();
        let sides: &[Side] = match self.no_floor {
            true => &[Side::Ours],
            false => &[Side::Ours, Side::Floor],
        };
        let bar = progress(jobs.len() as u64 * sides.len() as u64 * (self.repeat + 1));
        let whole = bench.scale.clone();
        let mut samples = Vec::new();
        for job in jobs {
            for turn in 0..=self.repeat {
                // The first is to warm up.
                bench.scale = whole.clone();
                if turn == 0 {
                    let few =
                        (whole.events / WARM_UP_SHARE).clamp(*WARM_UP.start(), *WARM_UP.end());
                    for size in [
                        &mut bench.scale.events,
                        &mut bench.scale.history,
                        &mut bench.scale.waiting,
                    ] {
                        *size = few.min(*size);
                    }
                    bench.scale.rate_seconds = 1;
                }
                for &side in sides {
                    bar.set_message(match job.kind {
                        Some(kind) => format!("{}, {}", job.stage.as_str(), kind.as_str()),
                        None => job.stage.as_str().to_owned(),
                    });
                    let sample = bench.sample(job, side).await?;
                    if turn > 0 {
                        samples.push(sample);
                    }
                    bar.inc(1);
                }
            }
        }
        let memory = match self.stages.contains(&Stage::Handle) {
            true => Some(
                bench
                    .place
                    .memory(&bench.workload, &bench.recipients)
                    .await?,
            ),
            false => None,
        };
        bar.finish_and_clear();
        Ok((samples, memory))
    }

    fn show(
        &self,
        machine: &Machine,
        samples: &[Sample],
        memory: Option<&Memory>,
    ) -> Result<(), CommandError> {
        let outcomes: Vec<_> = self
            .jobs()
            .into_iter()
            .map(|job| Outcome::of(job, samples))
            .collect();
        let roles = roles(samples);
        let findings = Findings {
            machine,
            parameters: &self.scale(),
            repeat: self.repeat,
            outcomes: &outcomes,
            targets: &targets(&outcomes, &roles),
            roles: &roles,
            memory,
            samples,
        };
        let json = one_line(&findings)? + "\n";
        let write = |path: &PathBuf, text: &str| {
            fs::write(path, text).map_err(|cause| CommandError::File {
                path: path.clone(),
                cause,
            })
        };
        if let Some(path) = &self.save {
            write(path, &json)?;
        }
        if let Some(path) = &self.chart {
            write(path, &chart::svg(machine, &outcomes, samples))?;
        }
        match self.output {
            Output::Table => {
                let text = show::report(Paint::stdout(), &findings);
                stdout().write_all(text.as_bytes())?;
            }
            output => answer(output, "bench", [findings])?,
        }
        Ok(())
    }
}

fn progress(length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    match ProgressStyle::with_template("{bar:32} {percent:>3}%  {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
