//! `streamfleet rebuild` of a read model part of whose history has left the streams and is in the event
//! store: what comes out is what was there before.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};

use crate::rebuild::{dead, envelope, model, order, user};
use crate::support::cli::{Ran, run, streamfleet};
use crate::support::fleet::Process;
use crate::support::{Fleet, Server};

const ME: &str = "recommendation-service";
const ROUTING: &str = r#"
version: 1
schemas: schemas
streams:
  user-events:    { events: ["User.**"] }
  product-events: { events: ["Product.**", "SKU.**"] }
  order-events:   { events: ["Order.**", "Payment.**", "Inventory.**"] }
  system-events:  { events: ["System.**"] }
routes:
  User.Created:   [recommendation-service, user-service]
  Order.Created:  [order-service, recommendation-service]
  Product.Viewed: [recommendation-service]
defaults:
  backoff: { initial: 50ms, max: 200ms, jitter: 0 }
  lease: 1s
"#;

struct Shop {
    // Before the folder with their logs.
    processes: Vec<Process>,
    fleet: Fleet,
}

impl Shop {
    /// A shop in which much has happened.
    fn open() -> Self {
        let fleet = Fleet {
            server: Server::start(),
        };
        let schemas = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
        std::os::unix::fs::symlink(schemas, fleet.dir.path().join("schemas")).unwrap();
        fleet.configure(ROUTING);
        let mut processes = vec![fleet.router("r")];
        for worker in [
            env!("CARGO_BIN_EXE_recommendation-worker"),
            env!("CARGO_BIN_EXE_order-worker"),
            env!("CARGO_BIN_EXE_user-worker"),
        ] {
            let name = worker.rsplit('/').next().unwrap();
            processes.push(fleet.launch(Command::new(worker), name, "worker started"));
        }
        let shop = Self { processes, fleet };
        let events: Vec<Value> = (1..60).map(happening).collect();
        shop.publish(&events);
        shop.drained();
        assert_eq!(dead(&shop, "router"), [""; 0]);
        shop
    }

    fn rebuild(&self, args: &[&str]) -> Ran {
        self.ask(&[&["rebuild", ME], args].concat())
    }

    fn model(&self) -> BTreeMap<String, Vec<String>> {
        model(self, &format!("{ME}:*"))
    }

    /// Only the newest few are left of a stream.
    fn cut(&self, stream: &str) {
        let _: u64 = self.cli(&format!("XTRIM {stream} MAXLEN = 5"));
    }
}

impl std::ops::Deref for Shop {
    type Target = Fleet;
    fn deref(&self) -> &Fleet {
        &self.fleet
    }
}

/// Users, what they look at and what they order; order 29 is of nobody that this service can count.
fn happening(n: u64) -> Value {
    match n % 4 {
        0 => user(n),
        1 => {
            let mut order = order(n, n as f64);
            let item = |product: u64| {
                let mut item = order["data"]["items"][0].clone();
                item["product_id"] = json!(product);
                item
            };
            order["data"]["items"] = json!([item(n % 3), item(n % 5 + 3), item(n % 3)]);
            if n == 29 {
                order["data"]["user_id"] = json!(10_000_000_000_000_000_000_u64);
            }
            order
        }
        _ => envelope(
            "Product.Viewed",
            n,
            json!({"user_id": n % 7, "product_id": n % 9, "viewed_at": "2026-03-01T00:00:00Z"}),
        ),
    }
}

