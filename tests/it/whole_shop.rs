//! The whole shop under random days: orders, restocks, cancellations, declines, outages of the
//! gateway, events published twice and in another order, services that are killed. Whatever
//! happened, at the end the books are right.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::process::Command;
use std::time::Duration;

use proptest::prelude::*;
use redis::Commands;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::rebuild::model;
use crate::services::gateway::Gateway;
use crate::shop::brisk_shop_on;
use crate::support::cli::streamfleet;
use crate::support::fleet::Process;
use crate::support::{Fleet, Server, eventually};

const SKUS: i64 = 4;
const USERS: i64 = 3;
const SERVICES: [(&str, &str); 9] = [
    ("order", env!("CARGO_BIN_EXE_order-worker")),
    ("inventory", env!("CARGO_BIN_EXE_inventory-worker")),
    ("payment", env!("CARGO_BIN_EXE_payment-worker")),
    ("notification", env!("CARGO_BIN_EXE_notification-worker")),
    ("analytics", env!("CARGO_BIN_EXE_analytics-worker")),
    ("search", env!("CARGO_BIN_EXE_search-worker")),
    ("cache", env!("CARGO_BIN_EXE_cache-worker")),
    (
        "recommendation",
        env!("CARGO_BIN_EXE_recommendation-worker"),
    ),
    ("user", env!("CARGO_BIN_EXE_user-worker")),
];
/// Those that can be rebuilt.
const READ_MODELS: [&str; 4] = ["analytics", "search", "cache", "recommendation"];

/// Something that happens on a random day.
#[derive(Clone, Debug)]
pub enum Happening {
    /// Lines of (SKU, quantity); the price in cents.
    Order {
        user: i64,
        lines: Vec<(i64, i64)>,
        cents: i64,
    },
    Restock {
        sku: i64,
        quantity: i64,
    },
    /// The customer cancels an order of the day, by an event of the customer's own.
    Cancel {
        order: usize,
    },
    /// An event of the day is published again, under the same ID or under another.
    Again {
        event: usize,
        same: bool,
    },
    /// A user looks at a product.
    View {
        user: i64,
        product: i64,
    },
    Outage {
        on: bool,
    },
    /// kill -9 of a service, which is started again.
    Kill {
        service: usize,
    },
}

fn happening() -> impl Strategy<Value = Happening> {
    let line = (1..=SKUS, 1_i64..4);
    prop_oneof![
        8 => (1..=USERS, prop::collection::vec(line, 1..4), 1_i64..30_000)
            .prop_map(|(user, lines, cents)| Happening::Order { user, lines, cents }),
        3 => (1..=SKUS, 1_i64..9).prop_map(|(sku, quantity)| Happening::Restock { sku, quantity }),
        2 => any::<usize>().prop_map(|order| Happening::Cancel { order }),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(event, same)| Happening::Again { event, same }),
        1 => (1..=USERS, 1..=SKUS).prop_map(|(user, product)| Happening::View { user, product }),
        1 => any::<bool>().prop_map(|on| Happening::Outage { on }),
        1 => (0..SERVICES.len()).prop_map(|service| Happening::Kill { service }),
    ]
}

pub struct Day {
    pub gateway: Gateway,
    router: Process,
    services: Vec<Process>,
    kills: [u32; SERVICES.len()],
    /// Of each order its total, in cents.
    pub totals: BTreeMap<i64, i64>,
    pub published: Vec<Value>,
    /// Last: the processes end before their folder does.
    pub fleet: Fleet,
}

impl Day {
    pub fn begin() -> Self {
        Self::begin_on(Server::start())
    }

