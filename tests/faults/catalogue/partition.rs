//! One worker cut off from Redis for longer than its lease, while the others go on: what it held
//! is theirs, and what it still wants to write must be fenced off. Once behind a proxy, once in a
//! network namespace of its own, over real TCP whose link goes down and up.
//! (netem could drop and delay single packets there; it is left out, because many a kernel comes
//! without it: "qdisc kind is unknown". TCP would hide them from Redis anyway.)

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::load::Load;
use crate::harness::run::{Report, Run, go_by};
use crate::support::proxy::{Proxy, Way};
use crate::support::{Server, eventually};
use crate::{CannotInject, Fault};

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "partition",
        about: "one worker reaches Redis no more for three leases; what it sent arrives late, or never",
        short: true,
        run: partition,
    },
    Fault {
        name: "partition-tcp",
        about: "the same over TCP: the link of its network namespace goes down and up",
        short: true,
        run: partition_tcp,
    },
];

/// Three leases.
const CUT_OFF: Duration = Duration::from_secs(3);

/// Handlers under way when the partition begins, and some that outlast it.
fn load(run: &Run) -> Load {
    Load {
        ms: |n| match n % 20 {
            0 => 1_500,
            10 => 4_000,
            _ => 5,
        },
        ..Load::of(run.pick(120, 2_000), 40)
    }
}

/// How often something that worker `a` still wanted to write was found to be another's.
fn fenced(run: &Run) -> usize {
    run.crew.said("a", "came too late") + run.crew.said("a", "not ours any more")
}

/// Cuts worker `a` off while the load goes on.
fn cut_off(mut run: Run, cut: impl Fn(usize), heal: impl Fn(usize)) -> Report {
    for (name, role) in [
        ("r", "router"),
        ("b", "probe-service"),
        ("c", "other-service"),
    ] {
        run.hire_at(role, name, &run.url);
    }
    for name in ["r", "a", "b", "c"] {
        run.crew.says(name, " started");
    }
    let load = run.load(load(&run));
    for round in 0.. {
        std::thread::sleep(Duration::from_millis(700));
        run.strike(|_| {
            cut(round);
            std::thread::sleep(CUT_OFF);
            heal(round);
        });
        if !load.goes_on() {
            break;
        }
        if run.full {
            std::thread::sleep(Duration::from_secs(6));
        }
    }
    load.finish();
    eventually("what it still wanted to write was fenced", || {
        (fenced(&run) > 0).then_some(())
    });
    run.note("fenced", fenced(&run));
    run.note("lives of the worker", run.crew.lives("a"));
    run.finish()
}

/// Worker `a` tells of every lease that it lost.
fn talkative(run: &Run, url: &str) -> Command {
    let mut command = run.command("probe-service", "a");
    go_by(&mut command, url);
    command.env("STREAMFLEET_LOG", "info,streamfleet::worker=debug");
    command
}

fn partition(full: bool) -> Result<Report, CannotInject> {
    let run = Run::new(full);
    let at = run.fleet.dir.path().join("a.sock");
    let proxy = Proxy::start(&run.fleet.socket(), &at);
    run.hire("a", None, talkative(&run, &proxy.url()));
    let way = |round| [Way::Held, Way::Hole][round % 2];
    Ok(cut_off(
        run,
        |n| proxy.set(way(n)),
        |_| proxy.set(Way::Good),
    ))
}

fn partition_tcp(full: bool) -> Result<Report, CannotInject> {
    let network = Network::new()?;
    let (port, here) = ("6390", network.here());
    let run = Run::on(
        Server::with(&["--port", port, "--bind", &here, "--protected-mode", "no"]),
        full,
    );
    let command = talkative(&run, &format!("redis://{here}:{port}"));
    let mut inside = network.inside();
    inside.arg(command.get_program()).args(command.get_args());
    inside.envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
    inside.env_remove("FAULT");
    run.hire("a", None, inside);
    // Either end in turn: the worker's packets vanish, or it finds its own network down.
    let end = |round| [End::Redis, End::Worker][round % 2];
    Ok(cut_off(
        run,
        |n| network.set(end(n), "down"),
        |n| network.set(end(n), "up"),
    ))
}

#[derive(Clone, Copy)]
enum End {
    Redis,
    Worker,
}

/// A network namespace, which lives as long as the process that holds it, and a link to it.
struct Network {
    holder: Child,
    /// The name of our end, and the third number of the addresses.
    number: u32,
}

impl Network {
    fn new() -> Result<Self, CannotInject> {
        let holder = Command::new("unshare")
            .args(["--net", "sleep", "3600"])
            .stdin(Stdio::null())
            .spawn()
            .map_err(|e| CannotInject(format!("no network namespace: unshare: {e}")))?;
        let number = std::process::id() % 250;
        let network = Self { holder, number };
        // The namespace is there when it is no longer ours.
        let ours = std::fs::read_link("/proc/self/ns/net");
        let apart = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            std::fs::read_link(network.namespace())
                .is_ok_and(|theirs| ours.as_ref().is_ok_and(|ours| theirs != *ours))
        });
        if !apart {
            return Err(CannotInject("no network namespace: this needs root".into()));
        }
        let (here, peer) = (network.link(), network.holder.id().to_string());
        let steps = [
            format!("link add {here} type veth peer name there netns {peer}"),
            format!("addr add {}/30 dev {here}", network.here()),
            format!("link set {here} up"),
        ];
        for step in steps {
            network.ip(&step)?;
        }
        network.ip_inside(&format!("addr add 10.213.{number}.2/30 dev there"))?;
        network.ip_inside("link set there up")?;
        Ok(network)
    }

    fn here(&self) -> String {
        format!("10.213.{}.1", self.number)
    }

    fn link(&self) -> String {
        format!("sffault{}", self.number)
    }

    fn namespace(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.holder.id()))
    }

    fn set(&self, end: End, state: &str) {
        let done = match end {
            End::Redis => self.ip(&format!("link set {} {state}", self.link())),
            End::Worker => self.ip_inside(&format!("link set there {state}")),
        };
        done.unwrap_or_else(|CannotInject(reason)| panic!("{reason}"));
    }

    fn ip(&self, words: &str) -> Result<(), CannotInject> {
        run_it(Command::new("ip").args(words.split(' ')), words)
    }

    fn ip_inside(&self, words: &str) -> Result<(), CannotInject> {
        run_it(self.inside().arg("ip").args(words.split(' ')), words)
    }

    /// What runs the program that its further arguments name in the namespace.
    fn inside(&self) -> Command {
        let mut inside = Command::new("nsenter");
        inside.arg(format!("--net={}", self.namespace().display()));
        inside
    }
}

fn run_it(command: &mut Command, words: &str) -> Result<(), CannotInject> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|e| CannotInject(format!("ip {words}: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(CannotInject(format!("ip {words}: {}", said.trim())))
}

/// The link goes with the namespace, and the namespace with its last process.
impl Drop for Network {
    fn drop(&mut self) {
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}