#[test]
fn what_has_left_the_streams_comes_from_the_event_store() {
    let shop = Shop::open();
    let (before, letters) = (shop.model(), dead(&shop, ME));
    assert_eq!(letters.len(), 1, "order 29");
    shop.cut("user-events");
    shop.cut("order-events");
    let text = shop.rebuild(&[]).ok();
    // 14 users and 15 orders there were; 5 entries of each stream are kept.
    assert!(
        text.contains("event store   19 events brought back, of 19 entries"),
        "{text}"
    );
    assert!(!text.contains("INCOMPLETE"), "{text}");
    assert_eq!(shop.model(), before);
    assert_eq!(
        dead(&shop, ME),
        letters,
        "its letter is that of the new model"
    );
    let left: Vec<String> = shop.cli("KEYS *@*");
    let left: Vec<_> = left
        .iter()
        .filter(|key| !key.starts_with("worker:"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    // And again, with nothing at all in one of them.
    let _: u64 = shop.cli("XTRIM order-events MAXLEN = 0");
    shop.publish(&[happening(61)]);
    shop.drained();
    let before = shop.model();
    shop.rebuild(&[]).ok();
    assert_eq!(shop.model(), before);
}

/// A command appends its fact before the router has seen its event.
#[test]
fn what_is_on_its_way_is_not_brought_back_as_well() {
    let mut shop = Shop::open();
    shop.cut("order-events");
    drop(shop.processes.remove(0)); // the router
    let order = happening(61);
    let data = json!({
        "order_id": 61, "order_number": "N61", "user_id": 11, "total": "1", "deadline": "2026-01-01T00:00:00Z",
        "products": [1], "by": order["event_id"], "at": "2026-01-01T00:00:00Z",
    });
    let data = data.to_string();
    let at = "2026-01-01T00:00:00Z";
    let fact = [
        "1-0",
        "type",
        "Order.Placed",
        "data",
        &data,
        "at",
        at,
        "event",
        "x",
    ];
    let _: String = redis::cmd("XADD")
        .arg("es:Order:61")
        .arg(&fact)
        .query(&mut shop.connection())
        .unwrap();
    shop.publish(&[order]);
    let sold = |shop: &Shop| -> u64 { shop.cli(&format!("ZSCORE {ME}:bought 1")) };
    let before = sold(&shop);
    shop.rebuild(&[]).ok();
    assert_eq!(sold(&shop), before, "it waits in the inbox");
    shop.processes.push(shop.fleet.router("again"));
    shop.drained();
    assert_eq!(sold(&shop), before + 1);
}

#[test]
fn what_is_in_no_history_is_named() {
    let shop = Shop::open();
    let before = shop.model();
    shop.cut("product-events");
    shop.cut("user-events");
    let said = shop.rebuild(&[]).failed(1);
    assert!(
        said.contains("and the event store does not hold Product.Viewed of product-events: the handler restores Order.Created, User.Created"),
        "{said}"
    );
    assert_eq!(shop.model(), before);
    let text = shop.rebuild(&["--allow-incomplete"]).ok();
    assert!(
        text.contains("event store   9 events brought back"),
        "{text}"
    );
    assert!(text.contains("INCOMPLETE"), "{text}");
    let without_views: BTreeMap<_, _> = before
        .into_iter()
        .filter(|(key, _)| key.contains("bought") || key.ends_with("signed_up"))
        .collect();
    let now = shop.model();
    for (key, value) in without_views {
        assert_eq!(now.get(&key), Some(&value), "{key}");
    }
}

/// A fact of an older program does not say enough.
#[test]
fn a_fact_that_tells_too_little_is_named() {
    let shop = Shop::open();
    let data = r#"{"order_id":999,"order_number":"N","user_id":1,"total":"1","deadline":"2026-01-01T00:00:00Z","products":[],"at":"2026-01-01T00:00:00Z"}"#;
    let at = "2026-01-01T00:00:00Z";
    let _: String = shop.cli(&format!(
        "XADD es:Order:999 1-0 type Order.Placed data {data} at {at} event 00000000-0000-0000-0000-000000000001"
    ));
    shop.cut("order-events");
    let before = shop.model();
    let said = shop.rebuild(&[]).failed(1);
    assert!(
        said.contains("version 1 of es:Order:999 tells too little of its event: it does not say which Order.Created"),
        "{said}"
    );
    assert_eq!(shop.model(), before);
}

#[test]
fn killed_after_restoring_it_leaves_the_old_model() {
    let shop = Shop::open();
    let before = shop.model();
    shop.cut("order-events");
    let mut command = streamfleet(&["rebuild", ME]);
    command
        .env("STREAMFLEET_CONFIG", shop.config())
        .env("STREAMFLEET_REDIS_URL", shop.url())
        .env("STREAMFLEET_FAILPOINT", "rebuild.restored 1 abort");
    assert_eq!(run(command, b"").code, None, "killed");
    assert_eq!(shop.model(), before);
    shop.rebuild(&[]).ok();
    assert_eq!(shop.model(), before);
    let left: Vec<String> = shop.cli("KEYS restored:*");
    assert!(left.is_empty(), "{left:?}");
}
