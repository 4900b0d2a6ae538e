//! The pure steps that one event goes through, each on its own, over the shop's own routing.yaml
//! and schemas. What an event costs in Redis is not here.

use std::hint::black_box;
use std::path::Path;

use redis::{RedisResult, Script, Value as Reply};
use streamfleet::event::{Envelope, Event, content_hash};
use streamfleet::routing::Config;
use streamfleet::store::{Entry, EntryId, Fields, Routed, StreamField, read_streams};
use streamfleet::{admission, json, publisher, router};

/// Entries in one reply and in one command, as under load.
const BATCH: usize = 64;

/// One step of an event's life.
pub struct Stage {
    /// `admit/600`: the number is the size of the event, where it is not the usual one.
    pub name: String,
    /// Events in one call of it.
    pub events: u32,
    prepare: Box<dyn Fn(u64) -> Box<dyn FnOnce()>>,
}

impl Stage {
    /// So many calls, with their inputs at hand: calling it does nothing but the step, and drops
    /// what comes out.
    pub fn work(&self, calls: u64) -> Box<dyn FnOnce()> {
        (self.prepare)(calls)
    }
}

/// A step that takes its input by value.
fn stage<I: Clone + 'static, O: 'static>(
    name: impl Into<String>,
    events: usize,
    input: I,
    step: impl Fn(I) -> O + Copy + 'static,
) -> Stage {
    let prepare = move |calls: u64| {
        let inputs: Vec<I> = (0..calls).map(|_| input.clone()).collect();
        let work = move || {
            for input in inputs {
                drop(black_box(step(black_box(input))));
            }
        };
        Box::new(work) as Box<dyn FnOnce()>
    };
    Stage {
        name: name.into(),
        events: events as u32,
        prepare: Box::new(prepare),
    }
}

/// Lives as long as the process: what the steps only look at.
fn keep<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn shop() -> Config {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("routing.yaml");
    Config::load(&file).expect("the shop's configuration is right")
}

fn event(event_type: &str, data: &str) -> Vec<u8> {
    format!(
        r#"{{"event_id":"0190a8c0-0000-7000-8000-000000000001","event_type":"{event_type}","version":"1","timestamp":"2010-12-01T08:26:00Z","correlation_id":"0190a8c0-0000-7000-8000-000000000002","data":{data}}}"#
    )
    .into_bytes()
}

/// An order with so many lines, as an importer of invoices writes it.
fn order(lines: usize) -> Vec<u8> {
    let line = |n| {
        format!(
            r#"{{"product_id":{},"sku_id":{},"sku_code":"85123A","product_name":"WHITE HANGING HEART T-LIGHT HOLDER","sku_name":"WHITE HANGING HEART T-LIGHT HOLDER","quantity":6,"unit_price":2.55,"subtotal":15.3}}"#,
            85_123 + n,
            851_231 + n
        )
    };
    let lines: Vec<_> = (0..lines).map(line).collect();
    let data = format!(
        r#"{{"order_id":536365,"order_number":"536365","user_id":17850,"total_amount":139.12,"status":"pending","items":[{}],"shipping_address":{{"recipient":"17850","phone":"-","address":"-","city":"-","province":"-","country":"United Kingdom"}},"created_at":"2010-12-01T08:26:00Z"}}"#,
        lines.join(",")
    );
    event("Order.Created", &data)
}

fn bulk(text: impl AsRef<[u8]>) -> Reply {
    Reply::BulkString(text.as_ref().to_vec())
}

/// What a read answers, as the connection hands it on.
fn reply(stream: &str, entry: &[(&str, &[u8])]) -> Reply {
    let fields: Vec<_> = entry
        .iter()
        .flat_map(|(name, value)| [bulk(name), bulk(value)])
        .collect();
    let entry = |n| {
        Reply::Array(vec![
            bulk(format!("1700000000000-{n}")),
            Reply::Array(fields.clone()),
        ])
    };
    let entries = (0..BATCH).map(entry).collect();
    Reply::Map(vec![(bulk(stream), Reply::Array(entries))])
}

fn decode(reply: Reply) -> Vec<(String, Vec<Entry>)> {
    read_streams(reply).expect("entries")
}

