//! Reloading live: who runs what, what is refused, and that no event is lost or doubled meanwhile.

use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::Commands;
use serde_json::{Value, json};
use streamfleet::routing::Config;

use crate::support::fleet::{Process, ROUTING, id, typed};
use crate::support::{Fleet, event, eventually};

/// What a process says of its configuration.
fn told(fleet: &Fleet, process: &str, field: &str) -> String {
    let told: Option<String> = fleet.cli(&format!("HGET worker:{process} {field}"));
    told.unwrap_or_default()
}

fn says(fleet: &Fleet, process: &str, field: &str, value: &str) {
    eventually(&format!("{process} says {field} {value}"), || {
        (told(fleet, process, field) == value).then_some(())
    });
}

/// A router that takes a changed file only when it is told to.
fn deaf_router(fleet: &Fleet, name: &str) -> Process {
    let mut command = fleet.router_command(name);
    command.env("STREAMFLEET_WATCH", "off");
    fleet.launch(command, name, "router started")
}

/// A worker with another file than the others.
fn worker_with(fleet: &Fleet, subscriber: &str, name: &str, routing: &str) -> Process {
    let file = fleet.dir.path().join(format!("{name}.yaml"));
    std::fs::write(&file, routing).unwrap();
    let mut command = fleet.worker_command(subscriber, name, &fleet.url());
    command.env("STREAMFLEET_CONFIG", file);
    let log = fleet.dir.path().join(format!("{name}-own.log"));
    let worker = Process::start(command, log);
    worker.wait_for_log("worker started");
    worker
}

/// Takes `probe-service` out of the routes.
fn without_probe() -> String {
    ROUTING.replace("[probe-service]", "[other-service]")
}

fn status_of(fleet: &Fleet) -> Value {
    let file = fleet.dir.path().join("at-hand.yaml");
    std::fs::write(&file, ROUTING).unwrap();
    let file = file.display().to_string();
    fleet
        .ask(&["status", "--config", &file, "--output", "json"])
        .json()
}

/// The events of a stream, each with whom it names.
fn named(fleet: &Fleet, stream: &str) -> Vec<(String, String)> {
    let reply: redis::streams::StreamRangeReply = fleet.connection().xrange_all(stream).unwrap();
    let of = |entry: &redis::streams::StreamId, field| entry.get::<String>(field).unwrap();
    reply
        .ids
        .iter()
        .map(|entry| (of(entry, "id"), of(entry, "to")))
        .collect()
}

/// One line is edited while events come in and two routers route. They take the new file at
/// different times; each subscriber handles what names it, once.
#[test]
fn a_subscriber_joins_while_two_routers_reload_one_after_the_other() {
    let fleet = Fleet::new();
    let routers = [deaf_router(&fleet, "r1"), deaf_router(&fleet, "r2")];
    let _probe = fleet.worker("probe-service", "p");
    let stop = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let producer = scope.spawn(|| {
            let mut sent = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let batch: Vec<_> = (0..5).map(|_| event(json!({}))).collect();
                fleet.publish(&batch);
                sent.extend(batch.iter().map(id));
                std::thread::sleep(Duration::from_millis(5));
            }
            sent
        });
        let routed = || fleet.cli::<usize>("XLEN test-events");
        let goes_on = || {
            let before = routed();
            eventually("more is routed", || (routed() > before + 50).then_some(()));
        };
        goes_on();
        fleet.configure(&ROUTING.replace(
            "Test.Happened: [probe-service]",
            "Test.Happened: [probe-service, late-service]",
        ));
        routers[0].signal("HUP");
        routers[0].wait_for_log("the new routing.yaml is in force");
        let late = fleet.worker("late-service", "l");
        goes_on();
        assert!(!routers[1].log_text().contains("in force"));
        routers[1].signal("HUP");
        routers[1].wait_for_log("the new routing.yaml is in force");
        goes_on();
        stop.store(true, Ordering::Relaxed);
        let sent = producer.join().unwrap();
        fleet.handles_each_once("probe-service", sent.len());
        drop(late);
        sent
    });
    let entries = named(&fleet, "test-events");
    assert_eq!(entries.len(), sent.len());
    let for_late = entries.iter().filter(|(_, to)| to.contains("late-service"));
    let for_late: Vec<_> = for_late.map(|(id, _)| id.clone()).collect();
    assert!(!for_late.is_empty() && for_late.len() < sent.len());
    let handled = fleet.handled("late-service");
    assert_eq!(handled.len(), for_late.len());
    assert!(for_late.iter().all(|id| handled.get(id) == Some(&1)));
    // It reads from where the stream stood when its group was made: the first that names it is
    // newer than that.
    let record: String = fleet.cli("HGET fleet group:test-events:late-service");
    let before = entries.iter().take_while(|(_, to)| !to.contains("late"));
    let joined = record.split_once(':').unwrap().1.to_owned();
    let until: redis::streams::StreamRangeReply = fleet
        .connection()
        .xrange("test-events", "-", joined)
        .unwrap();
    assert!(until.ids.len() <= before.count());
}

