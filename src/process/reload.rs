//! Reloading routing.yaml and its schemas: on SIGHUP, and when one of the files changes. All or
//! nothing: files with any problem are refused whole and the running configuration stays.
//!
//! Changes are seen by looking at the files, not through inotify: an editor that writes another file
//! and renames it, a link that is swapped (`..data` of a config map), a folder that is replaced or
//! lies on a network all look the same to who asks for the file by its name; a watch is on what had the
//! name when it was set, and is silent about the rest.
//!
//! Redis: what a subscriber owes that the new file drops, see [`left_behind`](super::left_behind).

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

use super::left_behind::{self, Hindrance};
use crate::fleet::{self, Outcome};
use crate::routing::{Config, ConfigError, Severity};
use crate::store::Link;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How soon it is looked again whether what hindered files from being taken is over: a subscriber
/// settles what it owes, or another router has begun to work by them.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How often files are read that change while they are read.
const TRIES: usize = 5;

/// Whether changed files are taken without a signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Watch {
    /// They are, once they have not changed for a moment.
    #[default]
    On,
    /// Only SIGHUP has them read again.
    Off,
}

/// Holds the running configuration and replaces it when asked to.
pub struct Reloader {
    /// The newest that nothing is wrong with.
    config: watch::Sender<Arc<Config>>,
    /// The one that this process works by: another one while the newest cannot be taken.
    in_force: watch::Sender<Arc<Config>>,
    path: PathBuf,
    watch: Watch,
    link: Link,
    /// The files as they were when they were last read; locked while they are read, so that two
    /// reloads cannot overtake each other.
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    stamps: Stamps,
    /// When files that nothing is wrong with are looked at again.
    again: Option<Instant>,
    /// When the newest was handed on: an older refusal is not of it.
    handed_on: Timestamp,
}

/// What tells that a file may have changed, by its path. The time of the last change of the inode
/// cannot be set by who writes: it tells files apart that were given the time and size of others.
type Stamps = BTreeMap<PathBuf, Option<[i64; 6]>>;

/// What is to be done with files that were read again.
enum Judgement {
    Take(Box<Config>),
    /// They hold what is in force.
    Unchanged,
    /// They hold what was handed on and is not in force yet.
    UnderWay,
    /// Not now.
    Wait(Hindrance),
    /// Why, in one line, and everything there is to say.
    Refuse(String, String),
}

impl Reloader {
    /// Starts with a configuration that was loaded.
    pub fn new(config: Config, watch: Watch, link: Link) -> Arc<Self> {
        let path = config.path.clone();
        // Nothing counts as seen: what changed since it was loaded is found at the next look.
        let seen = Mutex::default();
        let config = Arc::new(config);
        Arc::new(Self {
            config: watch::Sender::new(config.clone()),
            in_force: watch::Sender::new(config),
            path,
            watch,
            link,
            seen,
        })
    }

