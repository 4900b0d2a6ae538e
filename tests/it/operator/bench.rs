//! `streamfleet bench`: that it runs, that its counts add up, and that it has its figures. Never
//! how fast anything is.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::cli::{Ran, run, streamfleet};
use crate::support::fleet::Process;
use crate::support::server::program;
use crate::support::{Server, eventually};

/// The command on a private server, small.
fn bench(args: &[&str]) -> Command {
    // It starts what lies beside it.
    assert!(Path::new(env!("CARGO_BIN_EXE_streamfleet-router")).is_file());
    let mut command = streamfleet(&["bench", "--rate", "300", "--rate-seconds", "1"]);
    if !args.contains(&"--events") {
        command.args(["--events", "600"]);
    }
    command.args(args);
    command.env("STREAMFLEET_REDIS_SERVER", program());
    command
}

fn of<'a>(all: &'a Value, stage: &str, handler: &str) -> &'a Value {
    let wanted = |r: &&Value| r["stage"] == stage && r["handler"].as_str().unwrap_or("") == handler;
    all.as_array().unwrap().iter().find(wanted).unwrap()
}

#[test]
fn every_stage_has_its_figures_and_is_compared_with_the_floor() {
    let folder = tempfile::tempdir().unwrap();
    let (saved, chart) = (
        folder.path().join("all.json"),
        folder.path().join("all.svg"),
    );
    let mut command = bench(&["--types", "2", "--handlers", "none,one-effect"]);
    command.args(["--output", "json"]);
    command.arg("--save").arg(&saved).arg("--chart").arg(&chart);
    let all = run(command, b"").json();

    let results = &all["results"];
    let jobs = [
        ("publish", ""),
        ("route", ""),
        ("handle", "none"),
        ("handle", "one-effect"),
        ("end-to-end", "none"),
        ("latency", "none"),
    ];
    assert_eq!(results.as_array().unwrap().len(), jobs.len());
    for (stage, handler) in jobs {
        let result = of(results, stage, handler);
        let figures = result["figures"].as_object().unwrap();
        let mut wanted = vec![
            "redis_us_per_event",
            "client_us_per_event",
            "redis_bytes_per_event",
        ];
        if stage != "latency" {
            wanted.push("events_per_second");
        }
        if ["end-to-end", "latency"].contains(&stage) {
            wanted.extend([
                "latency_p50_ms",
                "latency_p90_ms",
                "latency_p99_ms",
                "latency_p99_9_ms",
            ]);
        }
        for figure in wanted {
            for side in ["ours", "floor"] {
                assert!(
                    figures[figure][side]["median"].is_number(),
                    "{stage} {figure}: {figures:?}"
                );
            }
        }
        assert!(
            result["commands"]["xadd"].is_array() || stage == "handle",
            "{result}"
        );
        let route = ["route", "end-to-end", "latency"].contains(&stage);
        assert_eq!(
            result["commands"]["sadd"].is_array(),
            route,
            "the floor marks what it routes"
        );
    }
    assert!(of(results, "publish", "")["figures"]["events_per_second"]["ratio"].is_number());

    let samples = all["samples"].as_array().unwrap();
    assert_eq!(samples.len(), 2 * jobs.len(), "the warm-up does not count");
    for sample in samples {
        // In the stage latency: a second to warm up, and one that counts.
        assert_eq!(sample["events"], 600, "{sample}");
        assert!(sample["seconds"].as_f64().unwrap() > 0.0);
        for process in sample["processes"].as_array().unwrap() {
            assert!(process["peak_bytes"].as_u64().unwrap() > 0, "{sample}");
        }
    }
    let fixed = of(&all["samples"], "latency", "none");
    assert_eq!(
        fixed["latency"]["count"], 300,
        "its first second is not recorded"
    );
    assert_eq!(fixed["publish_latency"]["count"], 300);

    let targets: Vec<_> = all["targets"].as_array().unwrap().iter().collect();
    assert_eq!(targets.len(), 9, "{targets:?}");
    for (role, side) in [("router", "ours"), ("worker", "ours"), ("router", "floor")] {
        let mut all = all["processes"].as_array().unwrap().iter();
        let figures = all
            .find(|p| p["role"] == role && p["side"] == side)
            .unwrap();
        assert!(figures["ready_ms"]["max"].as_f64().unwrap() > 0.0);
    }
    for place in ["inbox_entry", "stream_entry"] {
        let bytes = all["memory"][place].as_f64().unwrap();
        assert!((600.0..2_000.0).contains(&bytes), "{place}: {bytes}");
    }
    assert!(all["memory"]["pending_entry"].as_f64().unwrap() > 16.0);
    for fact in ["cpu", "cores", "kernel", "server", "version", "date"] {
        assert!(!all["machine"][fact].is_null(), "{fact}");
    }
    assert_eq!(all["parameters"]["types"], 2);
    assert_eq!(
        serde_json::from_slice::<Value>(&std::fs::read(saved).unwrap()).unwrap(),
        all
    );
    let svg = std::fs::read_to_string(chart).unwrap();
    assert!(
        svg.starts_with("<svg ") && svg.contains("<polyline"),
        "{svg}"
    );
}

/// Several of everything, the other handlers, and a report for people.
#[test]
fn it_grows_with_its_parameters() {
    let mut command = bench(&[
        "--stages",
        "handle,end-to-end",
        "--handlers",
        "follow-up,failing",
    ]);
    command.args(["--subscribers", "2", "--workers", "2", "--routers", "2"]);
    command.args(["--failure-rate", "0.2", "--event-bytes", "2000"]);
    command.args([
        "--append-only",
        "--stream-node-bytes",
        "16384",
        "--concurrency",
        "8",
    ]);
    let text = run(command, b"").ok();
    for row in [
        "handle, follow-up",
        "handle, failing",
        "end-to-end, follow-up",
        "Targets",
        "█",
    ] {
        assert!(text.contains(row), "{row}: {text}");
    }
    assert!(
        text.contains("2 subscribers × 2 workers × 8 at a time on 1 threads, 2 routers"),
        "{text}"
    );
    assert!(text.contains("(append-only file)"), "{text}");
    assert!(
        !text.contains('\u{1b}'),
        "no colours where there is no terminal"
    );
}

