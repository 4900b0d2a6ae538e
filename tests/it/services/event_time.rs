//! What the tests of read models share: one service of the shop on a Redis of its own, and the
//! demand that what it keeps is the same, key by key and field by field, whether events come sorted
//! and one at a time, in any order and many at a time, or twice.

use std::collections::BTreeMap;
use std::process::Command;

use redis::Commands;

use crate::shop::shop;
use crate::support::fleet::Process;
use crate::support::{Fleet, eventually};

/// A service, by its name and its program.
#[derive(Clone, Copy)]
pub struct Service {
    pub name: &'static str,
    pub program: &'static str,
}

/// What a service keeps: its keys, each with its members or fields as text, sorted.
pub type Kept = BTreeMap<String, Vec<String>>;

/// An event as text, so that amounts keep their digits. `n` makes its ID: the greater, the greater.
pub fn event(n: u32, event_type: &str, at: &str, data: &str) -> String {
    format!(
        r#"{{"event_id":"00000000-0000-7000-8000-{n:012}","event_type":"{event_type}","version":"1","timestamp":"{at}","correlation_id":"00000000-0000-4000-8000-000000000001","data":{data}}}"#
    )
}

pub fn product_created(n: u32, at: &str, id: u32, name: &str, status: &str) -> String {
    let at = format!("2026-01-05T{at}Z");
    let data = format!(
        r#"{{"product_id":{id},"name":"{name}","category_id":1,"status":"{status}","created_by":1,"created_at":"{at}"}}"#
    );
    event(n, "Product.Created", &at, &data)
}

pub fn product_updated(n: u32, at: &str, id: u32, fields: &str) -> String {
    let at = format!("2026-01-05T{at}Z");
    let data = format!(r#"{{"product_id":{id},"updated_by":1,"updated_at":"{at}",{fields}}}"#);
    event(n, "Product.Updated", &at, &data)
}

/// A service at work, alone with a router.
pub struct Reader {
    // Processes end before their folder goes.
    _router: Process,
    _worker: Process,
    pub fleet: Fleet,
    service: Service,
}

impl Reader {
    /// On the shipped routing.yaml, changed by `edit`.
    pub fn start(service: Service, edit: impl Fn(String) -> String) -> Self {
        let fleet = shop(edit);
        let router = fleet.router("r");
        let mut command = Command::new(service.program);
        command.args(["--name", "w"]);
        let worker = fleet.launch(command, service.name, "worker started");
        Self {
            _router: router,
            _worker: worker,
            fleet,
            service,
        }
    }

    /// Publishes, and waits until nothing is owed.
    pub fn take<'a>(&self, events: impl IntoIterator<Item = &'a String>) {
        let mut pipeline = redis::pipe();
        for event in events {
            let add = pipeline.cmd("XADD").arg("inbox").arg("*");
            add.arg("event").arg(event).ignore();
        }
        pipeline.exec(&mut self.fleet.connection()).unwrap();
        self.settled();
    }

    fn settled(&self) {
        eventually("nothing is owed", || {
            let status = self.fleet.ask(&["status", "--output", "json"]).json();
            let subscriber = format!("{}-service", self.service.name);
            let mut groups = status["groups"].as_array().unwrap().iter();
            // The other services do not run.
            let settled = groups.all(|group| {
                let owed = ["waiting", "in_flight", "retrying", "released"];
                group["subscriber"] != *subscriber || owed.iter().all(|owed| group[*owed] == 0)
            });
            (settled && status["router"]["inbox"] == 0).then_some(())
        });
        let refused = self.fleet.dead("router");
        assert!(refused.is_empty(), "{refused:#?}");
    }

    /// Everything that was routed comes a second time, past the router, which would drop it.
    pub fn again(&self) {
        let mut connection = self.fleet.connection();
        for stream in ["user-events", "product-events", "order-events"] {
            let entries: Vec<(String, Vec<(String, String)>)> = redis::cmd("XRANGE")
                .arg(stream)
                .arg("-")
                .arg("+")
                .query(&mut connection)
                .unwrap();
            for (_, fields) in entries {
                let mut add = redis::cmd("XADD");
                add.arg(stream).arg("*").arg(fields);
                add.exec(&mut connection).unwrap();
            }
        }
        self.settled();
    }

    pub fn kept(&self) -> Kept {
        let mut connection = self.fleet.connection();
        let pattern = format!("{}-service:*", self.service.name);
        let keys: Vec<String> = connection.keys(pattern).unwrap();
        let value = |key: String| {
            let kind: String = self.fleet.cli(&format!("TYPE {key}"));
            let pairs = |line: &str| -> Vec<String> {
                let pairs: BTreeMap<String, String> = self.fleet.cli(line);
                let pairs = pairs.into_iter();
                pairs
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect()
            };
            let value = match kind.as_str() {
                "string" => vec![self.fleet.cli(&format!("GET {key}"))],
                "hash" => pairs(&format!("HGETALL {key}")),
                "zset" => pairs(&format!("ZRANGE {key} 0 -1 WITHSCORES")),
                "set" => {
                    let mut members: Vec<String> = self.fleet.cli(&format!("SMEMBERS {key}"));
                    members.sort();
                    members
                }
                other => panic!("{key} is a {other}"),
            };
            (key, value)
        };
        keys.into_iter().map(value).collect()
    }

    #[track_caller]
    pub fn refused_nothing(&self) {
        let letters = self.letters();
        assert!(letters.is_empty(), "{letters:#?}");
    }

    /// The reason and the message of each letter of the service.
    pub fn letters(&self) -> Vec<(String, String)> {
        let letters = self.fleet.dead(&format!("{}-service", self.service.name));
        letters
            .into_iter()
            .map(|mut letter| {
                let mut field = |name| letter.remove(name).unwrap_or_default();
                (field("reason"), field("error"))
            })
            .collect()
    }
}

