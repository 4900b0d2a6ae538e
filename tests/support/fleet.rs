//! A fleet under test: Redis, routing.yaml and schemas in a folder, and processes.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use redis::Commands;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Server, eventually};

pub const ROUTING: &str = r#"
version: 1
schemas: schemas
streams:
  test-events: { events: ["Test.**"] }
  more-events: { events: ["More.**"] }
routes:
  Test.Happened: [probe-service]
  Test.Followed: [other-service]
  Test.Looped: [probe-service]
  More.Happened: [other-service]
defaults:
  backoff: { initial: 50ms, max: 200ms, jitter: 0 }
  lease: 1s
  timeout: 20s
  concurrency: 8
"#;

/// A process that is killed when the test ends.
pub struct Process {
    pub child: Child,
    pub log: PathBuf,
}

impl Process {
    /// Starts it; what it says is added to the log.
    pub fn start(mut command: Command, log: PathBuf) -> Self {
        let file = File::options().create(true).append(true).open(&log);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(file.unwrap());
        Self {
            child: command.spawn().unwrap(),
            log,
        }
    }

    pub fn signal(&self, signal: &str) {
        let killed = Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(self.child.id().to_string())
            .status();
        assert!(killed.unwrap().success());
    }

    /// Waits for its end and answers the exit code; `None` if a signal ended it.
    pub fn exit_code(&mut self) -> Option<i32> {
        eventually("the process ends", || self.child.try_wait().unwrap()).code()
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub fn wait_for_log(&self, text: &str) {
        eventually(&format!("{text:?} in {}", self.log.display()), || {
            self.log_text().contains(text).then_some(())
        });
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log_text());
        }
    }
}

pub struct Fleet {
    pub server: Server,
}

