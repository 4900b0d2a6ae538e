//! `streamfleet rebuild`: a read model made anew while the live one serves. The model is that of the
//! shop's analytics service; what it must be is what a second fleet has that was fed the same events
//! and never rebuilt.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use redis::{Commands, Value as Reply};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::cli::{Ran, run, streamfleet};
use crate::support::fleet::{Process, id};
use crate::support::{Fleet, Server, eventually};

const ME: &str = "analytics-service";
const ROUTING: &str = r#"
version: 1
schemas: schemas
streams:
  user-events:    { events: ["User.**"] }
  product-events: { events: ["Product.**", "SKU.**"] }
  order-events:   { events: ["Order.**", "Payment.**", "Inventory.**"] }
  system-events:  { events: ["System.**"] }
routes:
  User.Created:   [analytics-service, notification-service]
  Order.Created:  [analytics-service, inventory-service]
defaults:
  backoff: { initial: 50ms, max: 200ms, jitter: 0 }
  lease: 1s
  concurrency: 8
subscribers:
  analytics-service: { start: beginning }
"#;

/// A fleet with a router and the analytics service.
struct Shop {
    // Before the folder with their logs.
    _router: Process,
    _analytics: Process,
    fleet: Fleet,
}

impl std::ops::Deref for Shop {
    type Target = Fleet;
    fn deref(&self) -> &Fleet {
        &self.fleet
    }
}

impl Shop {
    fn open() -> Self {
        Self::with(ROUTING)
    }

    fn with(routing: &str) -> Self {
        let fleet = Fleet {
            server: Server::start(),
        };
        let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
        std::os::unix::fs::symlink(schemas, fleet.dir.path().join("schemas")).unwrap();
        fleet.configure(routing);
        let router = fleet.router("r");
        let mut command = Command::new(env!("CARGO_BIN_EXE_analytics-worker"));
        command.args(["--name", "a"]);
        let analytics = fleet.launch(command, "a", "worker started");
        Self {
            _router: router,
            _analytics: analytics,
            fleet,
        }
    }

    /// Publishes, and waits until the live model has it all.
    fn publish_and_drain(&self, events: &[Value]) {
        self.publish(events);
        self.drained();
    }

    fn rebuild(&self, args: &[&str]) -> Ran {
        self.ask(&[&["rebuild", ME], args].concat())
    }

    /// The same, as a process that is armed to die.
    fn rebuild_until(&self, failpoint: &str) -> Option<i32> {
        let mut command = streamfleet(&["rebuild", ME]);
        command
            .env("STREAMFLEET_CONFIG", self.config())
            .env("STREAMFLEET_REDIS_URL", self.url())
            .env("STREAMFLEET_FAILPOINT", format!("{failpoint} 1 abort"));
        run(command, b"").code
    }

    /// The live model, key by key.
    fn model(&self) -> BTreeMap<String, Vec<String>> {
        model(self, &format!("{ME}:*"))
    }

    /// Keys of a shadow, whatever they are for.
    fn leftovers(&self) -> Vec<String> {
        let keys: Vec<String> = self.connection().keys("*@*").unwrap();
        let fleet: BTreeMap<String, String> = self.cli("HGETALL fleet");
        let fields = fleet.into_keys().filter(|field| field.contains('@'));
        // Signs of life end by themselves.
        let all = keys.into_iter().chain(fields);
        all.filter(|name| !name.starts_with("worker:")).collect()
    }

    fn pending(&self) -> u64 {
        let reply: redis::streams::StreamPendingReply =
            self.connection().xpending("order-events", ME).unwrap();
        reply.count() as u64
    }
}

/// Everything under a pattern, however it is kept in memory.
pub fn model(fleet: &Fleet, pattern: &str) -> BTreeMap<String, Vec<String>> {
    let mut connection = fleet.connection();
    let keys: Vec<String> = connection.keys(pattern).unwrap();
    let content = keys.into_iter().map(|key| {
        let kind: String = redis::cmd("TYPE").arg(&key).query(&mut connection).unwrap();
        let mut content: Vec<String> = match kind.as_str() {
            "hash" => {
                let fields: BTreeMap<String, String> = connection.hgetall(&key).unwrap();
                fields.iter().map(|(k, v)| format!("{k}={v}")).collect()
            }
            "set" => connection.smembers(&key).unwrap(),
            "zset" => {
                let scores: Vec<(String, String)> =
                    connection.zrange_withscores(&key, 0, -1).unwrap();
                scores.iter().map(|(k, v)| format!("{k}={v}")).collect()
            }
            "string" => vec![connection.get(&key).unwrap()],
            other => panic!("{key} is a {other}"),
        };
        content.sort();
        (key, content)
    });
    content.collect()
}