    pub fn begin_on(server: Server) -> Self {
        let fleet = brisk_shop_on(server, |text| {
            assert!(text.contains("lease: 30s"));
            text.replace("lease: 30s", "lease: 1s")
        });
        let gateway = Gateway::start(fleet.dir.path());
        gateway.rules(json!({"decline_above": "250", "delay_ms": 2}));
        let mut day = Self {
            router: fleet.router("r"),
            services: Vec::new(),
            kills: [0; SERVICES.len()],
            totals: BTreeMap::new(),
            published: Vec::new(),
            fleet,
            gateway,
        };
        day.services = (0..SERVICES.len()).map(|n| day.service(n)).collect();
        for user in 1..=USERS {
            day.publish(event("User.Created", json!({
                "user_id": user, "username": format!("user {user}"),
                "email": format!("user{user}@example.org"), "created_at": NOW, "user_type": "customer",
            })));
        }
        for product in 1..=SKUS {
            day.publish(event(
                "Product.Created",
                json!({
                    "product_id": product, "name": format!("Tea no {product}"), "category_id": 1,
                    "status": "published", "created_by": 1, "created_at": NOW,
                }),
            ));
        }
        day
    }

    fn service(&self, n: usize) -> Process {
        let (name, program) = SERVICES[n];
        let mut command = Command::new(program);
        command.args(["--name", name]);
        command.env("STREAMFLEET_GATEWAY", self.gateway.url());
        command.env("STREAMFLEET_ORDER_PATIENCE", "6s");
        command.env("STREAMFLEET_OUTBOX", self.fleet.dir.path().join("outbox"));
        self.fleet.launch(command, name, "worker started")
    }

    /// All processes die, and the shop goes on at another Redis with what is there. The rest of the
    /// world, which is the gateway and the mails, stays as it is.
    pub fn moves_to(&mut self, server: Server) {
        self.dies();
        let (old, new) = (self.fleet.dir.path(), server.dir.path());
        for name in ["routing.yaml", "outbox"] {
            std::fs::rename(old.join(name), new.join(name)).unwrap();
        }
        let schemas = std::fs::read_link(old.join("schemas")).unwrap();
        std::os::unix::fs::symlink(schemas, new.join("schemas")).unwrap();
        self.fleet = Fleet { server };
        self.router = self.fleet.router("r");
        self.services = (0..SERVICES.len()).map(|n| self.service(n)).collect();
    }

    /// kill -9 of everything.
    pub fn dies(&mut self) {
        self.services.clear();
        drop(self.router.child.kill());
        drop(self.router.child.wait());
        self.fleet.kill();
    }

    fn publish(&mut self, event: Value) {
        self.fleet.publish(&[event.clone()]);
        self.published.push(event);
    }

