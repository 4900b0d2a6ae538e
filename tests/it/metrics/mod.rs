//! `/metrics`, `/healthz`, `/readyz` of real processes, asked as Prometheus asks them; and that
//! alerts, dashboard and documentation name what is really there.

mod health;
mod http;
mod numbers;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use redis::Commands;
use serde_json::Value;

use crate::shop::brisk_shop;
use crate::support::fleet::Process;
use crate::support::{Fleet, eventually};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const ALERTS: &str = include_str!("../../../scripts/prometheus/alerts.yml");
const ALERTS_TEST: &str = include_str!("../../../scripts/prometheus/alerts_test.yml");
const DASHBOARD: &str = include_str!("../../../scripts/grafana/dashboard.json");
const METRICS: &str = include_str!("../../../docs/metrics.md");
const OPERATIONS: &str = include_str!("../../../docs/operations.md");
/// A free port of this machine.
const ANY: [&str; 2] = ["--metrics-address", "127.0.0.1:0"];
const OPENMETRICS: &str =
    "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3";

/// An answer.
struct Told {
    status: u16,
    head: String,
    body: String,
}

impl Process {
    /// Where it serves.
    fn address(&self) -> String {
        eventually("it says where it serves", || {
            let log = self.log_text();
            let rest = log.split_once("\"address\":\"")?.1;
            Some(rest.split_once('"')?.0.to_owned())
        })
    }

    fn ask(&self, request: &str) -> Told {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        write!(stream, "{request} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        Told {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    fn page(&self) -> String {
        let told = self.ask("GET /metrics");
        assert_eq!(told.status, 200, "{}", told.body);
        told.body
    }

    fn samples(&self) -> BTreeMap<String, f64> {
        samples(&self.page())
    }
}

/// Each line by its name and labels, without the label that says whose page it is.
fn samples(page: &str) -> BTreeMap<String, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    lines.map(sample).collect()
}

/// The names of a page, of histograms without their suffixes.
fn names(page: &str) -> BTreeSet<String> {
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect()
}

/// Every name of ours that stands in a text, of histograms without their suffixes.
fn mentioned(text: &str) -> BTreeSet<String> {
    let parts = text.split("streamfleet_").skip(1);
    let name = |part: &str| {
        let end = part.find(|c: char| !c.is_ascii_lowercase() && c != '_');
        let name = &part[..end.unwrap_or(part.len())];
        let histogram = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix));
        format!("streamfleet_{}", histogram.unwrap_or(name))
    };
    let bare = "streamfleet_"; // what all begin with
    parts.map(name).filter(|name| name != bare).collect()
}

fn promtool(args: &[&str], input: &str) -> String {
    let mut child = Command::new("promtool")
        .args(args)
        .current_dir(ROOT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("promtool: {error} (scripts/setup, or apt-get install --no-install-recommends prometheus)")
        });
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let ended = child.wait_with_output().unwrap();
    let said = [ended.stdout, ended.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(ended.status.success(), "promtool {args:?}: {said:?}");
    said.concat()
}

fn router(fleet: &Fleet, name: &str) -> Process {
    let mut command = fleet.router_command(name);
    command.args(ANY);
    fleet.launch(command, name, "router started")
}

fn service(fleet: &Fleet, name: &str, environment: &[(&str, &str)]) -> Process {
    let one = Path::new(env!("CARGO_BIN_EXE_analytics-worker"));
    let mut command = Command::new(one.with_file_name(format!("{name}-worker")));
    command.args(["--name", name]).args(ANY);
    command.envs(environment.iter().copied());
    fleet.launch(command, name, "worker started")
}
