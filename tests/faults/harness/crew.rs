//! The processes of a fleet, kept alive as systemd keeps them: what ends is started again a
//! moment later, under the same name.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::eventually;
use crate::support::fleet::Process;

/// Between the end of a process and its next start.
const RESTART: Duration = Duration::from_millis(100);

struct Member {
    name: String,
    command: Box<dyn Fn() -> Command + Send>,
    /// Environment of its first life only: a failpoint that it passed must not strike again.
    armed: Option<String>,
    log: PathBuf,
    /// Where in the log the present life begins.
    life_at: usize,
    process: Option<Process>,
    ended: Option<Instant>,
    /// How often it was started.
    lives: usize,
    /// How its lives ended: with an exit code, or by a signal.
    ends: Vec<Option<i32>>,
    dismissed: bool,
}

impl Member {
    fn start(&mut self) {
        let mut command = (self.command)();
        if let Some(armed) = self.armed.take() {
            command.env("STREAMFLEET_FAILPOINT", armed);
        }
        self.life_at = self.log_text().len();
        self.process = Some(Process::start(command, self.log.clone()));
        self.ended = None;
        self.lives += 1;
    }

    fn look(&mut self) {
        let process = self.process.as_mut();
        if let Some(end) = process.and_then(|p| p.child.try_wait().unwrap()) {
            self.ends.push(end.code());
            self.process = None;
            self.ended = Some(Instant::now());
        }
        if !self.dismissed && self.ended.is_some_and(|at| at.elapsed() >= RESTART) {
            self.start();
        }
    }

    fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

#[derive(Default)]
pub struct Crew {
    members: Arc<Mutex<Vec<Member>>>,
    closed: Arc<AtomicBool>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

impl Crew {
    /// Starts a process, with a failpoint armed in its first life if one is given, and keeps it
    /// alive from now on.
    pub fn hire(
        &self,
        name: &str,
        log: PathBuf,
        armed: Option<&str>,
        command: impl Fn() -> Command + Send + 'static,
    ) {
        let mut member = Member {
            name: name.to_owned(),
            command: Box::new(command),
            armed: armed.map(str::to_owned),
            log,
            life_at: 0,
            process: None,
            ended: None,
            lives: 0,
            ends: Vec::new(),
            dismissed: false,
        };
        member.start();
        self.members().push(member);
        self.keeper.lock().unwrap().get_or_insert_with(|| {
            let (members, closed) = (self.members.clone(), self.closed.clone());
            std::thread::spawn(move || {
                while !closed.load(Ordering::SeqCst) {
                    members.lock().unwrap().iter_mut().for_each(Member::look);
                    std::thread::sleep(Duration::from_millis(10));
                }
            })
        });
    }

    fn members(&self) -> MutexGuard<'_, Vec<Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, name: &str, act: impl FnOnce(&mut Member) -> T) -> T {
        let mut members = self.members();
        let member = members.iter_mut().find(|member| member.name == name);
        act(member.unwrap_or_else(|| panic!("nobody is called {name}")))
    }

    /// Waits until a process runs under this name; answers its ID.
    pub fn pid(&self, name: &str) -> u32 {
        eventually(&format!("{name} runs"), || {
            self.with(name, |m| m.process.as_ref().map(|p| p.child.id()))
        })
    }

    /// Sends a signal to the process of this name.
    pub fn signal(&self, name: &str, signal: &str) {
        self.pid(name);
        self.with(name, |member| {
            if let Some(process) = &member.process {
                process.signal(signal);
            }
        });
    }

    /// kill -9; it is started again.
    pub fn kill(&self, name: &str) {
        self.signal(name, "KILL");
    }

    /// SIGTERM for good; waits for its end and answers its exit code.
    pub fn dismiss(&self, name: &str) -> Option<i32> {
        let process = self.with(name, |member| {
            member.dismissed = true;
            member.process.take()
        });
        let mut process = process?;
        process.signal("TERM");
        process.exit_code()
    }

    /// How its lives ended so far: with an exit code, or (`None`) by a signal.
    pub fn ends(&self, name: &str) -> Vec<Option<i32>> {
        self.with(name, |member| member.ends.clone())
    }

    /// Starts it no more when it ends.
    pub fn leave_dead(&self, name: &str) {
        self.with(name, |member| member.dismissed = true);
    }

    /// How often it was started.
    pub fn lives(&self, name: &str) -> usize {
        self.with(name, |member| member.lives)
    }

    /// Waits until it has said this in its present life.
    pub fn says(&self, name: &str, text: &str) {
        eventually(&format!("{name} says {text:?}"), || {
            self.with(name, |member| {
                let log = member.log_text();
                log.get(member.life_at..)?.contains(text).then_some(())
            })
        });
    }

    /// How often it said this in all its lives.
    pub fn said(&self, name: &str, text: &str) -> usize {
        self.with(name, |member| member.log_text().matches(text).count())
    }

    /// The last lines of each log.
    pub fn last_words(&self) -> String {
        let mut words = String::new();
        for member in self.members().iter() {
            let text = member.log_text();
            let lines: Vec<_> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(25)..].join("\n");
            words += &format!("--- {}, {} lives\n{tail}\n", member.name, member.lives);
        }
        words
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        if let Some(keeper) = self
            .keeper
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            drop(keeper.join());
        }
    }
}
