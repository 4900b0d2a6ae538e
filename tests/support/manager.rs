//! A stand-in for the service manager: the socket to which a process tells that it is ready, what it
//! is doing and that it is alive, as systemd listens to it.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use uuid::Uuid;

/// Longer than the patience with a loop that is stuck.
const DEADLINE: Duration = Duration::from_secs(60);

pub struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    /// Where the process may leave its answers.
    pub runtime: PathBuf,
    /// Words that were received together with others.
    rest: VecDeque<String>,
}

impl Manager {
    /// Listens in this folder; several may.
    pub fn listen(folder: &Path) -> Self {
        let runtime = folder.join(Uuid::new_v4().simple().to_string());
        std::fs::create_dir(&runtime).unwrap();
        let path = runtime.join("notify.sock");
        Self {
            socket: UnixDatagram::bind(&path).unwrap(),
            path,
            runtime,
            rest: VecDeque::new(),
        }
    }

    /// Makes it the manager of a process, which must feed a watchdog of so many seconds.
    pub fn manages(&self, command: &mut Command, watchdog: u64) {
        command
            .env("NOTIFY_SOCKET", &self.path)
            .env("RUNTIME_DIRECTORY", &self.runtime)
            .env("WATCHDOG_USEC", (watchdog * 1_000_000).to_string())
            .env_remove("WATCHDOG_PID");
    }

    /// The next word, such as `READY=1`, if one comes in time.
    pub fn word(&mut self, patience: Duration) -> Option<String> {
        if let Some(word) = self.rest.pop_front() {
            return Some(word);
        }
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let mut buffer = [0; 4096];
        match self.socket.recv(&mut buffer) {
            Ok(length) => {
                let text = std::str::from_utf8(&buffer[..length]).unwrap();
                self.rest.extend(text.lines().map(str::to_owned));
                self.rest.pop_front()
            }
            Err(error) => {
                assert!(
                    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
                    "{error}"
                );
                None
            }
        }
    }

    /// Waits for a word that starts like this, and answers all up to it.
    #[track_caller]
    pub fn hears(&mut self, start: &str) -> Vec<String> {
        let (began, mut heard) = (Instant::now(), Vec::new());
        while began.elapsed() < DEADLINE {
            let Some(word) = self.word(Duration::from_secs(1)) else {
                continue;
            };
            heard.push(word);
            if heard.last().is_some_and(|word| word.starts_with(start)) {
                return heard;
            }
        }
        panic!("not within {DEADLINE:?}: {start}, only {heard:?}");
    }

    /// Everything that comes within a time.
    pub fn all_within(&mut self, time: Duration) -> Vec<String> {
        let (end, mut heard) = (Instant::now() + time, Vec::new());
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return heard;
            }
            heard.extend(self.word(left));
        }
    }
}