pub fn envelope(event_type: &str, n: u64, data: Value) -> Value {
    let minute = n / 7 % 60;
    json!({
        "event_id": Uuid::new_v4(), "event_type": event_type, "version": "1",
        "timestamp": format!("2026-03-01T{:02}:{minute:02}:00Z", n / 420 % 24),
        "correlation_id": Uuid::new_v4(), "data": data,
    })
}

pub fn order(n: u64, amount: f64) -> Value {
    let country = if n.is_multiple_of(2) {
        "France"
    } else {
        "Spain"
    };
    let data = json!({
        "order_id": n, "order_number": format!("N{n}"), "user_id": n % 50, "total_amount": amount,
        "status": "pending", "created_at": "2026-03-01T00:00:00Z",
        "items": [{"product_id": 1, "sku_id": 1, "sku_code": "c", "product_name": "p", "sku_name": "s",
                   "quantity": n % 5 + 1, "unit_price": 1.5, "subtotal": 1.5}],
        "shipping_address": {"recipient": "r", "phone": "1", "address": "a", "city": "c", "province": "p",
                             "country": country},
    });
    envelope("Order.Created", n, data)
}

pub fn user(n: u64) -> Value {
    let data = json!({
        "user_id": n, "username": format!("u{n}"), "email": "u@example.com", "user_type": "customer",
        "created_at": "2026-03-01T00:00:00Z",
    });
    envelope("User.Created", n, data)
}

/// Orders, users among them, and now and then an order that no model takes.
fn events(numbers: std::ops::Range<u64>) -> Vec<Value> {
    let event = |n| match n % 10 {
        0 => user(n),
        5 if n % 100 == 55 => order(n, 0.001),
        _ => order(n, n as f64 / 4.0),
    };
    numbers.map(event).collect()
}

/// The events of the letters of a subscriber, sorted.
pub fn dead(fleet: &Fleet, subscriber: &str) -> Vec<String> {
    let letters = fleet.dead(subscriber).into_iter();
    let mut ids: Vec<String> = letters.map(|mut l| l.remove("id").unwrap()).collect();
    ids.sort();
    ids
}

fn corrupt(fleet: &Fleet) {
    let day = format!("{ME}:day:2026-03-01");
    let _: Reply = fleet.cli(&format!("HSET {day} revenue_cents 1 nonsense 7"));
    let _: Reply = fleet.cli(&format!("DEL {ME}:user:7 {ME}:hour:2026-03-01T00"));
    let _: Reply = fleet.cli(&format!("SET {ME}:nobody:wrote:this x"));
}

/// Nothing is lost and nothing counted twice, though events never cease.
#[test]
fn a_corrupted_model_is_rebuilt_exactly_while_events_flow() {
    let (shop, twin) = (Shop::open(), Shop::open());
    let first = events(0..2_000);
    shop.publish_and_drain(&first);
    twin.publish(&first);
    corrupt(&shop);

    let (stop, published) = (AtomicBool::new(false), AtomicU64::new(2_000));
    let answer = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let from = published.fetch_add(10, Ordering::SeqCst);
                let some = events(from..from + 10);
                shop.publish(&some);
                twin.publish(&some);
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        });
        let ran = shop.rebuild(&["--output", "json"]);
        // Some more, for the live one that goes on.
        std::thread::sleep(std::time::Duration::from_millis(300));
        stop.store(true, Ordering::SeqCst);
        ran
    });
    let answer = answer.json();
    let during = answer["entries"].as_u64().unwrap();
    assert!(during >= 2_000, "{answer}");
    assert!(published.load(Ordering::SeqCst) > during, "{answer}");
    shop.drained();
    twin.drained();
    assert_eq!(shop.model(), twin.model());
    assert_eq!(dead(&shop, ME), dead(&twin, ME));
    assert_eq!(shop.leftovers(), [""; 0]);
    let status = shop.ask(&["status", "--output", "json"]).json();
    // Redis still knows the lag of the groups that were set on.
    for group in status["groups"].as_array().unwrap() {
        if group["subscriber"] == ME {
            assert_eq!(group["waiting"], 0, "{group}");
        }
    }
}

/// What was handled in its time is in the new model, also when that time is over.
#[test]
fn what_has_expired_since_it_was_handled_is_run_again() {
    let shop = Shop::open();
    let until = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3);
    let mut some = events(0..20);
    for event in &mut some {
        event["expires_at"] = json!(until.to_string());
    }
    shop.publish_and_drain(&some);
    let (live, letters) = (shop.model(), dead(&shop, ME));
    assert!(!live.is_empty() && letters.is_empty(), "{letters:?}");
    eventually("their time is over", || {
        (jiff::Timestamp::now() > until).then_some(())
    });
    shop.rebuild(&[]).ok();
    assert_eq!(shop.model(), live);
    assert_eq!(dead(&shop, ME), letters);
}