/// What was taken, what was refused and why is told by every process, and stands out in `status`.
#[test]
fn every_process_tells_what_became_of_its_reload() {
    let fleet = Fleet::new();
    let router = fleet.router("r");
    let worker = fleet.worker("probe-service", "p");
    let both = ["router:r", "probe-service:p"];
    let first = told(&fleet, "router:r", "config");
    for process in both {
        let fields = ["generation", "config", "taken", "reload"].map(|f| told(&fleet, process, f));
        assert_eq!(fields, ["1", &first, "1", ""]);
    }
    let quiet = fleet.ask(&["status"]).ok();
    assert!(
        !quiet.contains("REFUSED") && !quiet.contains("another"),
        "{quiet}"
    );

    fleet.configure(&ROUTING.replace("routes:", "routs:"));
    for process in both {
        says(&fleet, process, "reload", "refused");
        assert_eq!(told(&fleet, process, "config"), first);
        let why = told(&fleet, process, "reload_why");
        assert!(
            why.contains("routing.yaml:2:1: error: missing field `routes`; fix: ")
                && why.ends_with("(and 1 more)"),
            "{why}"
        );
    }
    let said = fleet.ask(&["status"]).failed(78);
    let runs = "configuration 1, another than that of routing.yaml here, is run by all 2 processes";
    assert!(said.contains(runs) && said.contains("REFUSED "), "{said}");
    assert!(said.contains("did you mean `routes`?"), "{said}");
    let at_hand = fleet.dir.path().join("good.yaml");
    let better = ROUTING.replace("lease: 1s", "lease: 2s");
    std::fs::write(&at_hand, &better).unwrap();
    let at_hand = at_hand.display().to_string();
    let text = fleet.ask(&["status", "--config", &at_hand]).ok();
    assert!(text.contains(runs), "{text}");
    assert!(
        text.contains("ago by probe-service p, router r: "),
        "{text}"
    );
    let status = status_of(&fleet);
    let process = &status["processes"][0];
    assert_eq!(
        (&process["subscriber"], &process["taken"]),
        (&json!("probe-service"), &json!(1))
    );
    assert_eq!(process["reload"]["outcome"], "refused");

    fleet.configure(ROUTING);
    for process in both {
        says(&fleet, process, "reload", "unchanged");
        assert_eq!(told(&fleet, process, "reload_why"), "");
    }
    fleet.configure(&better);
    for process in both {
        says(&fleet, process, "reload", "taken");
        let fields = ["generation", "taken"].map(|f| told(&fleet, process, f));
        assert_eq!(fields, ["2", "2"]);
    }
    let at = told(&fleet, "router:r", "reload_at");
    for process in [&router, &worker] {
        process.signal("HUP");
    }
    for process in both {
        says(&fleet, process, "reload", "unchanged");
    }
    assert_ne!(told(&fleet, "router:r", "reload_at"), at);
}

/// Each prefix of the file is a configuration without fault. None of them is meant.
#[test]
fn a_file_that_is_being_written_is_not_taken() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    // A worker takes each file at once, an idle router only the last of those that come together.
    let _worker = fleet.worker("other-service", "o");
    let mut file = File::create(fleet.config()).unwrap();
    file.write_all(ROUTING.as_bytes()).unwrap();
    for n in 0..20 {
        writeln!(file, "# {n}").unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    writeln!(file, "retired: [old-service]").unwrap();
    drop(file);
    let whole = Config::load(&fleet.config()).unwrap().fingerprint();
    for process in ["router:r", "other-service:o"] {
        says(&fleet, process, "config", &whole);
        assert_eq!(told(&fleet, process, "taken"), "2");
    }
}

/// Routing and schemas belong together: a route of a type whose schema has yet to come is refused,
/// and taken when it has come.
#[test]
fn routes_and_schemas_are_taken_together() {
    let fleet = Fleet::new();
    let router = fleet.router("r");
    fleet.configure(&ROUTING.replace(
        "More.Happened: [other-service]",
        "More.Happened: [other-service]\n  More.Added: [other-service]",
    ));
    router.wait_for_log("no schema knows `More.Added`");
    fleet.write_schema("More.Added");
    router.wait_for_log("the new routing.yaml is in force");
    says(&fleet, "router:r", "taken", "2");
}

