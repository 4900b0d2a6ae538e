//! `docs/redis-cli.md`: every line is typed at a shop to which everything has happened, and must
//! print what stands there.

use std::path::Path;
use std::time::{Duration, Instant};

use redis::Commands;
use serde_json::{Value, json};

use crate::readme::{Step, Terminal, all_fit, programs, steps};
use crate::services::gateway::Gateway;
use crate::shop::brisk_shop;
use crate::support::fleet::Process;
use crate::support::{Fleet, eventually};

/// How long a line is asked again.
const PATIENCE: Duration = Duration::from_secs(10);
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/redis-cli.md");
const SERVICES: [&str; 9] = [
    "inventory",
    "payment",
    "order",
    "notification",
    "analytics",
    "search",
    "cache",
    "recommendation",
    "user",
];

/// The shop in the middle of everything. Its processes are frozen or wait for something, so that
/// all stays as it is.
struct Shop {
    _gateway: Gateway,
    _router: Process,
    _services: Vec<Process>,
    /// Last: the processes end before their folder does.
    fleet: Fleet,
}

fn service(fleet: &Fleet, gateway: &Gateway, name: &str) -> Process {
    let mut command = std::process::Command::new(programs().join(format!("{name}-worker")));
    command.args(["--name", &format!("{name}-1")]);
    command.env("STREAMFLEET_OUTBOX", fleet.dir.path().join("outbox"));
    command.env("STREAMFLEET_GATEWAY", gateway.url());
    fleet.launch(command, name, "worker started")
}

/// An event with an ID that the page can name; a flow of its own.
fn event(number: u32, event_type: &str, data: Value) -> Value {
    let id = format!("00000000-0000-7000-8000-{number:012}");
    json!({
        "event_id": id, "event_type": event_type, "version": "1", "source": "web-shop",
        "timestamp": "2026-01-05T10:00:00Z", "correlation_id": id, "data": data,
    })
}

fn order(number: u32, order: u32, sku: u32) -> Value {
    event(
        number,
        "Order.Created",
        json!({
            "order_id": order, "order_number": format!("N-{order}"), "user_id": 1, "total_amount": 10.0,
            "status": "pending", "created_at": "2026-01-05T10:00:00Z",
            "items": [{
                "product_id": 1, "sku_id": sku, "sku_code": "TEA", "product_name": "Tea",
                "sku_name": "Tea", "quantity": 1, "unit_price": 10.0, "subtotal": 10.0,
            }],
            "shipping_address": {
                "recipient": "Ann", "phone": "1", "address": "1 Road", "city": "Lyon",
                "province": "Rhone", "country": "France",
            },
        }),
    )
}

fn updated(number: u32) -> Value {
    let data = json!({
        "user_id": 1, "updated_at": "2026-01-05T11:00:00Z", "email": format!("ann{number}@example.org"),
    });
    event(number, "User.Updated", data)
}

/// The events of the tour, each a flow of its own.
fn day() -> Vec<Value> {
    let lines = include_str!("../../examples/day.ndjson").lines();
    lines
        .map(|line| {
            let mut event: Value = serde_json::from_str(line).unwrap();
            event["correlation_id"] = event["event_id"].clone();
            event["source"] = json!("web-shop");
            event
        })
        .collect()
}

impl Shop {
    fn in_the_middle_of_everything() -> Self {
        let keeps_notes =
            |text: String| format!("{text}\naudit: {{ maxlen: 10000 }}\ntrace: {{ ttl: 1d }}\n");
        let fleet = brisk_shop(keeps_notes);
        let gateway = Gateway::start(fleet.dir.path());
        let router = fleet.router("router-1");
        let services: Vec<_> = SERVICES.map(|s| service(&fleet, &gateway, s)).into();
        let shop = Self {
            _gateway: gateway,
            _router: router,
            _services: services,
            fleet,
        };
        shop.opens();
        shop.goes_wrong();
        shop
    }

    /// What goes well, and what is given up: all of it is settled.
    fn opens(&self) {
        let fleet = &self.fleet;
        let (first, orders): (Vec<_>, Vec<_>) = day()
            .into_iter()
            .partition(|e| e["event_type"] != "Order.Created");
        fleet.publish(&first);
        fleet.drained();
        fleet.publish(&orders);
        eventually("the first order is confirmed", || {
            (fleet.cli::<u64>("XLEN es:Order:1") == 4).then_some(())
        });
        fleet.publish(&first);
        fleet.publish(&(100..125).map(updated).collect::<Vec<_>>());
        fleet.publish(&[event(30, "Order.Teleported", json!({}))]);
        fleet.drained();
        fleet
            .ask(&["dead", "redrive", "--subscriber", "analytics-service"])
            .ok();
        fleet.ask(&["dead", "list", "--subscriber", "router"]).ok();
        eventually("it has died again", || {
            (fleet.cli::<u64>("XLEN dead:analytics-service") == 1).then_some(())
        });
        fleet.ask(&["rebuild", "search-service"]).ok();
        fleet.drained();
    }