/// Handles the events in every way, compares, and answers what the service keeps in the end.
#[track_caller]
pub fn comes_out_the_same(service: Service, events: &[String]) -> Kept {
    let one_at_a_time = |text: String| {
        ["16", "64"].iter().fold(text, |text, many| {
            text.replace(&format!("concurrency: {many}"), "concurrency: 1")
        })
    };
    let sorted = Reader::start(service, one_at_a_time);
    let mut in_order = events.to_vec();
    in_order.sort_by_key(|event| {
        let event = streamfleet::Event::from_json(event.as_bytes()).unwrap();
        (event.timestamp(), event.id())
    });
    sorted.take(&in_order);
    let expected = sorted.kept();
    sorted.refused_nothing();
    assert!(!expected.is_empty());

    in_order.reverse();
    let twice = [&in_order[..], &shuffled(events, 4)].concat();
    let ways = [
        ("backwards", in_order),
        ("shuffled, seed 1", shuffled(events, 1)),
        ("shuffled, seed 2", shuffled(events, 2)),
        ("shuffled, seed 3", shuffled(events, 3)),
        ("each of them twice", twice),
    ];
    for (way, events) in ways {
        let reader = Reader::start(service, |text| text);
        reader.take(&events);
        reader.refused_nothing();
        assert_same(way, &reader.kept(), &expected);
    }
    expected
}

#[track_caller]
pub fn assert_same(way: &str, found: &Kept, expected: &Kept) {
    let keys: std::collections::BTreeSet<_> = found.keys().chain(expected.keys()).collect();
    for key in keys {
        assert_eq!(found.get(key), expected.get(key), "{key} of {way}");
    }
}

/// Numbers that follow from a seed.
pub fn numbers(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |below| {
        // splitmix64
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % below
    }
}

pub fn shuffled(events: &[String], seed: u64) -> Vec<String> {
    let (mut events, mut number) = (events.to_vec(), numbers(seed));
    for last in (1..events.len()).rev() {
        events.swap(last, number(last as u64 + 1) as usize);
    }
    events
}

/// Sends the service a type that it does not know, and answers what it says.
#[track_caller]
pub fn refuses_what_is_routed_by_mistake(service: Service) {
    let by_mistake = |text: String| {
        text.replace(
            "User.LoggedIn:            [",
            &format!("User.LoggedIn:            [{}-service, ", service.name),
        )
    };
    let reader = Reader::start(service, by_mistake);
    let data = r#"{"user_id":1,"logged_in_at":"2026-01-05T10:00:00Z"}"#;
    reader.take(&[event(1, "User.LoggedIn", "2026-01-05T10:00:00Z", data)]);
    let error = format!(
        "{}-service does not handle User.LoggedIn: remove it from that route in routing.yaml",
        service.name
    );
    assert_eq!(reader.letters(), [("rejected".to_owned(), error)]);
    assert_eq!(reader.kept(), Kept::new());
}