/// What only the old model gave up is in the new one; what that gives up as well is a letter of the live
/// subscriber.
#[test]
fn letters_are_those_of_the_new_model_and_can_be_redriven() {
    let shop = Shop::open();
    shop.publish_and_drain(&events(0..60));
    let rejected = dead(&shop, ME);
    assert_eq!(rejected.len(), 1, "55 has a fraction of a cent");
    // Now events die that would not, were the model in order.
    let day = format!("{ME}:day:2026-03-01");
    let _: Reply = shop.cli(&format!("SET {day} broken"));
    shop.publish_and_drain(&events(100..110));
    assert_eq!(dead(&shop, ME).len(), 11);

    let text = shop.rebuild(&[]).ok();
    assert!(text.contains("dead letters  1 instead of 11"), "{text}");
    assert_eq!(dead(&shop, ME), rejected);
    let orders: u64 = shop.cli(&format!("HGET {day} orders"));
    assert_eq!(orders, 53 + 9);
    // The letter is the live one's, wherever it was written.
    let redriven = shop.ask(&["dead", "redrive", "--subscriber", ME]);
    assert!(redriven.ok().contains("redriven 1"));
    eventually("it is rejected again", || {
        (dead(&shop, ME) == rejected).then_some(())
    });
    assert_eq!(shop.cli::<u64>(&format!("HGET {day} orders")), 53 + 9);
}

/// What the live one holds and has not settled is settled by the switch: the new model has it.
#[test]
fn an_event_that_waits_for_a_retry_is_counted_once() {
    let shop = Shop::with(&ROUTING.replace("initial: 50ms, max: 200ms", "initial: 3s, max: 3s"));
    shop.publish_and_drain(&events(0..20));
    let day = format!("{ME}:day:2026-03-01");
    let _: Reply = shop.cli(&format!("SET {day} broken"));
    shop.publish(&[order(21, 5.0)]);
    eventually("it waits for its retry", || {
        (shop.pending() == 1).then_some(())
    });
    shop.rebuild(&[]).ok();
    assert_eq!(shop.pending(), 0);
    assert_eq!(shop.cli::<u64>(&format!("HGET {day} orders")), 19);
    assert!(!shop.cli::<bool>(&format!("EXISTS attempts:order-events:{ME}")));
    // Nothing comes of the retry when it is due.
    std::thread::sleep(std::time::Duration::from_millis(3_500));
    assert_eq!(shop.cli::<u64>(&format!("HGET {day} orders")), 19);
    assert_eq!(dead(&shop, ME), [""; 0]);
}

#[test]
fn an_incomplete_history_is_refused_and_can_be_accepted() {
    let shop = Shop::open();
    let all = events(0..60);
    shop.publish_and_drain(&all);
    let old_letter = dead(&shop, ME);
    let _: u64 = shop.cli("XTRIM order-events MAXLEN = 4");
    let before = shop.snapshot();
    let said = shop.rebuild(&[]).failed(1);
    assert!(
        said.contains("50 of 54 entries of order-events are gone"),
        "{said}"
    );
    assert!(said.contains("--allow-incomplete"), "{said}");
    let touched: Vec<_> = shop
        .snapshot()
        .into_iter()
        .filter(|k| !before.contains(k))
        .collect();
    // Signs of life, and the number that it had.
    let may_change = |key: &str| key.starts_with("worker:") || key == "fleet";
    assert!(
        touched.iter().all(|(key, _)| may_change(key)),
        "{touched:?}"
    );

    let text = shop.rebuild(&["--allow-incomplete"]).ok();
    assert!(
        text.contains("0 events brought back, of 50 entries"),
        "{text}"
    );
    assert!(text.contains("INCOMPLETE"), "{text}");
    assert_eq!(shop.leftovers(), [""; 0]);
    let day = format!("{ME}:day:2026-03-01");
    assert_eq!(shop.cli::<u64>(&format!("HGET {day} orders")), 4);
    // Its entry was not run again, so it is not settled by the new model.
    assert_eq!(dead(&shop, ME), old_letter);
    assert_eq!(old_letter, [id(&all[55])]);
}