/// Adds a stream of which `late-service` is the only reader.
fn with_stream(name: &str) -> String {
    ROUTING
        .replace(
            "routes:",
            &format!(
                "  {name}: {{ events: [\"Late.**\"] }}\nroutes:\n  Late.Happened: [late-service]"
            ),
        )
        .replace(
            "More.Happened: [other-service]",
            "More.Happened: [other-service, late-service]",
        )
}

/// A file may be good and Redis stand against it: then it is refused as any other, routing goes on by the one
/// before, and it is taken once Redis is repaired, or forgotten with the next file.
#[test]
fn a_file_that_a_key_of_redis_stands_against_holds_nothing_up() {
    let fleet = Fleet::new();
    fleet.write_schema("Late.Happened");
    let router = fleet.router("r");
    let _worker = fleet.worker("probe-service", "p");
    let goes_on = |events: usize| {
        fleet.publish(&[event(json!({}))]);
        eventually("it is handled", || {
            (fleet.handled("probe-service").len() == events).then_some(())
        });
    };
    goes_on(1);
    let refused = |process: &str, why: &str| {
        says(&fleet, process, "reload", "refused");
        let told = told(&fleet, process, "reload_why");
        assert!(told.contains(why), "{told}");
    };

    let _: () = fleet.cli("SET late-events not-a-stream");
    fleet.configure(&with_stream("late-events"));
    refused("router:r", "key late-events is a string, expected a stream");
    goes_on(2);
    let records: Vec<String> = fleet.cli("HKEYS fleet");
    let made = records.iter().any(|field| field.contains("late-service"));
    assert!(!made, "nothing of it was made: {records:?}");
    // Asked again, it says the same again.
    let at = told(&fleet, "router:r", "reload_at");
    router.signal("HUP");
    eventually("it is asked", || {
        (told(&fleet, "router:r", "reload_at") != at).then_some(())
    });
    refused("router:r", "late-events");
    // Who reads nothing there takes it.
    says(&fleet, "probe-service:p", "reload", "taken");
    fleet.configure(ROUTING);
    says(&fleet, "router:r", "reload", "unchanged");
    goes_on(3);
    fleet.configure(&with_stream("late-events"));
    refused("router:r", "late-events");
    // Others may publish by it already.
    let early = typed("Late.Happened", json!({}));
    fleet.publish(std::slice::from_ref(&early));
    router.wait_for_log("only the configuration that was refused knows them");
    let _: u64 = fleet.cli("DEL late-events");
    says(&fleet, "router:r", "reload", "taken");
    eventually("it is routed", || {
        (named(&fleet, "late-events") == [(id(&early), "late-service".to_owned())]).then_some(())
    });
    assert!(fleet.dead("router").is_empty());
    goes_on(4);

    let _: () = fleet.cli("ACL SETUSER default resetkeys ~[^n]*");
    fleet.configure(&with_stream("no-events"));
    refused("router:r", "no-events");
    goes_on(5);
    let _: () = fleet.cli("ACL SETUSER default allkeys");
    says(&fleet, "router:r", "reload", "taken");
    says(&fleet, "router:r", "taken", "3");
    goes_on(6);
}

/// The same of a worker: what it cannot take does not keep it from taking the next.
#[test]
fn a_worker_takes_the_next_file_when_redis_stands_against_one() {
    let fleet = Fleet::new();
    fleet.write_schema("Late.Happened");
    fleet.configure(&with_stream("late-events"));
    let _router = fleet.router("r");
    let _worker = fleet.worker("late-service", "l");
    let first = told(&fleet, "late-service:l", "config");
    let _: () = fleet.cli("SET later-events not-a-stream");
    fleet.configure(&with_stream("later-events"));
    says(&fleet, "late-service:l", "reload", "refused");
    assert_eq!(told(&fleet, "late-service:l", "config"), first);
    fleet.configure(&with_stream("late-events").replace("lease: 1s", "lease: 2s"));
    says(&fleet, "late-service:l", "reload", "taken");
    fleet.configure(&with_stream("later-events"));
    says(&fleet, "late-service:l", "reload", "refused");
    let _: u64 = fleet.cli("DEL later-events");
    says(&fleet, "late-service:l", "reload", "taken");
    fleet.publish(&[typed("Late.Happened", json!({}))]);
    fleet.handles_each_once("late-service", 1);
}