    /// What is under way, and stays there.
    fn goes_wrong(&self) {
        let fleet = &self.fleet;
        // From now on, what waits waits for long.
        let text = std::fs::read_to_string(fleet.config()).unwrap();
        let [brisk, slow] = ["initial: 50ms, max: 200ms", "initial: 10m, max: 1h"];
        assert!(text.contains(brisk) && text.contains("open: 200ms, max_open: 200ms"));
        let text = text.replace(brisk, slow);
        fleet.configure(&text.replace("open: 200ms, max_open: 200ms", "open: 10m, max_open: 1h"));
        for process in self._services.iter().chain([&self._router]) {
            process.wait_for_log("the new routing.yaml is in force");
        }
        for name in SERVICES {
            let generation = format!("HGET worker:{name}-service:{name}-1 generation");
            eventually("its sign of life says so", || {
                let known: Option<u64> = fleet.cli(&generation);
                (known == Some(2)).then_some(())
            });
        }
        let why = ["--for", "1h", "--why", "the mail server moves"];
        fleet
            .ask(&[&["pause", "notification-service"], &why[..]].concat())
            .ok();
        self._services[3].wait_for_log("PAUSED: reading nothing");

        self._gateway.rules(json!({"outage": true}));
        fleet.publish(
            &(0..6)
                .map(|n| order(40 + n, 10 + n, 11))
                .collect::<Vec<_>>(),
        );
        eventually("the breaker is open", || {
            let state: Option<String> = fleet.cli("HGET control:payment-service breaker");
            (state.as_deref() == Some("open")).then_some(())
        });
        // Nobody has ever received this article.
        fleet.publish(&[order(50, 20, 99)]);
        eventually("it waits for another attempt", || {
            (fleet.cli::<u64>("HLEN attempts:order-events:inventory-service") > 0).then_some(())
        });
        // One service hangs.
        self._services[6].signal("STOP");
        let data = json!({
            "sku_id": 12, "product_id": 1, "sku_code": "TEA-200", "name": "Tea, 200 g", "price": 18,
            "is_active": true, "created_by": 1, "created_at": "2026-01-05T10:00:00Z",
        });
        fleet.publish(&[event(60, "SKU.Created", data)]);
        eventually("it hangs with a delivery", || {
            let pending: redis::streams::StreamPendingReply = fleet
                .connection()
                .xpending("product-events", "cache-service")
                .unwrap();
            (pending.count() == 1).then_some(())
        });
        self.settles_down();
        let _: String = fleet.cli("CONFIG SET slowlog-log-slower-than 0");
        // And so does the router.
        self._router.signal("STOP");
        let logged_in = json!({"user_id": 1, "logged_in_at": "2026-01-05T12:00:00Z"});
        fleet.publish(&[event(70, "User.LoggedIn", logged_in)]);
    }

    /// Waits until nobody has anything to do that can be done.
    fn settles_down(&self) {
        let fleet = &self.fleet;
        eventually("nothing is under way", || {
            let status = fleet.ask(&["status", "--output", "json"]).json();
            let groups = status["groups"].as_array().unwrap();
            let idle = groups.iter().all(|group| {
                let held_up = ["notification-service", "payment-service", "cache-service"];
                held_up.contains(&group["subscriber"].as_str().unwrap())
                    || (group["waiting"] == 0 && group["in_flight"] == 0)
            });
            (idle && fleet.cli::<u64>("XLEN inbox") == 0).then_some(())
        });
    }
}

/// Whether a word names a key of ours; patterns and variables do not.
fn is_key(word: &str) -> bool {
    let plain = !word.contains(['*', '$', '(', '"', '\'']);
    let streams = ["inbox", "audit", "fleet", "scheduled"];
    plain
        && (streams.contains(&word)
            || word.ends_with("-events")
            || word.split_once(':').is_some_and(|(family, _)| {
                let families = [
                    "attempts",
                    "dead",
                    "redrive",
                    "worker",
                    "control",
                    "stats",
                    "es",
                    "snapshot",
                    "sagas",
                    "scheduled",
                    "trace",
                ];
                families.contains(&family) || family.ends_with("-service")
            }))
}

/// Types a line; what came instead, if it is not what the page says.
fn asked(
    bash: &mut Terminal,
    connection: &mut redis::Connection,
    command: &str,
    expected: &[String],
) -> Result<(), String> {
    let missing: Vec<_> = command
        .split_whitespace()
        .filter(|word| is_key(word) && !connection.exists::<_, bool>(*word).unwrap())
        .collect();
    let (output, code) = bash.run(command);
    let sets_a_variable = command
        .split_once('=')
        .is_some_and(|(name, _)| !name.contains(' '));
    let nothing = |line: &str| {
        line.is_empty()
            || line == "(nil)"
            || line.starts_with("(error)")
            || line.starts_with("(empty")
    };
    let answers = sets_a_variable || !output.iter().all(|line| nothing(line));
    match code == 0 && answers && missing.is_empty() && all_fit(expected, &output) {
        true => Ok(()),
        false => Err(format!(
            "$ {command}\n{}\n--- code {code}, keys that are missing: {missing:?}; the page says\n{}\n",
            output.join("\n"),
            expected.join("\n"),
        )),
    }
}

#[test]
fn every_question_is_answered() {
    let shop = Shop::in_the_middle_of_everything();
    let fleet = &shop.fleet;
    let mut bash = Terminal::bash(fleet.dir.path(), programs());
    let socket = fleet.socket();
    let reach = format!(
        "redis-cli() {{ command redis-cli -s {} \"$@\"; }}",
        socket.display()
    );
    bash.run(&reach);
    let mut connection = fleet.connection();
    let (mut lines, mut wrong) = (0, Vec::new());
    for step in steps(&std::fs::read_to_string(PAGE).unwrap()) {
        let Step::Type(command, expected) = step else {
            panic!("only commands are expected here: {step:?}")
        };
        // A breaker changes its mind, a delivery its holder: asked again, it is as the page says.
        let deadline = Instant::now() + PATIENCE;
        let mut answer = asked(&mut bash, &mut connection, &command, &expected);
        while answer.is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(200));
            answer = asked(&mut bash, &mut connection, &command, &expected);
        }
        wrong.extend(answer.err());
        lines += 1;
    }
    assert!(lines >= 30, "{lines} lines");
    assert!(
        wrong.is_empty(),
        "{} of {lines}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(Path::new(&socket).exists());
}