    pub fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Order { user, lines, cents } => {
                let order = 1 + self.totals.len() as i64;
                let (event, total) = created(order, user, &lines, cents);
                self.totals.insert(order, total);
                self.publish(event);
            }
            Happening::Restock { sku, quantity } => self.publish(event(
                "Inventory.Stock.Received",
                json!({"sku_id": sku, "quantity": quantity, "reason": "purchase", "received_at": NOW}),
            )),
            Happening::Cancel { order } if !self.totals.is_empty() => {
                let order = 1 + (order % self.totals.len()) as i64;
                self.publish(event("Order.Cancelled", json!({
                    "order_id": order, "user_id": 1, "reason": "customer", "cancelled_at": NOW,
                })));
            }
            Happening::Again { event, same } => {
                let mut again = self.published[event % self.published.len()].clone();
                // A receipt under another ID would be another receipt.
                if !same && again["event_type"] != "Inventory.Stock.Received" {
                    again["event_id"] = json!(Uuid::new_v4());
                }
                self.publish(again);
            }
            Happening::View { user, product } => self.publish(event(
                "Product.Viewed",
                json!({"product_id": product, "user_id": user, "viewed_at": NOW}),
            )),
            Happening::Outage { on } => self.gateway.rules(json!({ "outage": on })),
            // An event that is there at each of three kills would rightly be taken for their cause.
            Happening::Kill { service } if self.kills[service] < 2 => {
                self.kills[service] += 1;
                self.services[service].child.kill().unwrap();
                self.services[service].child.wait().unwrap();
                self.services[service] = self.service(service);
            }
            Happening::Cancel { .. } | Happening::Kill { .. } => {}
        }
    }

    fn rebuild(&self, name: &str) -> Command {
        let mut command = streamfleet(&["rebuild", &format!("{name}-service"), "--output", "json"]);
        command.env("STREAMFLEET_CONFIG", self.fleet.config());
        command.env("STREAMFLEET_REDIS_URL", self.fleet.url());
        if let Some(users) = &self.fleet.users {
            users.equip(&mut command);
        }
        command.stdout(std::process::Stdio::null());
        command
    }

    pub fn ends(&mut self) {
        self.gateway.rules(json!({"outage": false, "delay_ms": 0}));
        let mut connection = self.fleet.connection();
        eventually("every order has ended, and nothing is owed", || {
            let open: u64 = connection.hlen("sagas:Order").unwrap();
            let scheduled: u64 = connection.zcard("scheduled").unwrap();
            (open == 0 && scheduled == 0 && self.fleet.is_drained()).then_some(())
        });
    }

    fn hash(&self, key: String) -> HashMap<String, String> {
        self.fleet.connection().hgetall(key).unwrap()
    }

    /// received − reserved + released = available ≥ 0, by the history and by what is shown of it.
    pub fn stock_is_right(&self) {
        for sku in 1..=SKUS {
            let history = self.fleet.ask(&[
                "entity",
                "show",
                "Stock",
                &sku.to_string(),
                "--output",
                "json",
            ]);
            if history.code != Some(0) {
                continue; // never received
            }
            let (mut available, mut told) = (0, 0);
            for event in history.items() {
                let quantity = event["data"]["quantity"].as_i64().unwrap();
                available += match event["type"].as_str().unwrap() {
                    "Stock.Reserved" => -quantity,
                    _ => quantity,
                };
                told = event["data"]["available"].as_i64().unwrap();
                assert!(available >= 0, "SKU {sku} at version {}", event["version"]);
            }
            assert_eq!(told, available, "SKU {sku}");
            let shown = self.hash(format!("inventory-service:sku:{sku}"));
            assert_eq!(shown["available"], available.to_string(), "SKU {sku}");
        }
    }

    /// Every order is confirmed or cancelled, and told so once; the gateway has what the confirmed ones cost.
    pub fn orders_are_right(&self) {
        let (mut confirmed, mut told) = (0, BTreeMap::<(String, i64), u32>::new());
        for event in self.routed("order-events") {
            let name = event["event_type"].as_str().unwrap().to_owned();
            if let Some(order) = event["data"]["order_id"].as_i64() {
                *told.entry((name, order)).or_default() += 1;
            }
        }
        let told = |name: &str, order| told.get(&(name.to_owned(), order)).copied().unwrap_or(0);
        for (&order, &cents) in &self.totals {
            let shown = self.hash(format!("order-service:order:{order}"));
            let status = shown["status"].as_str();
            match status {
                "confirmed" => confirmed += cents,
                "cancelled" => assert_ne!(shown["reason"], "", "order {order}"),
                other => panic!("order {order} is {other}"),
            }
            let answers =
                ["Inventory.Stock.Reserved", "Inventory.Stock.Rejected"].map(|n| told(n, order));
            assert!(
                answers.iter().sum::<u32>() <= 1,
                "order {order}: {answers:?}"
            );
            let answers = ["Payment.Order.Paid", "Payment.Order.Declined"].map(|n| told(n, order));
            assert!(
                answers.iter().sum::<u32>() <= 1,
                "order {order}: {answers:?}"
            );
            assert!(told("Order.Confirmed", order) <= 1, "order {order}");
            assert!(told("Payment.Order.Refunded", order) <= 1, "order {order}");
            if status == "confirmed" {
                assert_eq!(told("Order.Confirmed", order), 1, "order {order}");
                assert_eq!(told("Inventory.Stock.Released", order), 0, "order {order}");
            } else {
                let (reserved, released) = (
                    told("Inventory.Stock.Reserved", order),
                    told("Inventory.Stock.Released", order),
                );
                assert_eq!(reserved, released, "order {order}");
            }
        }
        let ledger = self.gateway.ledger();
        let amount = |field| ledger[field].as_str().unwrap().parse::<Decimal>().unwrap();
        assert_eq!(
            amount("charged") - amount("refunded"),
            Decimal::new(confirmed, 2),
            "{ledger}"
        );
    }

    /// One mail for each event that is for the notification service, and no other.
    fn mails_are_right(&self) {
        let mut expected = HashSet::new();
        for stream in ["user-events", "order-events"] {
            let entries: Vec<(String, HashMap<String, String>)> = redis::cmd("XRANGE")
                .arg(stream)
                .arg("-")
                .arg("+")
                .query(&mut self.fleet.connection())
                .unwrap();
            let ours = entries
                .into_iter()
                .filter(|(_, f)| f["to"].split(',').any(|to| to == "notification-service"));
            expected.extend(ours.map(|(_, fields)| format!("{}.eml", fields["id"])));
        }
        let written = std::fs::read_dir(self.fleet.dir.path().join("outbox")).unwrap();
        let written = written.map(|file| file.unwrap().file_name().into_string().unwrap());
        // Who was killed while writing left something aside.
        let written: HashSet<String> = written.filter(|name| name.ends_with(".eml")).collect();
        assert_eq!(written, expected);
    }

    pub fn routed(&self, stream: &str) -> Vec<Value> {
        let entries: Vec<(String, HashMap<String, String>)> = redis::cmd("XRANGE")
            .arg(stream)
            .arg("-")
            .arg("+")
            .query(&mut self.fleet.connection())
            .unwrap();
        entries
            .into_iter()
            .map(|(_, fields)| serde_json::from_str(&fields["event"]).unwrap())
            .collect()
    }

    /// What commits counted is what is there.
    fn the_event_store_is_counted(&self) {
        let status = self.fleet.ask(&["status", "--output", "json"]).json();
        let listed = self
            .fleet
            .ask(&["entity", "list", "--output", "json"])
            .list();
        let mut found = serde_json::Map::new();
        for kind in listed.as_array().unwrap() {
            let figures = json!({ "entities": kind["entities"], "events": kind["events"] });
            found.insert(kind["entity"].as_str().unwrap().to_owned(), figures);
        }
        let mut counted = status["event_store"].clone();
        for kind in counted.as_object_mut().unwrap().values_mut() {
            let bytes = kind.as_object_mut().unwrap().remove("bytes");
            assert!(bytes.unwrap().as_u64() > kind["events"].as_u64());
        }
        assert_eq!(counted, Value::Object(found));
    }

    /// Nobody gave anything up, but what overtook its cause twice, because a service was killed that
    /// had the cause in hand.
    pub fn nothing_is_dead(&self) {
        let services = SERVICES.iter().map(|(name, _)| format!("{name}-service"));
        for service in services.chain(["router".into()]) {
            let mut dead = self.fleet.dead(&service);
            let early = ["was never placed", "was neither paid nor cancelled"];
            dead.retain(|letter| !early.iter().any(|cause| letter["error"].ends_with(cause)));
            assert!(dead.is_empty(), "{service}: {dead:#?}");
        }
    }
}