impl Deref for Fleet {
    type Target = Server;
    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Fleet {
    /// Redis and configuration; no process yet.
    pub fn new() -> Self {
        Self::on(Server::start())
    }

    pub fn on(server: Server) -> Self {
        let fleet = Self { server };
        let schemas = fleet.dir.path().join("schemas");
        std::fs::create_dir(&schemas).unwrap();
        for name in [
            "Test.Happened",
            "Test.Followed",
            "Test.Looped",
            "More.Happened",
        ] {
            fleet.write_schema(name);
        }
        fleet.configure(ROUTING);
        fleet
    }

    /// A schema that takes any data.
    pub fn write_schema(&self, event_type: &str) {
        let schema = json!({
            "$schema": "http://json-schema.org/draft-07/schema#",
            "x-revision": 1,
            "type": "object",
            "properties": {
                "event_type": {"const": event_type},
                "version": {"const": "1"},
                "data": {"type": "object", "properties": {"amount": {"type": "number", "minimum": 0}}},
            },
        });
        let file = self
            .dir
            .path()
            .join(format!("schemas/{event_type}.v1.json"));
        std::fs::write(file, schema.to_string()).unwrap();
    }

    /// Writes routing.yaml, in one step as an editor does.
    pub fn configure(&self, routing: &str) {
        let aside = self.dir.path().join("routing.yaml.new");
        std::fs::write(&aside, routing).unwrap();
        std::fs::rename(aside, self.config()).unwrap();
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("routing.yaml")
    }

    /// Starts a process and waits until it says that it runs.
    pub fn launch(&self, mut command: Command, name: &str, started: &str) -> Process {
        self.equip(&mut command);
        let file = format!("{name}-{}.log", Uuid::new_v4().simple());
        let process = Process::start(command, self.dir.path().join(file));
        if !started.is_empty() {
            process.wait_for_log(started);
        }
        process
    }

    pub fn router(&self, name: &str) -> Process {
        let router = self.start_router(name);
        router.wait_for_log("router started");
        router
    }

    /// The same without waiting for it.
    pub fn start_router(&self, name: &str) -> Process {
        self.launch(self.router_command(name), name, "")
    }

    pub fn router_command(&self, name: &str) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_streamfleet-router"));
        command.args(["--name", name]);
        command
    }

    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        self.equip(&mut command);
        command
    }

    /// Tells a process of this fleet.
    fn equip(&self, command: &mut Command) {
        command
            .env("STREAMFLEET_CONFIG", self.config())
            .env("STREAMFLEET_REDIS_URL", self.url())
            .env("STREAMFLEET_LOG", "info");
        if let Some(users) = &self.users {
            users.equip(command);
        }
    }

    /// A probe worker of `subscriber` (`probe-service` or `other-service`).
    pub fn worker(&self, subscriber: &str, name: &str) -> Process {
        self.worker_at(subscriber, name, &self.url(), "worker started")
    }

    /// The same, reaching Redis by another way, and without waiting if `started` is empty.
    pub fn worker_at(&self, subscriber: &str, name: &str, url: &str, started: &str) -> Process {
        self.launch(self.worker_command(subscriber, name, url), name, started)
    }

    /// The test program itself, asked to be a worker: see `probe`.
    pub fn worker_command(&self, subscriber: &str, name: &str, url: &str) -> Command {
        let mut command = self.command(std::env::current_exe().unwrap());
        command.args([
            "--exact",
            "support::probe::process",
            "--nocapture",
            "--test-threads=1",
        ]);
        command
            .env("PROBE_SUBSCRIBER", subscriber)
            .env("PROBE_NAME", name)
            .env("PROBE_URL", url);
        if let Some(users) = &self.users {
            command.env("PROBE_URL", users.url(url, subscriber));
        }
        command
    }

    pub fn publish(&self, events: &[Value]) {
        let mut connection = self.connection();
        let mut pipeline = redis::pipe();
        for event in events {
            pipeline
                .cmd("XADD")
                .arg("inbox")
                .arg("*")
                .arg("event")
                .arg(event.to_string())
                .ignore();
        }
        pipeline.exec(&mut connection).unwrap();
    }

    /// How often each event was handled, by the effect that handling has.
    pub fn handled(&self, subscriber: &str) -> BTreeMap<String, u64> {
        self.connection()
            .hgetall(format!("{subscriber}:handled"))
            .unwrap()
    }

    /// Waits until so many events are handled and nothing is owed; then each was handled once.
    pub fn handles_each_once(&self, subscriber: &str, events: usize) {
        eventually("all are handled", || {
            (self.handled(subscriber).len() == events).then_some(())
        });
        self.drained();
        assert!(self.handled(subscriber).values().all(|&times| times == 1));
    }

    /// How often the probe started to handle an event, whatever became of it.
    pub fn starts(&self, event: &Value) -> Option<u64> {
        self.cli(&format!("HGET probe-service:started {}", id(event)))
    }

    /// How many events the probe started to handle.
    pub fn started(&self) -> usize {
        self.cli("HLEN probe-service:started")
    }

    /// The dead letters of a subscriber, as fields.
    pub fn dead(&self, subscriber: &str) -> Vec<BTreeMap<String, String>> {
        let entries: Vec<(String, BTreeMap<String, String>)> = self
            .connection()
            .xrange_all::<_, redis::Value>(format!("dead:{subscriber}"))
            .map(|v| redis::from_redis_value(v).unwrap())
            .unwrap();
        entries.into_iter().map(|(_, fields)| fields).collect()
    }

    /// Waits until nothing is owed.
    pub fn drained(&self) {
        eventually("everything is settled", || self.is_drained().then_some(()));
    }

    /// Inbox empty, nothing pending, no group with a worker behind.
    pub fn is_drained(&self) -> bool {
        let mut connection = self.connection();
        let inbox: u64 = connection.xlen("inbox").unwrap();
        let mut streams: Vec<String> = connection.keys("*-events").unwrap();
        streams.extend(connection.keys::<_, Vec<String>>("redrive:*").unwrap());
        let settled = streams.iter().all(|stream| {
            let groups: redis::streams::StreamInfoGroupsReply =
                connection.xinfo_groups(stream).unwrap();
            let last: redis::streams::StreamInfoStreamReply =
                connection.xinfo_stream(stream).unwrap();
            groups
                .groups
                .iter()
                .filter(|g| g.consumers > 0)
                .all(|g| g.pending == 0 && g.last_delivered_id == last.last_generated_id)
        });
        inbox == 0 && settled
    }
}

/// An event of type `Test.Happened`; `data.do` tells the probe what to do with it.
pub fn event(data: Value) -> Value {
    typed("Test.Happened", data)
}

pub fn typed(event_type: &str, data: Value) -> Value {
    json!({
        "event_id": Uuid::new_v4(), "event_type": event_type, "version": "1",
        "timestamp": "2026-01-01T00:00:00Z", "correlation_id": Uuid::new_v4(), "data": data,
    })
}

/// The ID of an event made by [`event`].
pub fn id(event: &Value) -> String {
    event["event_id"].as_str().unwrap().to_owned()
}