    /// The configuration, and a signal when it is replaced.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Config>> {
        self.config.subscribe()
    }

    /// Where it is said, and seen, which one is in force.
    pub fn in_force(&self) -> watch::Sender<Arc<Config>> {
        self.in_force.clone()
    }

    /// Reads the files now. The new configuration goes to subscribers; whoever works by it says
    /// when it is in force ([`fleet::configuration`]). To be called where a runtime may be waited for.
    pub fn reload(&self) {
        self.read_again(false);
    }

    fn read_again(&self, asked: bool) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let [newest, running] = [&self.config, &self.in_force].map(|c| c.borrow().clone());
        let (stamps, loaded) = load_unmoved(&self.path, &newest);
        let again = seen.again.take().is_some() && seen.stamps == stamps && !asked;
        seen.stamps = stamps;
        let file = self.path.display();
        let refused = match fleet::configuration().reload {
            Some(fleet::Reload {
                at,
                outcome: Outcome::Refused(why),
            }) => Some((at, why)),
            _ => None,
        };
        let judgement = self.hinder([&running, &newest], judge(&running, &newest, loaded));
        // What the files do not say any more is not waited for. (It may be in force by now.)
        let running = self.in_force.borrow().clone();
        let given_up = !matches!(judgement, Judgement::Take(_) | Judgement::UnderWay)
            && newest.content_hash != running.content_hash;
        if given_up {
            seen.stamps = self::stamps(&self.path, &running);
            self.config.send_replace(running);
        }
        match judgement {
            Judgement::Unchanged => {
                // What was wrong has been put right by putting the old file back.
                if asked || given_up || refused.is_some() {
                    tracing::info!(%file, "read again: nothing has changed");
                    fleet::reloaded(Outcome::Unchanged);
                }
            }
            Judgement::UnderWay => {
                // Whoever asks is answered; what has not been refused yet is answered when it is, or is in force.
                let of_it = |&(at, _): &(Timestamp, String)| asked && at >= seen.handed_on;
                if let Some((_, why)) = refused.filter(of_it) {
                    tracing::error!(%file, "REFUSED, the running configuration stays: {why}");
                    fleet::reloaded(Outcome::Refused(why));
                }
            }
            Judgement::Take(new) => {
                for warning in &new.warnings {
                    tracing::warn!("{warning}");
                }
                tracing::info!(%file, "read again: taking the new configuration over");
                seen.handed_on = Timestamp::now();
                self.config.send_replace(Arc::from(new));
            }
            Judgement::Wait(hindrance) => {
                seen.again = Some(Instant::now() + LOOK_AGAIN);
                // Once is enough, however long it takes.
                if !again {
                    tracing::error!(%file, "REFUSED, the running configuration stays: {hindrance}");
                    fleet::reloaded(Outcome::Refused(hindrance.to_string()));
                }
            }
            Judgement::Refuse(why, everything) => {
                tracing::error!(%file, "REFUSED, the running configuration stays: {everything}");
                fleet::reloaded(Outcome::Refused(why));
            }
        }
    }

    /// What may be taken by itself may not be taken now.
    fn hinder(&self, before: [&Config; 2], judgement: Judgement) -> Judgement {
        let Judgement::Take(new) = judgement else {
            return judgement;
        };
        let asking = left_behind::check(&self.link, before, &new);
        match tokio::runtime::Handle::current().block_on(asking) {
            Ok(()) => Judgement::Take(new),
            Err(hindrance) => Judgement::Wait(hindrance),
        }
    }

    /// Waits for the signal, and looks at the files, until dropped.
    pub async fn run(self: Arc<Self>) {
        let mut hangups = match signal(SignalKind::hangup()) {
            Ok(hangups) => Some(hangups),
            Err(error) => {
                tracing::warn!(%error, "SIGHUP cannot be received, and has no effect");
                None
            }
        };
        let mut previous = Stamps::new();
        loop {
            let hangup = async {
                match &mut hangups {
                    Some(hangups) => hangups.recv().await,
                    None => std::future::pending().await,
                }
            };
            let look = async {
                match self.watch {
                    Watch::On => tokio::time::sleep(LOOK).await,
                    Watch::Off => std::future::pending().await,
                }
            };
            let asked = tokio::select! {
                _ = hangup => true,
                () = look => false,
            };
            let reloader = self.clone();
            let before = previous.clone();
            let look = move || {
                let now = stamps(&reloader.path, &reloader.config.borrow());
                let due = {
                    let seen = reloader.seen.lock().unwrap_or_else(PoisonError::into_inner);
                    let again = seen.again.is_some_and(|at| at <= Instant::now());
                    seen.stamps != now || again
                };
                // A file that is being written changes from look to look: half of it may be valid.
                if asked || (due && now == before) {
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

/// Loads the files as they were at one moment, and says how they looked then: routing.yaml and the
/// schemas belong together.
fn load_unmoved(path: &Path, running: &Config) -> (Stamps, Result<Config, ConfigError>) {
    let mut before = stamps(path, running);
    for _ in 1..TRIES {
        let loaded = Config::load(path);
        let after = stamps(path, running);
        if after == before {
            return (before, loaded);
        }
        before = after;
    }
    // Whatever it is now, a change in between is seen at the next look.
    (before, Config::load(path))
}

fn judge(running: &Config, newest: &Config, loaded: Result<Config, ConfigError>) -> Judgement {
    match loaded {
        Ok(new) if new.content_hash == running.content_hash => Judgement::Unchanged,
        Ok(new) if new.content_hash == newest.content_hash => Judgement::UnderWay,
        Ok(new) if new.routing.namespace() != running.routing.namespace() => {
            let why = "the namespace has changed, which needs a restart of every process";
            Judgement::Refuse(why.to_owned(), why.to_owned())
        }
        Ok(new) => Judgement::Take(Box::new(new)),
        Err(error) => Judgement::Refuse(first_of(&error), error.to_string()),
    }
}

/// The first error, and how many there are besides it, in one line.
fn first_of(error: &ConfigError) -> String {
    let mut errors = error
        .problems
        .iter()
        .filter(|p| p.severity == Severity::Error);
    let first = errors.next().map(ToString::to_string).unwrap_or_default();
    let first: Vec<_> = first.lines().map(str::trim).collect();
    match errors.count() {
        0 => first.join("; "),
        more => format!("{} (and {more} more)", first.join("; ")),
    }
}

fn stamps(path: &Path, config: &Config) -> Stamps {
    let mut files = vec![path.to_owned()];
    files.extend(
        std::fs::read_dir(&config.schema_folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path()),
    );
    // (Links are followed: what they lead to counts.)
    files
        .into_iter()
        .map(|file| {
            let stamp = std::fs::metadata(&file).ok().as_ref().map(stamp);
            (file, stamp)
        })
        .collect()
}

fn stamp(meta: &Metadata) -> [i64; 6] {
    let inode = meta.ino().cast_signed();
    let size = meta.size().cast_signed();
    let (changed, nanos) = (meta.ctime(), meta.ctime_nsec());
    [inode, size, meta.mtime(), meta.mtime_nsec(), changed, nanos]
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const ROUTING: &str =
        "version: 1\nstreams: { a-events: { events: [\"A.**\"] } }\nroutes: { A.B: [a-service] }\n";

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("schemas")).unwrap();
        fs::write(dir.path().join("schemas/A.B.v1.json"), "{}").unwrap();
        let path = dir.path().join("routing.yaml");
        fs::write(&path, ROUTING).unwrap();
        (dir, path)
    }

    #[test]
    fn every_way_to_replace_a_file_is_seen() {
        let (dir, path) = folder();
        let config = Config::load(&path).unwrap();
        let mut seen = stamps(&path, &config);
        assert_eq!(stamps(&path, &config), seen, "nothing has changed");
        let mut changed = |how: &str| {
            let now = stamps(&path, &config);
            assert_ne!(now, seen, "{how}");
            seen = now;
        };
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        let aside = dir.path().join("aside");
        fs::write(&aside, ROUTING.replace("a-service", "b-service")).unwrap();
        fs::File::open(&aside).unwrap().set_modified(time).unwrap();
        fs::rename(&aside, &path).unwrap();
        changed("renamed over it, of the same size and time");

        for (folder, to) in [("one", "a-service"), ("two", "c-service")] {
            let folder = dir.path().join(folder);
            fs::create_dir(&folder).unwrap();
            fs::write(
                folder.join("routing.yaml"),
                ROUTING.replace("a-service", to),
            )
            .unwrap();
        }
        let data = dir.path().join("..data");
        symlink("one", &data).unwrap();
        fs::remove_file(&path).unwrap();
        symlink("..data/routing.yaml", &path).unwrap();
        changed("a link in its place");
        symlink("two", &aside).unwrap();
        fs::rename(&aside, &data).unwrap();
        changed("the folder behind the link swapped");

        fs::write(dir.path().join("schemas/A.C.v1.json"), "{}").unwrap();
        changed("a schema added");
        fs::write(dir.path().join("schemas/A.C.v1.json"), "[]").unwrap();
        changed("a schema written in place, of the same size");
        fs::remove_dir_all(dir.path().join("two")).unwrap();
        changed("gone");
    }

    #[test]
    fn a_refusal_is_told_in_one_line() {
        let (_dir, path) = folder();
        let running = Config::load(&path).unwrap();
        fs::write(
            &path,
            ROUTING.replace("version: 1", "version: 2\nspace: 1\nname: 2"),
        )
        .unwrap();
        let (_, loaded) = load_unmoved(&path, &running);
        let Judgement::Refuse(why, everything) = judge(&running, &running, loaded) else {
            panic!("it is refused");
        };
        assert!(!why.contains('\n') && everything.contains('\n'), "{why}");
        assert!(why.ends_with("(and 2 more)"), "{why}");
        fs::write(&path, ROUTING).unwrap();
        let (_, loaded) = load_unmoved(&path, &running);
        assert!(matches!(
            judge(&running, &running, loaded),
            Judgement::Unchanged
        ));
    }
}