const NOW: &str = "2026-01-05T10:00:00Z";

fn event(event_type: &str, data: Value) -> Value {
    json!({
        "event_id": Uuid::new_v4(), "event_type": event_type, "version": "1",
        "timestamp": NOW, "correlation_id": Uuid::new_v4(), "data": data,
    })
}

/// An order, and its total in cents.
fn created(order: i64, user: i64, lines: &[(i64, i64)], cents: i64) -> (Value, i64) {
    let money = |cents: i64| {
        serde_json::from_str::<Value>(&format!("{}.{:02}", cents / 100, cents % 100)).unwrap()
    };
    let item = |&(sku, quantity): &(i64, i64)| {
        json!({
            "product_id": sku, "sku_id": sku, "sku_code": format!("SKU-{sku}"), "product_name": "Tea",
            "sku_name": "Tea", "quantity": quantity, "unit_price": money(cents), "subtotal": money(cents * quantity),
        })
    };
    let total = lines.iter().map(|(_, quantity)| quantity * cents).sum();
    let address = json!({"recipient": "A", "phone": "1", "address": "1 Road", "city": "Lyon", "province": "Rhone"});
    let data = json!({
        "order_id": order, "order_number": format!("N-{order}"), "user_id": user, "total_amount": money(total),
        "status": "pending", "items": lines.iter().map(item).collect::<Vec<_>>(),
        "shipping_address": address, "created_at": NOW,
    });
    (event("Order.Created", data), total)
}