/// The command of one batch: as many and as large arguments as the router sends for `route.lua`.
fn encode(script: &Script, batch: &[Routed]) -> usize {
    let mut call = script.key("inbox");
    call.key("dead:router").key("stats:router");
    for (n, routed) in batch.iter().enumerate() {
        let Routed::Append {
            event_id,
            content,
            target,
            event_type,
            to,
            hops,
            event,
        } = routed
        else {
            continue;
        };
        let id = EntryId {
            ms: 1_700_000_000_000,
            seq: n as u64,
        };
        call.arg(id.to_string()).arg(1).arg("route").arg(event_id);
        call.arg(content).arg(*target).arg(event_type);
        call.arg(&**to).arg(*hops).arg(event.as_slice());
    }
    call.invoke(&mut Sink).expect("a sink answers")
}

/// Takes a command as the bytes that go over the wire, and answers how many.
struct Sink;

impl redis::ConnectionLike for Sink {
    fn req_packed_command(&mut self, command: &[u8]) -> RedisResult<Reply> {
        Ok(Reply::Int(black_box(command).len() as i64))
    }
    fn req_packed_commands(&mut self, _: &[u8], _: usize, _: usize) -> RedisResult<Vec<Reply>> {
        Ok(Vec::new())
    }
    fn get_db(&self) -> i64 {
        0
    }
    fn check_connection(&mut self) -> bool {
        true
    }
    fn is_open(&self) -> bool {
        true
    }
}

/// Every step, in the order of an event's life.
pub fn stages() -> Vec<Stage> {
    let config = keep(shop());
    let depth = config.routing.limits().depth;
    let usual: &'static [u8] = keep(order(1));
    let value = keep(json::parse(usual, depth).expect("an event"));
    let envelope = keep(Envelope::read(value).expect("an envelope"));
    let fields = Fields(vec![(
        StreamField::EVENT.as_bytes().to_vec(),
        usual.to_vec(),
    )]);
    let routed = {
        let verdict = router::examine(&fields, config);
        router::decide(EntryId::default(), fields.clone(), verdict, &mut Vec::new())
    };
    let script = keep(Script::new("return 1"));
    let parent = keep(Event::from_json(usual).expect("an event"));
    let stamped: [(&str, &[u8]); 4] = [
        ("id", b"0190a8c0-0000-7000-8000-000000000001"),
        ("type", b"Order.Created"),
        (
            "to",
            b"inventory-service,notification-service,analytics-service",
        ),
        ("event", usual),
    ];

    let mut stages = vec![
        stage(
            "decode inbox reply",
            BATCH,
            reply("inbox", &[("event", usual)]),
            decode,
        ),
        stage("parse", 1, (), move |()| json::parse(usual, depth)),
        stage("envelope", 1, (), move |()| Envelope::read(value)),
        stage("validate", 1, (), move |()| {
            config
                .schemas
                .validate(envelope.event_type.as_str(), envelope.version, value)
        }),
        stage("content hash", 1, (), move |()| {
            content_hash(envelope, value)
        }),
        stage("route", 1, (), move |()| {
            config.routing.route(envelope.event_type.as_str())
        }),
    ];
    let small = event(
        "Order.Confirmed",
        r#"{"order_id":1,"user_id":1,"confirmed_at":"2010-12-01T08:26:00Z"}"#,
    );
    for sized in [small, order(1), order(18), order(320)] {
        let sized: &'static [u8] = keep(sized);
        let name = format!("admit/{}", sized.len());
        stages.push(stage(name, 1, (), move |()| {
            admission::admit(sized, 0, config)
        }));
    }
    stages.extend([
        stage("examine and decide", 1, fields, move |fields| {
            let verdict = router::examine(&fields, config);
            let targets = &mut Vec::with_capacity(1);
            router::decide(EntryId::default(), fields, verdict, targets)
        }),
        stage("encode for the script", BATCH, (), {
            let batch = keep(vec![routed; BATCH]);
            move |()| encode(script, batch)
        }),
        stage(
            "decode domain reply",
            BATCH,
            reply("order-events", &stamped),
            decode,
        ),
        stage("worker reads event", 1, (), move |()| {
            Event::from_json(usual)
        }),
        stage("event to JSON", 1, (), move |()| serde_json::to_vec(parent)),
        stage("publisher encodes", BATCH, (), {
            let events = keep(vec![usual.to_vec(); BATCH]);
            move |()| publisher::appends("inbox", events).get_packed_pipeline()
        }),
    ]);
    stages
}