/// It is refused by routers and workers alike, said with what is owed, and taken with the line that
/// says that it is meant. Then its worker settles what it owes, and its group stays until it is
/// dropped.
#[test]
fn a_subscriber_that_owes_something_leaves_only_by_being_retired() {
    let fleet = Fleet::new();
    let router = fleet.router("r");
    let _other = fleet.worker("other-service", "o");
    let owed: Vec<_> = (0..3).map(|_| event(json!({}))).collect();
    fleet.publish(&owed);
    eventually("all are routed", || {
        (fleet.cli::<usize>("XLEN test-events") == 3).then_some(())
    });
    fleet.configure(&without_probe());
    for process in ["router:r", "other-service:o"] {
        says(&fleet, process, "reload", "refused");
        let why = told(&fleet, process, "reload_why");
        assert!(
            why.contains("probe-service is in no route any more"),
            "{why}"
        );
        assert!(why.contains("3 on test-events (3 not read)"), "{why}");
        assert!(why.contains("`retired: [probe-service]`"), "{why}");
    }
    let status = fleet.ask(&["status"]).ok();
    assert!(
        status.contains("REFUSED") && status.contains("3 on test-events"),
        "{status}"
    );
    fleet.publish(&[event(json!({}))]);
    eventually("it is routed by the old file", || {
        let entries = named(&fleet, "test-events");
        let (_, to) = entries.get(3)?;
        (to == "probe-service").then_some(())
    });

    let retired = format!("{}retired: [probe-service]\n", without_probe());
    fleet.configure(&retired);
    router.wait_for_log("the new routing.yaml is in force");
    says(&fleet, "other-service:o", "taken", "2");
    fleet.publish(&[event(json!({}))]);
    eventually("what comes now goes to others", || {
        let entries = named(&fleet, "test-events");
        let (_, to) = entries.get(4)?;
        (to == "other-service").then_some(())
    });
    let condition = || {
        let text = fleet.ask(&["status"]).ok();
        let line = text.lines().find(|l| l.contains("probe-service")).unwrap();
        line.to_owned()
    };
    assert!(condition().ends_with("retired: its workers settle what it owes"));
    let instance = fleet.ask(&["instance", "probe@1"]);
    assert!(
        instance
            .err
            .contains("the program that serves probe-service"),
        "its units can start it: {instance:?}"
    );
    let mut worker = fleet.worker("probe-service", "p");
    fleet.handles_each_once("probe-service", 4);
    eventually("it is seen to owe nothing", || {
        condition()
            .ends_with("retired: streamfleet group retire")
            .then_some(())
    });
    worker.signal("TERM");
    assert_eq!(worker.exit_code(), Some(0));
    says(&fleet, "router:r", "taken", "2");
    fleet.ask(&["group", "retire", "probe-service"]).ok();
    assert!(!fleet.ask(&["group", "list"]).ok().contains("probe-service"));
    let late = fleet.launch(
        fleet.worker_command("probe-service", "p", &fleet.url()),
        "p",
        "is retired and has no group any more",
    );
    drop(late);
}

/// A file that was refused for what it would leave behind is taken once that is settled.
#[test]
fn what_was_refused_for_what_is_owed_is_taken_when_it_is_settled() {
    let fleet = Fleet::new();
    let router = fleet.router("r");
    fleet.publish(&[event(json!({}))]);
    eventually("it is routed", || {
        (fleet.cli::<usize>("XLEN test-events") == 1).then_some(())
    });
    fleet.configure(&without_probe());
    router.wait_for_log("REFUSED, the running configuration stays: probe-service");
    let _probe = worker_with(&fleet, "probe-service", "p", ROUTING);
    router.wait_for_log("the new routing.yaml is in force");
    let log = router.log_text();
    assert_eq!(log.matches("REFUSED").count(), 1, "it is said once");
    assert_eq!(fleet.handled("probe-service").len(), 1);
}

/// A start is not refused: the door would stay shut. Nothing is lost by it, it is said, and
/// the routers that refused the file follow.
#[test]
fn a_start_with_a_file_that_leaves_somebody_behind_is_alarming_and_loses_nothing() {
    let fleet = Fleet::new();
    fleet.configure(&ROUTING.replace("[\"Test.**\"] }", "[\"Test.**\"], maxlen: 1 }"));
    let first = fleet.router("r1");
    fleet.publish(&[event(json!({})), event(json!({}))]);
    eventually("both are routed", || {
        (fleet.cli::<usize>("XLEN test-events") == 2).then_some(())
    });
    let dropped = without_probe().replace("[\"Test.**\"] }", "[\"Test.**\"], maxlen: 1 }");
    fleet.configure(&dropped);
    first.wait_for_log("REFUSED, the running configuration stays: probe-service");
    let second = fleet.start_router("r2");
    second.wait_for_log("LEFT BEHIND: probe-service is in no route any more");
    second.wait_for_log("router started");
    first.wait_for_log("the new routing.yaml is in force");
    second.wait_for_log("kept above its limits");
    assert_eq!(
        fleet.cli::<usize>("XLEN test-events"),
        2,
        "nothing is trimmed"
    );
    let _probe = worker_with(&fleet, "probe-service", "p", ROUTING);
    eventually("both are handled", || {
        (fleet.handled("probe-service").len() == 2).then_some(())
    });
}