/// With a past: what was settled, and what waits for a retry, is neither handled nor counted.
#[test]
fn what_was_there_before_is_left_alone() {
    let mut command = bench(&["--stages", "handle", "--history", "300", "--waiting", "200"]);
    command.args([
        "--subscribers",
        "2",
        "--handlers",
        "none",
        "--output",
        "json",
    ]);
    let all = run(command, b"").json();
    let samples = all["samples"].as_array().unwrap();
    assert_eq!(samples.len(), 2);
    for sample in samples {
        assert_eq!(sample["events"], 1_200, "per delivery: {sample}");
    }
    assert_eq!(all["parameters"]["waiting"], 200);
}

/// As many types and subscribers as it knows; trimmed; and without the floor there are no ratios.
#[test]
fn the_floor_can_sit_out() {
    let mut command = bench(&[
        "--stages",
        "route,end-to-end",
        "--no-floor",
        "--maxlen",
        "100",
    ]);
    command.args([
        "--handlers",
        "none",
        "--inbox-limit",
        "50",
        "--output",
        "json",
    ]);
    let all = run(command, b"").json();
    assert_eq!(all["samples"].as_array().unwrap().len(), 2);
    for stage in [("route", ""), ("end-to-end", "none")] {
        let speed = &of(&all["results"], stage.0, stage.1)["figures"]["events_per_second"];
        assert!(speed["ours"]["median"].is_number(), "{speed}");
        assert!(
            speed["floor"].is_null() && speed["ratio"].is_null(),
            "{speed}"
        );
    }
    let mut large = bench(&["--stages", "route", "--no-floor", "--types", "1000"]);
    large.args(["--subscribers", "200", "--output", "json"]);
    assert_eq!(run(large, b"").json()["samples"][0]["events"], 600);
}

#[test]
fn on_a_given_redis_it_stays_under_its_namespace() {
    let server = Server::start();
    server.cli::<()>("SET inbox mine");
    let before = server.snapshot();
    let url = server.url();
    let on_it = |more: &[&str]| {
        run(
            bench(&[&["--redis-url", &url, "--stages", "route"], more].concat()),
            b"",
        )
    };
    on_it(&[]).ok();
    assert_eq!(server.snapshot(), before);

    server.cli::<()>("SET streamfleet-bench:left over");
    let said = on_it(&[]).failed(1);
    assert!(
        said.contains("there are keys under streamfleet-bench:"),
        "{said}"
    );
    assert_eq!(server.cli::<String>("GET streamfleet-bench:left"), "over");
}

/// What does not work is no figure.
#[test]
fn a_process_that_ends_ends_the_measurement() {
    let server = Server::start();
    let mut command = bench(&["--stages", "route", "--redis-url", &server.url()]);
    command.env("STREAMFLEET_FAILPOINT", "router.routed 2 abort");
    let said = run(command, b"").failed(1);
    assert!(said.contains("the router ended by itself"), "{said}");
    assert!(server.snapshot().is_empty(), "it cleans up all the same");
}

#[test]
fn stopped_it_leaves_nothing() {
    let server = Server::start();
    let url = server.url();
    let more = ["--stages", "route", "--events", "1000000"];
    let mut command = bench(&[&more[..], &["--redis-url", &url]].concat());
    command.stdin(Stdio::null());
    let mut bench = Process::start(command, server.dir.path().join("bench.log"));
    eventually("it has begun", || {
        (server.cli::<u64>("DBSIZE") > 0).then_some(())
    });
    bench.signal("INT");
    assert_eq!(bench.exit_code(), Some(1));
    assert!(bench.log_text().contains("stopped"), "{}", bench.log_text());
    assert!(server.snapshot().is_empty());
}

#[test]
fn wrong_input_is_refused() {
    let refused = |args: &[&str], why: &str| {
        let Ran { code, err, .. } = run(bench(args), b"");
        assert_eq!(code, Some(2), "{args:?}: {err}");
        assert!(err.contains(why), "{args:?}: {err}");
    };
    let mut none = streamfleet(&["bench", "--events", "0"]);
    none.env("STREAMFLEET_REDIS_SERVER", program());
    assert!(run(none, b"").failed(2).contains("0 is not in 1.."));
    refused(&["--event-bytes", "10"], "an event has ");
    refused(&["--event-bytes", "99999999"], "an event has ");
    refused(&["--handlers", "sometimes"], "sometimes");
    refused(&["--stages", "lunch"], "lunch");
    refused(&["--failure-rate", "1.5"], "from 0 to 1");
    refused(&["--subscribers", "0"], "0 is not in 1..");
    let url = ["--redis-url", "redis://127.0.0.1:1"];
    refused(&[&url[..], &["--append-only"]].concat(), "--append-only");
    refused(
        &[&url[..], &["--redis-server", "x"]].concat(),
        "--redis-server",
    );
    let said = run(bench(&["--redis-server", "./none"]), b"").failed(1);
    assert!(said.contains("there is no ./none"), "{said}");
    let said = run(bench(&["--save", "/nowhere/all.json"]), b"").failed(1);
    assert!(said.contains("/nowhere/all.json"), "{said}");
    run(bench(&url), b"").failed(69);
}