#[test]
fn only_a_read_model_is_rebuilt() {
    let shop = Shop::open();
    shop.publish_and_drain(&events(0..20));
    let before = shop.model();
    let said = shop.ask(&["rebuild", "inventory-service"]).failed(1);
    assert!(said.contains("is not declared a read model"), "{said}");
    let said = shop.ask(&["rebuild", "nobody-service"]).failed(1);
    assert!(said.contains("routes nothing to nobody-service"), "{said}");
    let said = shop.rebuild(&["--worker", "/bin/false"]).failed(1);
    assert!(
        said.contains("/bin/false ended by itself (exit status: 1)"),
        "{said}"
    );
    shop.rebuild(&["--pause", "1h"]).failed(2);
    assert_eq!(shop.leftovers(), [""; 0]);
    assert_eq!(shop.model(), before);
    // A group that is gone has lost the ledger: no rebuild can know where to go on.
    let _: u64 = shop.cli(&format!("XGROUP DESTROY user-events {ME}"));
    let said = shop.rebuild(&[]).failed(1);
    assert!(
        said.contains("the group of the live subscriber on user-events is gone"),
        "{said}"
    );
    assert_eq!(shop.leftovers(), [""; 0]);
}

/// Killed before the switch: the old model, whole, and a shadow that is removed by --abort or by the
/// next rebuild. Killed right after it: the new one.
#[test]
fn a_rebuild_that_is_killed_leaves_one_whole_model() {
    let (shop, twin) = (Shop::open(), Shop::open());
    let all = events(0..500);
    shop.publish_and_drain(&all);
    twin.publish_and_drain(&all);
    corrupt(&shop);
    let corrupted = shop.model();
    assert_ne!(corrupted, twin.model());

    assert_eq!(shop.rebuild_until("rebuild.begun"), None, "killed");
    assert!(!shop.leftovers().is_empty());
    let said = shop.rebuild(&["--abort"]).ok();
    assert!(said.starts_with("removed 2 groups and 0 keys"), "{said}");
    assert_eq!(shop.leftovers(), [""; 0]);

    assert_eq!(shop.rebuild_until("rebuild.gathered"), None, "killed");
    assert_eq!(shop.model(), corrupted);
    // While the shadow is there, nothing that it has yet to read is trimmed, and it is no alarm.
    let groups = shop.ask(&["group", "list", "--output", "json"]).list();
    let shadows = groups.as_array().unwrap().iter();
    let shadows: Vec<_> = shadows.filter(|g| g["condition"] == "shadow").collect();
    assert_eq!(shadows.len(), 2, "{groups}");
    let ran = shop.rebuild(&[]);
    assert!(
        ran.err.contains("that an earlier rebuild left behind"),
        "{ran:?}"
    );
    ran.ok();
    assert_eq!(shop.model(), twin.model());
    assert_eq!(shop.leftovers(), [""; 0]);

    corrupt(&shop);
    assert_eq!(shop.rebuild_until("rebuild.switched"), None, "killed");
    assert_eq!(shop.model(), twin.model());
    assert_eq!(shop.leftovers(), [""; 0]);
    // The live one goes on by itself.
    let more = events(500..600);
    shop.publish_and_drain(&more);
    twin.publish_and_drain(&more);
    assert_eq!(shop.model(), twin.model());
}

/// Two at a time would be two shadows, of which the second removes the first.
#[test]
fn one_rebuild_at_a_time() {
    let shop = Shop::open();
    shop.publish_and_drain(&events(0..20));
    // One that goes on for as long as we like.
    let mut command = streamfleet(&["rebuild", ME]);
    command.env("STREAMFLEET_FAILPOINT", "rebuild.gathered 1 freeze");
    let frozen = shop.launch(command, "rebuild", "frozen at");
    let worker = format!("worker:{ME}@rebuild:command");
    assert!(shop.cli::<bool>(&format!("EXISTS {worker}")));
    // (Frozen, it gives no signs of life: ours are its.)
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0;
            while !stop.load(Ordering::SeqCst) {
                n += 1;
                let _: u64 = shop.cli(&format!("HSET {worker} seen {n}"));
                let _: u64 = shop.cli(&format!("PEXPIRE {worker} 15000"));
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
        });
        let second = shop.rebuild(&[]);
        let abort = shop.rebuild(&["--abort"]);
        stop.store(true, Ordering::SeqCst);
        let pid = frozen.child.id().to_string();
        for ran in [second, abort] {
            let said = ran.failed(1);
            assert!(
                said.contains(&format!("is being rebuilt by process {pid}")),
                "{said}"
            );
        }
    });
    drop(frozen);
    let _: u64 = shop.cli(&format!("DEL {worker}"));
    shop.rebuild(&["--abort"]).ok();
    assert_eq!(shop.leftovers(), [""; 0]);
}
