//! The processes of a benchmark: started, waited for, and what each cost.
//!
//! CPU time and memory are those that the kernel keeps for the process (`/proc/<pid>`), so they
//! hold whatever it does with its threads.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::super::CommandError;
use super::super::child::{Child, Listener, Spec};
use super::latency::Counted;
use super::roles::{DONE, MARK, READY};

/// The words by which the router's log says that it reads.
const ROUTER_READY: &str = "\"router started\"";
/// How long a process may take to be ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to stop.
const DRAIN: Duration = Duration::from_secs(30);
/// How many of its last lines are shown when it fails.
const TAIL: usize = 15;

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usage {
    pub(super) cpu_seconds: f64,
    pub(super) rss_bytes: u64,
    pub(super) peak_bytes: u64,
}

impl Usage {
    /// Of a process; nothing if it is gone.
    pub(super) fn of(pid: u32) -> Self {
        let read =
            |file| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        Self::parse(&read("stat"), &read("status"))
    }

    fn parse(stat: &str, status: &str) -> Self {
        // The name of the program, in brackets, may hold anything.
        let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
        let ticks = |at: usize| {
            let field = after.split(' ').nth(at);
            field.and_then(|f| f.parse::<u64>().ok()).unwrap_or(0)
        };
        let memory = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
            kib.unwrap_or(0) * 1024
        };
        let per_second = rustix::param::clock_ticks_per_second() as f64;
        Self {
            cpu_seconds: (ticks(11) + ticks(12)) as f64 / per_second,
            rss_bytes: memory("VmRSS:"),
            peak_bytes: memory("VmHWM:"),
        }
    }
}

/// What one process cost.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ProcessFigures {
    pub(super) role: &'static str,
    /// From being spawned to being ready.
    pub(super) ready_ms: f64,
    /// While it was measured.
    pub(super) cpu_seconds: f64,
    /// At the end.
    pub(super) rss_bytes: u64,
    pub(super) peak_bytes: u64,
}

/// A line that tells how far a process is, and what it had used by then.
struct Mark {
    at: Instant,
    usage: Usage,
    line: String,
}

/// A process that takes part.
pub(super) struct Player {
    role: &'static str,
    child: Child,
    pid: u32,
    marks: UnboundedReceiver<Mark>,
    tail: Arc<Mutex<VecDeque<String>>>,
    /// Where it leaves what it counted.
    counted: Option<PathBuf>,
    spawned: Instant,
    ready: Instant,
    before: Usage,
    after: Usage,
}

impl Player {
    /// Starts a process; `program` gets what listens to it and adds its arguments.
    pub(super) fn start(
        role: &'static str,
        counted: Option<PathBuf>,
        program: impl FnOnce(Listener) -> Spec,
    ) -> Result<Self, CommandError> {
        let (tell, marks) = unbounded_channel();
        let tail = Arc::<Mutex<VecDeque<String>>>::default();
        let keep = tail.clone();
        let pid = Arc::<AtomicU32>::default();
        let of_pid = pid.clone();
        let listener: Listener = Arc::new(move |line| {
            if line.starts_with(MARK) || line.contains(ROUTER_READY) {
                // When nobody listens any more, the bench is over.
                let _ = tell.send(Mark {
                    at: Instant::now(),
                    usage: Usage::of(of_pid.load(Ordering::Relaxed)),
                    line: line.to_owned(),
                });
            }
            let mut keep = keep.lock().unwrap_or_else(PoisonError::into_inner);
            if keep.len() == TAIL {
                keep.pop_front();
            }
            keep.push_back(line.to_owned());
        });
        let spec = program(listener);
        let spawned = Instant::now();
        let child = spec.spawn()?;
        // Its output is read by this thread, and so not before this.
        pid.store(child.id().unwrap_or(0), Ordering::Relaxed);
        Ok(Self {
            role,
            pid: pid.load(Ordering::Relaxed),
            child,
            marks,
            tail,
            counted,
            spawned,
            ready: spawned,
            before: Usage::default(),
            after: Usage::default(),
        })
    }

    /// Waits until it is ready; measuring begins there.
    pub(super) async fn ready(&mut self) -> Result<Instant, CommandError> {
        let wait = self.marked(|line| line == READY || line.contains(ROUTER_READY));
        let Ok(mark) = tokio::time::timeout(PATIENCE, wait).await else {
            return Err(self.failure("was not ready in time"));
        };
        let mark = mark?;
        (self.ready, self.before) = (mark.at, mark.usage);
        Ok(self.ready)
    }

    /// Measures from here.
    pub(super) fn mark_start(&mut self) {
        self.before = Usage::of(self.pid);
    }

    /// Measures to here.
    pub(super) fn mark_end(&mut self) {
        self.after = Usage::of(self.pid);
    }

    /// Waits until the producer has sent everything; answers how long that took it.
    pub(super) async fn done(&mut self) -> Result<Duration, CommandError> {
        let mark = self.marked(|line| line.starts_with(DONE)).await?;
        let nanos = mark.line.strip_prefix(DONE).and_then(|n| n.parse().ok());
        Ok(Duration::from_nanos(nanos.unwrap_or(0)))
    }

    async fn marked(&mut self, is_it: impl Fn(&str) -> bool) -> Result<Mark, CommandError> {
        loop {
            tokio::select! {
                biased;
                mark = self.marks.recv() => match mark {
                    Some(mark) if is_it(&mark.line) => return Ok(mark),
                    Some(_) => {}
                    None => return Err(self.ended().await),
                },
                status = self.child.exited() => return Err(self.failure(&format!("ended by itself ({status})"))),
            }
        }
    }

    /// Waits for an end that should not come.
    pub(super) async fn ended(&mut self) -> CommandError {
        let status = self.child.exited().await;
        self.failure(&format!("ended by itself ({status})"))
    }

    fn failure(&self, what: &str) -> CommandError {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let tail: Vec<_> = tail.iter().map(|line| format!("\n  {line}")).collect();
        CommandError::Refused(format!("the {} {what}:{}", self.role, tail.concat()))
    }

    /// Stops it; answers what it cost and what it counted.
    pub(super) async fn stop(self) -> Result<(ProcessFigures, Counted), CommandError> {
        let figures = ProcessFigures {
            role: self.role,
            ready_ms: (self.ready - self.spawned).as_secs_f64() * 1e3,
            cpu_seconds: self.after.cpu_seconds - self.before.cpu_seconds,
            rss_bytes: self.after.rss_bytes,
            peak_bytes: self.after.peak_bytes,
        };
        self.child.terminate();
        let deadline = tokio::time::Instant::now() + DRAIN;
        self.child.wait_until(deadline).await;
        let counted = match &self.counted {
            Some(path) => Counted::read(path)?,
            None => Counted::default(),
        };
        Ok((figures, counted))
    }
}

/// Waits for the end of any of them, which should not come.
pub(super) async fn any_end(players: &mut [Player]) -> CommandError {
    let waits: Vec<_> = players.iter_mut().map(|p| Box::pin(p.ended())).collect();
    match waits.is_empty() {
        true => std::future::pending().await,
        false => futures_util::future::select_all(waits).await.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_read_as_it_writes() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194304 151 0 0 0 25 75 3 4 20 0 2 0 1 1 1";
        let status = "Name:\tb\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let usage = Usage::parse(stat, status);
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!(usage.cpu_seconds, 100.0 / ticks);
        assert_eq!((usage.rss_bytes, usage.peak_bytes), (1 << 20, 2 << 20));
        assert!(Usage::of(std::process::id()).rss_bytes > 0);
        assert_eq!(Usage::parse("", ""), Usage::default());
    }
}