proptest! {
    // Each day takes some seconds: with an outage, orders wait until their deadline.
    #![proptest_config(ProptestConfig { cases: 4, max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_the_books_are_right_in_the_end(happenings in prop::collection::vec(happening(), 30..70)) {
        let mut day = Day::begin();
        for sku in 1..=SKUS {
            day.happens(Happening::Restock { sku, quantity: 6 });
        }
        for happening in happenings {
            day.happens(happening);
        }
        day.ends();
        day.stock_is_right();
        day.orders_are_right();
        day.mails_are_right();
        day.nothing_is_dead();
        day.the_event_store_is_counted();
    }
}

/// Each read model is rebuilt while orders flow; what comes of that is what a rebuild makes of the
/// whole history when nothing moves any more.
#[test]
fn every_read_model_is_rebuilt_while_orders_flow() {
    let mut day = Day::begin();
    for sku in 1..=SKUS {
        day.happens(Happening::Restock {
            sku,
            quantity: 1_000,
        });
    }
    let mut flow = (1..).map(|n: i64| match n % 9 {
        0 if n < 300 => Happening::View {
            user: n / 9 % USERS + 1,
            product: n / 27 % SKUS + 1,
        },
        1 => Happening::Cancel { order: n as usize },
        2 => Happening::Restock {
            sku: n % SKUS + 1,
            quantity: 1,
        },
        _ => Happening::Order {
            user: n % USERS + 1,
            lines: vec![(n % SKUS + 1, 1), (n / 3 % SKUS + 1, 1)],
            cents: n,
        },
    });
    for name in READ_MODELS {
        let mut command = day.rebuild(name);
        let mut rebuilding = command.spawn().unwrap();
        let ended = loop {
            day.happens(flow.next().unwrap());
            if let Some(ended) = rebuilding.try_wait().unwrap() {
                break ended;
            }
            std::thread::sleep(Duration::from_millis(3));
        };
        assert_eq!(ended.code(), Some(0), "{name}");
    }
    day.ends();
    day.stock_is_right();
    day.orders_are_right();
    day.nothing_is_dead();
    eventually(
        "a sign of life tells what the event store was asked",
        || {
            let told = day.fleet.ask(&["entity", "use", "--output", "json"]).list();
            let mut workers = told.as_array().unwrap().iter();
            let order = workers.find(|worker| worker["subscriber"] == "order-service")?;
            let count = |what: &str| order[what]["count"].as_u64().unwrap();
            (count("loads") > 0 && count("appends") > 0).then_some(())
        },
    );
    for name in READ_MODELS {
        let live = model(&day.fleet, &format!("{name}-service:*"));
        assert!(!live.is_empty(), "{name}");
        assert_eq!(
            day.rebuild(name).status().unwrap().code(),
            Some(0),
            "{name}"
        );
        assert_eq!(
            model(&day.fleet, &format!("{name}-service:*")),
            live,
            "{name}"
        );
    }
}

/// Each process may do no more than `scripts/redis/users.acl` lets it, and is refused nothing.
#[test]
fn every_part_has_the_rights_that_it_needs() {
    let mut day = Day::begin_on(Server::guarded(&[], &[]));
    for sku in 1..=SKUS {
        day.happens(Happening::Restock { sku, quantity: 6 });
    }
    for n in 0..12 {
        day.happens(Happening::Order {
            user: n % USERS + 1,
            lines: vec![(n % SKUS + 1, 1)],
            cents: 1_000 * (n + 1),
        });
        day.happens(Happening::View {
            user: 1,
            product: 1,
        });
    }
    day.happens(Happening::Cancel { order: 1 });
    day.happens(Happening::Again {
        event: 20,
        same: true,
    });
    for service in 0..SERVICES.len() {
        day.happens(Happening::Kill { service });
    }
    for name in READ_MODELS {
        assert_eq!(
            day.rebuild(name).status().unwrap().code(),
            Some(0),
            "{name}"
        );
    }
    // Who is refused something says so at once: no need to wait for what never comes.
    assert_eq!(day.fleet.refusals(), [""; 0]);
    day.ends();
    day.stock_is_right();
    day.orders_are_right();
    day.mails_are_right();
    day.nothing_is_dead();
    assert_eq!(day.fleet.refusals(), [""; 0]);
}
