//! The worker in a fleet: a Redis of its own, the router, and the program as it is built.
//! `redis-server`, `redis-cli` and `streamfleet-router` are looked for in PATH.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Fleet {
    folder: PathBuf,
    processes: Vec<Child>,
}

impl Fleet {
    fn start(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("points-{}-{name}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("rate"), "2").unwrap();
        let mut fleet = Self {
            folder,
            processes: Vec::new(),
        };
        let redis =
            "--port 0 --unixsocket redis.sock --appendonly yes --maxmemory-policy noeviction";
        fleet.run("redis-server", redis.split(' '));
        fleet.eventually("PING", "PONG");
        fleet.run("streamfleet-router", ["--name", "r"]);
        fleet.run(env!("CARGO_BIN_EXE_points-worker"), ["--name", "w"]);
        fleet
    }

    fn run<'a>(&mut self, program: &str, args: impl IntoIterator<Item = &'a str>) {
        let started = Command::new(program)
            .args(args)
            .current_dir(&self.folder)
            .env(
                "STREAMFLEET_CONFIG",
                concat!(env!("CARGO_MANIFEST_DIR"), "/routing.yaml"),
            )
            .env(
                "STREAMFLEET_REDIS_URL",
                format!("unix://{}/redis.sock", self.folder.display()),
            )
            .env("STREAMFLEET_LOG", "error")
            .stdout(Stdio::null())
            .spawn();
        self.processes
            .push(started.unwrap_or_else(|e| panic!("{program}: {e}")));
    }

    fn redis(&self, command: &str) -> String {
        let mut cli = Command::new("redis-cli");
        let words = command.split_whitespace();
        let output = cli
            .args(["--raw", "-s"])
            .arg(self.folder.join("redis.sock"))
            .args(words)
            .output();
        String::from_utf8(output.unwrap().stdout)
            .unwrap()
            .trim()
            .to_owned()
    }

    fn eventually(&self, command: &str, answer: &str) {
        let start = Instant::now();
        while self.redis(command) != answer {
            let late = start.elapsed() > Duration::from_secs(20);
            assert!(
                !late,
                "{command}: {:?}, not {answer:?}",
                self.redis(command)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn publish(&self, number: u32, data: &str) {
        let event = format!(
            r#"{{"event_id":"00000000-0000-7000-8000-{number:012}","event_type":"Purchase.Made","version":"1",
                "timestamp":"2026-01-05T10:00:00Z","correlation_id":"00000000-0000-4000-8000-000000000001","data":{data}}}"#
        );
        let event: String = event.split_whitespace().collect();
        self.redis(&format!("XADD inbox * event {event}"));
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            drop(process.kill());
            drop(process.wait());
        }
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

#[test]
fn a_purchase_counts_once() {
    let fleet = Fleet::start("counts");
    for _ in 0..2 {
        fleet.publish(1, r#"{"user_id":7,"cents":1999,"currency":"EUR"}"#);
    }
    fleet.eventually("HGET points-service:user:7 points", "38");
    fleet.eventually("HGET stats:router duplicates", "1");
    assert_eq!(fleet.redis("HGET points-service:user:7 purchases"), "1");
    fleet.eventually("XLEN purchase-events", "2"); // and Points.Earned
}

#[test]
fn another_currency_is_a_dead_letter() {
    let fleet = Fleet::start("currency");
    fleet.publish(1, r#"{"user_id":7,"cents":1999,"currency":"USD"}"#);
    fleet.eventually("XLEN dead:points-service", "1");
    assert!(
        fleet
            .redis("XRANGE dead:points-service - +")
            .contains("USD earns no points")
    );
    assert_eq!(fleet.redis("EXISTS points-service:user:7"), "0");
}

#[test]
fn without_a_rate_it_waits() {
    let fleet = Fleet::start("rate");
    std::fs::remove_file(fleet.folder.join("rate")).unwrap();
    fleet.publish(1, r#"{"user_id":7,"cents":1999,"currency":"EUR"}"#);
    fleet.eventually("EXISTS attempts:purchase-events:points-service", "1");
    std::fs::write(fleet.folder.join("rate"), "3").unwrap();
    fleet.eventually("HGET points-service:user:7 points", "57");
    assert_eq!(fleet.redis("XLEN dead:points-service"), "0");
}
