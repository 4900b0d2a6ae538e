//! The service manager: tells systemd (`Type=notify`) that this process is ready, what it is doing,
//! that it is alive, and what became of a reload. Under no manager it does nothing.
//!
//! The protocol is one datagram of `NAME=value` lines to `$NOTIFY_SOCKET`; see sd_notify(3).
//! Guarantee: the watchdog is fed only while every loop of the process gets on
//! ([`crate::progress`]), from a thread that nothing else can keep.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::watchdog::{self, Watchdog};
use crate::fleet::{self, Configuration, Outcome};
use crate::progress::{Doing, Progress};

/// What became of the last reload that was asked for, in the folder `$RUNTIME_DIRECTORY`.
const ANSWER: &str = "reload.json";

/// What became of a reload that was asked for with SIGHUP; `streamfleet reload` waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// When the file was begun to be read, by the clock of [`monotonic_us`].
    pub(crate) began_us: u64,
    /// Whether what is in the file is in force, or was already.
    pub(crate) taken: bool,
    /// The same in words.
    pub(crate) text: String,
}

impl Answer {
    fn of(ended: Configuration, began_us: u64) -> Option<Self> {
        let (taken, text) = match ended.reload?.outcome {
            Outcome::Taken => (
                true,
                format!("configuration {} is in force", ended.generation),
            ),
            Outcome::Unchanged => (true, "nothing has changed".to_owned()),
            Outcome::Refused(why) => (
                false,
                format!("REFUSED, the running configuration stays: {why}"),
            ),
        };
        Some(Self {
            began_us,
            taken,
            text,
        })
    }

    /// Where processes with this runtime folder leave it.
    pub(crate) fn path() -> Option<PathBuf> {
        let folders = std::env::var_os("RUNTIME_DIRECTORY").filter(|all| !all.is_empty())?;
        // Several are separated by colons.
        let first = folders.as_bytes().split(|byte| *byte == b':').next()?;
        Some(Path::new(OsStr::from_bytes(first)).join(ANSWER))
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let aside = path.with_extension("new");
        std::fs::write(&aside, serde_json::to_vec(self)?)?;
        std::fs::rename(aside, path)
    }
}

/// Microseconds of the clock that no one sets.
pub(crate) fn monotonic_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000
}

/// The way to the service manager, if there is one.
#[derive(Clone, Default)]
pub(crate) struct Manager(Option<Arc<Inner>>);

struct Inner {
    socket: UnixDatagram,
    /// How the last reload went, for the status line.
    reload: Mutex<Option<&'static str>>,
    /// Dropped, the watching thread ends.
    _watching: Sender<()>,
}

impl Manager {
    /// Connects to the manager that started this process, and watches `progress` for it.
    pub(crate) fn of_this_process(progress: &Progress) -> Self {
        let Some(address) = std::env::var_os("NOTIFY_SOCKET").filter(|a| !a.is_empty()) else {
            return Self::default();
        };
        let socket = match connect(&address) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(%error, "NOTIFY_SOCKET={}: the service manager cannot be told anything",
                    address.display());
                return Self::default();
            }
        };
        let (watching, ended) = channel();
        let inner = Arc::new(Inner {
            socket,
            reload: Mutex::default(),
            _watching: watching,
        });
        let (watched, progress) = (Arc::downgrade(&inner), progress.clone());
        let patience = watchdog::patience(|name| std::env::var(name).ok());
        let started = std::thread::Builder::new()
            .name("notify".to_owned())
            .spawn(move || {
                let mut watchdog = Watchdog::new(progress, patience);
                while goes_on(&ended, watchdog.tick())
                    && let Some(inner) = watched.upgrade()
                {
                    let words = watchdog.words(inner.refused(), Instant::now());
                    if !words.is_empty() {
                        inner.send(&words.join("\n"));
                    }
                }
            });
        if let Err(error) = started {
            tracing::warn!(%error, "cannot start the thread that watches for the service manager");
        }
        Self(Some(inner))
    }

    /// It reads.
    pub(crate) fn ready(&self) {
        self.send("READY=1\nSTATUS=working");
    }

    /// Tells that it has been told to stop, when it has.
    pub(crate) async fn told_of(self, stop: CancellationToken, progress: Progress) {
        stop.cancelled().await;
        progress.now(Doing::Stopping);
        self.send(&format!("STOPPING=1\nSTATUS={}", Doing::Stopping));
    }

    /// Tells of each reload that is asked for with SIGHUP, and what came of it, until dropped.
    pub(crate) async fn answer_reloads(self) {
        let Ok(mut hangups) = signal(SignalKind::hangup()) else {
            return; // who reads the files says so
        };
        let mut ours = fleet::configurations();
        let mut known = ours.borrow().reload.clone();
        loop {
            tokio::select! {
                biased;
                asked = hangups.recv() => if asked.is_none() { return },
                // One that nobody asked for.
                Ok(()) = ours.changed() => {
                    known.clone_from(&ours.borrow_and_update().reload);
                    continue;
                }
            }
            let began_us = monotonic_us();
            self.send(&format!("RELOADING=1\nMONOTONIC_USEC={began_us}"));
            // In force, or refused: without Redis it may be neither for a while.
            let ended = ours.wait_for(|ours| ours.reload != known).await;
            let Ok(ended) = ended.map(|ended| ended.clone()) else {
                return;
            };
            known.clone_from(&ended.reload);
            let Some(answer) = Answer::of(ended, began_us) else {
                continue;
            };
            let manager = self.clone();
            // It writes a file.
            drop(tokio::task::spawn_blocking(move || manager.reloaded(&answer)).await);
        }
    }

    /// It has read its configuration, and this came of it.
    fn reloaded(&self, answer: &Answer) {
        if let Some(inner) = &self.0 {
            let refused =
                (!answer.taken).then_some("the changed routing.yaml was REFUSED, see the log");
            *inner.reload.lock().unwrap_or_else(PoisonError::into_inner) = refused;
        }
        self.send("READY=1");
        // Last: who waits for it finds the manager informed.
        if let Some(path) = Answer::path()
            && let Err(error) = answer.write(&path)
        {
            tracing::warn!(%error, file = %path.display(), "cannot write what became of the reload");
        }
    }

    fn send(&self, message: &str) {
        if let Some(inner) = &self.0 {
            inner.send(message);
        }
    }
}

impl Inner {
    /// What the status line says of the last reload.
    fn refused(&self) -> Option<&'static str> {
        *self.reload.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, message: &str) {
        if let Err(error) = self.socket.send(message.as_bytes()) {
            tracing::debug!(%error, "the service manager was not told: {message}");
        }
    }
}

fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match address.as_bytes() {
        [b'@', name @ ..] => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        _ => socket.connect(address)?,
    }
    // A manager that does not read must not keep who tells it something.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Waits for the next look; false if there is none.
fn goes_on(ended: &Receiver<()>, tick: Duration) -> bool {
    ended.recv_timeout(tick) == Err(RecvTimeoutError::Timeout)
}
