//! Reloading routing.yaml: on SIGHUP, and when the file or a schema changes. All or nothing: a
//! file with any problem is refused whole and the running configuration stays.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::routing::Config;

/// How often the files are looked at. Polling sees every way to replace a file, on every file
/// system.
const LOOK: Duration = Duration::from_millis(500);

/// Holds the running configuration and replaces it when asked to.
pub struct Reloader {
    config: watch::Sender<Arc<Config>>,
    path: PathBuf,
    /// The files as they were when they were last read; locked while they are read, so that two
    /// reloads cannot overtake each other.
    seen: Mutex<Fingerprint>,
}

/// What tells that a file may have changed: time and size by path.
type Fingerprint = BTreeMap<PathBuf, (Option<SystemTime>, u64)>;

impl Reloader {
    /// Starts with a configuration that was loaded.
    pub fn new(config: Config) -> Arc<Self> {
        let path = config.path.clone();
        // Nothing counts as seen: what changed since it was loaded is found at the next look.
        let seen = Mutex::default();
        Arc::new(Self {
            config: watch::Sender::new(Arc::new(config)),
            path,
            seen,
        })
    }

    /// The configuration, and a signal when it is replaced.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Config>> {
        self.config.subscribe()
    }

    /// Reads the file now. The result is logged; the new configuration goes to subscribers.
    pub fn reload(&self) {
        self.read_again(true);
    }

    fn read_again(&self, asked: bool) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let running = self.config.borrow().clone();
        // Remembered before reading: a change in between is seen at the next look.
        *seen = fingerprint(&self.path, &running);
        match Config::load(&self.path) {
            Ok(new) if new.content_hash == running.content_hash => {
                if asked {
                    tracing::info!(file = %self.path.display(), "read again: nothing has changed");
                }
            }
            Ok(new) if new.routing.namespace() != running.routing.namespace() => {
                tracing::error!(file = %self.path.display(),
                    "REFUSED: the namespace has changed, which needs a restart; the running configuration stays");
            }
            Ok(new) => {
                for warning in &new.warnings {
                    tracing::warn!("{warning}");
                }
                tracing::info!(file = %self.path.display(), "read again: taking the new configuration over");
                self.config.send_replace(Arc::new(new));
            }
            Err(error) => {
                tracing::error!(file = %self.path.display(), "REFUSED, the running configuration stays: {error}");
            }
        }
    }

    /// Watches signal and files until dropped.
    pub async fn run(self: Arc<Self>) {
        let mut hangups = match signal(SignalKind::hangup()) {
            Ok(hangups) => Some(hangups),
            Err(error) => {
                tracing::warn!(%error, "SIGHUP cannot be received; changed files are still seen");
                None
            }
        };
        let mut previous = Fingerprint::new();
        loop {
            let hangup = async {
                match &mut hangups {
                    Some(hangups) => hangups.recv().await,
                    None => std::future::pending().await,
                }
            };
            let asked = tokio::select! {
                _ = hangup => true,
                () = tokio::time::sleep(LOOK) => false,
            };
            let reloader = self.clone();
            let before = previous.clone();
            let look = move || {
                let now = fingerprint(&reloader.path, &reloader.config.borrow());
                let changed = *reloader.seen.lock().unwrap_or_else(PoisonError::into_inner) != now;
                // A file that is being copied changes from look to look: half of it may be valid.
                if asked || (changed && now == before) {
                    reloader.read_again(asked);
                }
                now
            };
            // Loading compiles schemas: not on a thread that serves Redis.
            match tokio::task::spawn_blocking(look).await {
                Ok(now) => previous = now,
                Err(_) => {
                    tracing::error!("reading the configuration again failed; the running one stays")
                }
            }
        }
    }
}

fn fingerprint(path: &Path, config: &Config) -> Fingerprint {
    let mut files = vec![path.to_owned()];
    files.extend(
        std::fs::read_dir(&config.schema_folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path()),
    );
    files
        .into_iter()
        .map(|file| {
            let meta = std::fs::metadata(&file).ok();
            let stamp = (
                meta.as_ref().and_then(|m| m.modified().ok()),
                meta.map_or(0, |m| m.len()),
            );
            (file, stamp)
        })
        .collect()
}
