//! Power cuts: what was not synced is gone.
//!
//! kill -9 does not show this, because the kernel keeps what was written. So a library is
//! preloaded into redis-server that records how much of the append-only file was synced
//! (`power_loss.c`), and after each kill the file is cut to that length. What the kernel would
//! have written back by itself counts as lost too: the worst case.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::aof;
use crate::harness::forgotten::Forgotten;
use crate::harness::load::{Load, now_ms};
use crate::harness::run::{Report, Run};
use crate::support::{Server, preload};
use crate::{CannotInject, Fault};

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "power-loss-always",
        about: "power cuts, appendfsync always",
        short: true,
        run: |full| power_loss(full, &ALWAYS),
    },
    Fault {
        name: "power-loss-everysec",
        about: "power cuts, appendfsync everysec",
        short: true,
        run: |full| power_loss(full, &EVERYSEC),
    },
    Fault {
        name: "power-loss-no",
        about: "power cuts, appendfsync no",
        short: false,
        run: |full| power_loss(full, &NO),
    },
];

/// How Redis syncs its append-only file.
struct Mode {
    appendfsync: &'static str,
    /// How far before a cut the server may have accepted what it then forgets, milliseconds.
    forgets_ms: u64,
}

const ALWAYS: Mode = Mode {
    appendfsync: "always",
    forgets_ms: 0,
};
/// A second between two syncs; a sync that is late holds the next write up for 2 s at most.
const EVERYSEC: Mode = Mode {
    appendfsync: "everysec",
    forgets_ms: 3_000,
};
/// The kernel decides: here it writes back right after each start, and then not before the cut.
const NO: Mode = Mode {
    appendfsync: "no",
    forgets_ms: u64::MAX,
};

/// What a sync of a disk takes, at least.
const SYNC_US: u64 = 5_000;

fn power_loss(full: bool, mode: &Mode) -> Result<Report, CannotInject> {
    let tools = tempfile::tempdir().unwrap();
    let record = tools.path().join("record");
    let library = preload::build("power_loss", tools.path()).map_err(CannotInject)?;
    let preload = format!("LD_PRELOAD={}", library.display());
    let recording = format!("POWER_LOSS_RECORD={}", record.display());
    let delay = format!("POWER_LOSS_FSYNC_US={SYNC_US}");
    let server = Server::prepare(
        &["env", &preload, &recording, &delay],
        &[
            "--appendfsync",
            mode.appendfsync,
            // One file to the end, so that its length says what is safe.
            "--auto-aof-rewrite-percentage",
            "0",
        ],
    );
    server.run();
    let mut run = Run::on(server, full);
    run.start();
    let load = run.load(Load::of(usize::MAX, 100));
    let mut tally = Tally::default();
    for n in 0..run.pick(2, 25) {
        // Between 0.7 and 2.3 s: cuts fall on every moment between two syncs.
        run.catch_up();
        if mode.appendfsync == NO.appendfsync {
            write_back(&run, &record);
        }
        let before = run.accepted();
        std::thread::sleep(Duration::from_millis(700 + (n as u64 * 373) % 1_600));
        assert!(run.accepted() > before, "events are accepted between cuts");
        run.strike(|run| tally.cut(run, mode, &record));
        run.forget(std::mem::take(&mut tally.may_forget));
    }
    load.stop();
    tally.note(&mut run, mode);
    Ok(run.finish())
}

/// What is written by now survives.
fn write_back(run: &Run, record: &Path) {
    let file = aof::appended(run.fleet.dir.path()).pop().unwrap();
    let length = std::fs::metadata(file).unwrap().len();
    std::fs::write(record, format!("{length:020}")).unwrap();
}

/// What the cuts cost.
#[derive(Default)]
struct Tally {
    /// Accepted events that each cut made the server forget.
    forgotten_per_cut: Vec<usize>,
    /// How long before the cut each of them was accepted.
    ages_ms: Vec<u64>,
    /// How long before the cut each commit was made that it undid.
    rolled_back_ms: Vec<u64>,
    bytes_per_cut: Vec<u64>,
    gone: Forgotten,
    /// Forgotten by the last cut, as the mode allows.
    may_forget: Vec<String>,
    down_ms: Vec<u64>,
}

impl Tally {
    /// Cuts the power, and starts the server on what the disk holds.
    fn cut(&mut self, run: &Run, mode: &Mode, record: &Path) {
        let server = &run.fleet.server;
        server.kill();
        let (cut_ms, down) = (now_ms(), Instant::now());
        let file = aof::appended(server.dir.path()).pop().unwrap();
        let written = std::fs::read(&file).unwrap();
        let safe = std::fs::read_to_string(record).map_or(0, |text| text.parse().unwrap());
        let aof = File::options().write(true).open(&file).unwrap();
        assert!(safe <= written.len() as u64, "nothing shrinks the file");
        aof.set_len(safe).unwrap();
        self.bytes_per_cut.push(written.len() as u64 - safe);

        let kept = aof::parse(&written[..safe as usize]);
        let survived = aof::accepted(&kept);
        let before = self.ages_ms.len();
        for (id, accepted_ms) in self.gone.find(run, &survived) {
            let age = cut_ms.saturating_sub(accepted_ms);
            self.ages_ms.push(age);
            if age <= mode.forgets_ms && mode.forgets_ms > 0 {
                self.may_forget.push(id);
            }
        }
        self.forgotten_per_cut.push(self.ages_ms.len() - before);
        let commits = aof::commit_times(&aof::parse(&written));
        let rolled_back = &commits[aof::commit_times(&kept).len()..];
        let ages = rolled_back.iter().map(|&at| cut_ms.saturating_sub(at));
        self.rolled_back_ms.extend(ages);

        // What survived is on the disk.
        std::fs::write(record, format!("{safe:020}")).unwrap();
        server.run();
        self.down_ms.push(down.elapsed().as_millis() as u64);
    }

    fn note(&self, run: &mut Run, mode: &Mode) {
        let max = |list: &[u64]| list.iter().copied().max().unwrap_or(0);
        let forgotten: usize = self.forgotten_per_cut.iter().sum();
        let most = self.forgotten_per_cut.iter().max().unwrap();
        run.note("appendfsync", mode.appendfsync);
        run.note("a sync takes at least, ms", SYNC_US / 1_000);
        run.note("accepted events lost", forgotten);
        run.note("accepted events lost, most in one cut", most);
        run.note(
            "oldest accepted event lost, ms before the cut",
            max(&self.ages_ms),
        );
        run.note("commits rolled back, run again", self.rolled_back_ms.len());
        run.note(
            "oldest commit rolled back, ms before the cut",
            max(&self.rolled_back_ms),
        );
        run.note("bytes lost, most in one cut", max(&self.bytes_per_cut));
        run.note("events accepted", run.accepted());
        run.note("server away, ms, most", max(&self.down_ms));
    }
}
