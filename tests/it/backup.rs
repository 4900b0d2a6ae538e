//! A backup of a shop at work, restored to another Redis: what is lost, and what happens twice.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::support::fleet::id;
use crate::support::{Server, eventually};
use crate::whole_shop::{Day, Happening};

/// Orders before the backup, while it is taken, and after it.
const ORDERS: [i64; 3] = [20, 10, 20];

/// A way to take one, and to begin with it.
struct Way {
    /// Copies what the shop's Redis has written into a folder; the shop goes on meanwhile.
    take: fn(&mut Day, &Path),
    /// Starts a server with it.
    restore: fn(&Path) -> Server,
}

fn copy(from: &Path, to: &Path) {
    if !from.is_dir() {
        std::fs::copy(from, to).unwrap();
        return;
    }
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        copy(&entry.path(), &to.join(entry.file_name()));
    }
}

fn info(server: &Server, field: &str) -> String {
    let all: String = server.cli("INFO persistence");
    let mut lines = all.lines().filter_map(|line| line.split_once(':'));
    let found = lines.find(|(name, _)| *name == field);
    found
        .unwrap_or_else(|| panic!("{field} in {all}"))
        .1
        .to_owned()
}

fn no_rewrite(server: &Server) {
    eventually("the append-only file is not being rewritten", || {
        (info(server, "aof_rewrite_in_progress") == "0").then_some(())
    });
}

const SNAPSHOT: Way = Way {
    take: |day, folder| {
        let server = &day.fleet.server;
        let before: u64 = server.cli("LASTSAVE");
        // LASTSAVE is in seconds.
        eventually("a second has passed", || {
            let now: Vec<u64> = server.cli("TIME");
            (now[0] > before).then_some(())
        });
        let _: String = server.cli("BGSAVE");
        orders(day, ORDERS[1]);
        let server = &day.fleet.server;
        eventually("it is saved", || {
            (server.cli::<u64>("LASTSAVE") > before).then_some(())
        });
        assert_eq!(info(server, "rdb_last_bgsave_status"), "ok");
        copy(
            &server.dir.path().join("dump.rdb"),
            &folder.join("dump.rdb"),
        );
    },
    restore: |folder| {
        // With the append-only file on, a Redis that has none begins empty, whatever dump.rdb says.
        let trap = Server::prepare(&[], &[]);
        copy(&folder.join("dump.rdb"), &trap.dir.path().join("dump.rdb"));
        trap.run();
        assert_eq!(trap.cli::<u64>("DBSIZE"), 0);

        let server = Server::prepare(&[], &["--appendonly", "no"]);
        copy(
            &folder.join("dump.rdb"),
            &server.dir.path().join("dump.rdb"),
        );
        server.run();
        assert!(server.cli::<u64>("DBSIZE") > 0);
        let _: String = server.cli("CONFIG SET appendonly yes");
        no_rewrite(&server);
        assert_eq!(info(&server, "aof_enabled"), "1");
        server
    },
};

const APPEND_ONLY_FILE: Way = Way {
    take: |day, folder| {
        let server = &day.fleet.server;
        let _: String = server.cli("CONFIG SET auto-aof-rewrite-percentage 0");
        no_rewrite(server);
        let name = "appendonlydir";
        copy(&server.dir.path().join(name), &folder.join(name));
        let _: String = server.cli("CONFIG SET auto-aof-rewrite-percentage 100");
        orders(day, ORDERS[1]);
    },
    restore: |folder| {
        let server = Server::prepare(&[], &[]);
        let name = "appendonlydir";
        copy(&folder.join(name), &server.dir.path().join(name));
        server.run();
        server
    },
};

fn orders(day: &mut Day, how_many: i64) {
    for n in 0..how_many {
        day.happens(Happening::Order {
            user: n % 3 + 1,
            lines: vec![(n % 4 + 1, 1)],
            cents: 1_000 + n,
        });
    }
}

/// How often each order was placed, by the history of its stream.
fn placed(day: &Day) -> BTreeMap<i64, u32> {
    let mut placed = BTreeMap::new();
    for event in day.routed("order-events") {
        if event["event_type"] == "Order.Created" {
            *placed
                .entry(event["data"]["order_id"].as_i64().unwrap())
                .or_default() += 1;
        }
    }
    placed
}

fn gateway(day: &Day, what: &str) -> Value {
    day.gateway.ledger()[what].clone()
}

fn counted(day: &Day) -> u64 {
    day.fleet
        .cli("HGET analytics-service:day:2026-01-05 orders")
}

/// The mails that went out, by the events that they tell of.
fn mails(day: &Day) -> BTreeSet<String> {
    let outbox = std::fs::read_dir(day.fleet.dir.path().join("outbox")).unwrap();
    let names = outbox.map(|file| file.unwrap().file_name().into_string().unwrap());
    names
        .filter_map(|name| name.strip_suffix(".eml").map(str::to_owned))
        .collect()
}

fn is_restored(way: &Way) {
    let mut day = Day::begin();
    for sku in 1..=4 {
        day.happens(Happening::Restock { sku, quantity: 100 });
    }
    orders(&mut day, ORDERS[0]);
    let backup = tempfile::tempdir().unwrap();
    (way.take)(&mut day, backup.path());
    orders(&mut day, ORDERS[2]);
    day.ends();
    day.orders_are_right();
    let all: i64 = ORDERS.iter().sum();
    assert_eq!(placed(&day), (1..=all).map(|n| (n, 1)).collect());
    let (charges, sent) = (gateway(&day, "charges"), mails(&day));

    day.moves_to((way.restore)(backup.path()));
    day.ends();
    // It is the shop of one moment: what came before is there, what came after is not.
    let there = placed(&day);
    let last = there.len() as i64;
    assert!(
        (ORDERS[0]..=ORDERS[0] + ORDERS[1]).contains(&last),
        "{there:?}"
    );
    assert_eq!(there, (1..=last).map(|n| (n, 1)).collect());
    assert_eq!(counted(&day), last as u64);
    day.stock_is_right();
    day.nothing_is_dead();
    // The world outside has not gone back: it has charges of orders that are lost. What was under way
    // was asked for again, under the same key.
    assert_eq!(gateway(&day, "charges"), charges);

    // Whoever publishes again what was published since loses nothing, and does nothing twice.
    day.fleet.publish(&day.published);
    day.ends();
    assert_eq!(placed(&day), (1..=all).map(|n| (n, 1)).collect());
    assert_eq!(counted(&day), all as u64);
    day.stock_is_right();
    day.orders_are_right();
    day.nothing_is_dead();
    assert_eq!(gateway(&day, "charges"), charges);
    // Nobody is welcomed twice, or told twice that an order came in. How it ended may be told again:
    // that event comes of stock or payment, whichever is last, and in this life it may be the other.
    let ends = day.routed("order-events").into_iter();
    let ends = ends.filter(|event| {
        let name = event["event_type"].as_str().unwrap();
        ["Order.Confirmed", "Order.Cancelled"].contains(&name)
    });
    let ends: BTreeSet<_> = ends.map(|event| id(&event)).collect();
    let news: Vec<_> = mails(&day).difference(&sent).cloned().collect();
    assert!(news.iter().all(|id| ends.contains(id)), "{news:?}");
}

#[test]
fn a_snapshot_is_the_fleet_of_one_moment() {
    is_restored(&SNAPSHOT);
}

#[test]
fn a_copy_of_the_append_only_file_is_the_fleet_of_one_moment() {
    is_restored(&APPEND_ONLY_FILE);
}
