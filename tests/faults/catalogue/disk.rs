//! The disk of the append-only file is full. The server's folder is a small file system of its
//! own, mounted where nothing else sees it, so nothing of this machine changes.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::aof;
use crate::harness::forgotten::Forgotten;
use crate::harness::load::{Load, now_ms};
use crate::harness::run::{Report, Run};
use crate::support::{Server, eventually};
use crate::{CannotInject, Fault};

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "disk-full-everysec",
        about: "the disk of the append-only file full, appendfsync everysec",
        short: true,
        run: |full| disk_full(full, "everysec", Then::Freed),
    },
    Fault {
        name: "disk-full-always",
        about: "the disk of the append-only file full, appendfsync always",
        short: true,
        run: |full| disk_full(full, "always", Then::Freed),
    },
    Fault {
        name: "disk-full-killed",
        about: "kill -9 of Redis while its disk is full, appendfsync everysec",
        short: false,
        run: |full| disk_full(full, "everysec", Then::Killed),
    },
];

/// What happens to a server whose disk is full.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Freed,
    Killed,
}

/// What the server answered before it noticed stands in its memory alone: the last moments
/// before the first write that failed.
const FORGETS_MS: u64 = 1_000;
/// Room for the append-only file of a whole run.
const SIZE_MB: usize = 256;
/// What is left of it when it is as good as full: the next moments of the load fill it.
const LEFT: u64 = 32 << 10;

/// A file system of one's own, as long as the process lives that mounted it.
struct Disk {
    holder: Child,
    /// Where it is mounted, for those who see it.
    at: PathBuf,
}

impl Disk {
    /// Mounts one at `at`.
    fn mount(at: &Path) -> Result<Self, CannotInject> {
        std::fs::create_dir(at).unwrap();
        let script = format!(
            "mount -t tmpfs -o size={SIZE_MB}m none {0} && touch {0}/mounted && exec sleep infinity",
            at.display()
        );
        let mut unshare = Command::new("unshare");
        unshare.arg("--mount");
        if !rustix::process::geteuid().is_root() {
            unshare.args(["--user", "--map-root-user"]);
        }
        unshare.args(["sh", "-c", &script]).stdin(Stdio::null());
        let holder = unshare.stderr(Stdio::piped()).spawn();
        let holder = holder.map_err(|error| {
            CannotInject(format!("unshare: {error} (apt-get install util-linux)"))
        })?;
        let mut disk = Self {
            holder,
            at: at.to_owned(),
        };
        let deadline = Instant::now() + Duration::from_secs(5);
        while !disk.seen_from_outside("mounted").exists() {
            let ended = disk.holder.try_wait().unwrap();
            if ended.is_some() || Instant::now() > deadline {
                return Err(CannotInject(
                    "a file system cannot be mounted apart: root is needed, or user namespaces \
                     for everyone"
                        .to_owned(),
                ));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(disk)
    }

    fn seen_from_outside(&self, file: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.at.strip_prefix("/").unwrap()).join(file)
    }

    /// Words that make a program see it.
    fn entering(&self) -> Vec<String> {
        let mut words = vec!["nsenter", "--mount"];
        if !rustix::process::geteuid().is_root() {
            words.extend(["--user", "--preserve-credentials"]);
        }
        let mut words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        words.push(format!("--target={}", self.holder.id()));
        words
    }

    /// Takes all room but a little.
    fn fill(&self) {
        let mut ballast = File::create(self.seen_from_outside("ballast")).unwrap();
        let mut length = 0;
        for block in [1 << 20, 1 << 12] {
            let zeros = vec![0; block];
            while ballast.write_all(&zeros).is_ok() {
                length += block as u64;
            }
        }
        ballast.set_len(length.saturating_sub(LEFT)).unwrap();
    }

    fn free(&self) {
        std::fs::remove_file(self.seen_from_outside("ballast")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}

fn disk_full(full: bool, appendfsync: &str, then: Then) -> Result<Report, CannotInject> {
    let place = tempfile::tempdir().unwrap();
    let disk = Disk::mount(&place.path().join("disk"))?;
    let entering = disk.entering();
    let prefix: Vec<&str> = entering.iter().map(String::as_str).collect();
    let dir = disk.at.display().to_string();
    let server = Server::prepare(&prefix, &["--dir", &dir, "--appendfsync", appendfsync]);
    server.run();
    let mut run = Run::on(server, full);
    run.start();
    let load = run.load(Load::of(usize::MAX, 100));
    let (mut ends, mut accepted_while_full, mut again_ms) = (0, 0, Vec::new());
    let (mut gone, mut ages_ms) = (Forgotten::default(), Vec::new());
    for _ in 0..run.pick(1, 10) {
        std::thread::sleep(Duration::from_millis(500));
        let mut may_forget = Vec::new();
        run.strike(|run| {
            disk.fill();
            let answer = eventually("the disk is full", || full_or_ended(&run.fleet.server));
            let full_ms = now_ms();
            let before = run.accepted();
            std::thread::sleep(Duration::from_millis(700));
            accepted_while_full += run.accepted() - before;
            if then == Then::Killed {
                run.fleet.kill();
                let written = aof::bytes(&disk.seen_from_outside(""));
                let kept = aof::accepted(&aof::parse(&written));
                for (id, at) in gone.find(run, &kept) {
                    let age = full_ms.saturating_sub(at);
                    ages_ms.push(age);
                    if at <= full_ms + FORGETS_MS && age <= FORGETS_MS {
                        may_forget.push(id);
                    }
                }
            }
            disk.free();
            let (freed, before) = (Instant::now(), run.accepted());
            ends += usize::from(answer == Found::Ended);
            if run.fleet.has_ended() {
                run.fleet.run();
            }
            eventually("it accepts again", || {
                (run.accepted() > before).then_some(())
            });
            again_ms.push(freed.elapsed().as_millis());
        });
        run.forget(may_forget);
    }
    let counts = load.stop();
    run.note("appendfsync", appendfsync);
    run.note("redis-server ended itself", ends);
    run.note(
        "events accepted while the disk was full",
        accepted_while_full,
    );
    run.note(
        "publishes refused or unanswered",
        counts.unanswered.load(std::sync::atomic::Ordering::SeqCst),
    );
    run.note(
        "ms from free space to accepting, most",
        again_ms.iter().max().unwrap(),
    );
    if then == Then::Killed {
        run.note("accepted events lost", ages_ms.len());
        run.note(
            "oldest accepted event lost, ms before writes were refused",
            ages_ms.iter().max().unwrap_or(&0),
        );
    }
    let report = run.finish();
    drop(disk);
    Ok(report)
}

/// What a server does whose disk is full.
#[derive(PartialEq)]
enum Found {
    /// It answers, and refuses writes.
    Refuses,
    Ended,
}

fn full_or_ended(server: &Server) -> Option<Found> {
    if server.has_ended() {
        return Some(Found::Ended);
    }
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_connection().ok()?;
    let info: String = redis::cmd("INFO")
        .arg("persistence")
        .query(&mut connection)
        .ok()?;
    info.contains("aof_last_write_status:err")
        .then_some(Found::Refuses)
}
