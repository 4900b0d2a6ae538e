//! What is sent through the fleet: orders of one size, the schemas that they must fit, and a
//! routing.yaml that names the subscribers. Every event of a type has the same length, so that
//! making one is a copy with a few bytes replaced, and costs next to nothing.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use uuid::Uuid;

use super::super::CommandError;
use crate::admission::admit;
use crate::routing::Config;

/// Everything that a run touches in Redis is under this namespace.
pub(super) const NAMESPACE: &str = "streamfleet-bench";
/// The domain stream of the orders.
pub(super) const STREAM: &str = "orders";
/// The domain stream of what handlers publish.
pub(super) const FOLLOW_UPS: &str = "shipments";
/// The type of what handlers publish.
pub(super) const FOLLOW_UP_TYPE: &str = "Shipment.Requested";
/// `source` of the events that count, and of those that only warm up.
const COUNTED: &str = "bench";
const WARM_UP: &str = "start";

const ID: &str = "00000000-0000-4000-8000-000000000000";
const FLOW: &str = "11111111-1111-4111-8111-111111111111";
const TIME: &str = "2026-01-05T10:00:00.000000000Z";
const ORDER: &str = "O-000000000000";
const CUSTOMER: &str = "C-000000";
/// Where the ID stands in every event.
pub(super) const ID_AT: std::ops::Range<usize> = 13..49;
/// The highest number of event types.
pub(super) const MAX_TYPES: u64 = 1_000;
/// So many subscribers are named one by one; routing.yaml can hold only so much.
const MOST_NAMES: u64 = 10_000;
/// How long a delivery goes without a sign of life before it is claimed.
pub(super) const LEASE_MS: u64 = 30_000;
/// The largest event that routing.yaml can allow.
pub(super) const MAX_BYTES: u64 = 64 * 1024 * 1024;
const DEFAULT_LIMIT: u64 = 1024 * 1024;

/// The name of a type by its number.
fn type_name(n: u64) -> String {
    format!("Order.Placed{}", n + 1)
}

/// The lines of an order, as many as there is room for.
const LINES: [&str; 3] = [
    r#"{"sku":"SKU-000017","quantity":2,"unit_price":19.90}"#,
    r#"{"sku":"SKU-000423","quantity":1,"unit_price":149.00}"#,
    r#"{"sku":"SKU-001999","quantity":6,"unit_price":3.25}"#,
];

fn order(event_type: &str, lines: &[&str], note: usize) -> String {
    let (lines, note) = (lines.join(","), "n".repeat(note));
    format!(
        r#"{{"event_id":"{ID}","event_type":"{event_type}","version":"1","timestamp":"{TIME}","correlation_id":"{FLOW}","source":"{COUNTED}","data":{{"order_id":"{ORDER}","customer":{{"customer_id":"{CUSTOMER}","name":"Ada Lovelace","country":"GB"}},"currency":"EUR","lines":[{lines}],"total":208.30,"placed_at":"2026-01-05T10:00:00Z","note":"{note}"}}}}"#
    )
}

/// An event with the places at which one differs from the next.
struct Template {
    text: Vec<u8>,
    time: usize,
    flow: usize,
    source: usize,
    order: usize,
    customer: usize,
}

impl Template {
    fn new(event_type: &str, bytes: usize) -> Self {
        let fits = |lines: &&[&str]| order(event_type, lines, 0).len() <= bytes;
        let mut most = (2..=LINES.len()).rev().filter_map(|n| LINES.get(..n));
        let lines = most.find(fits).unwrap_or(&LINES[..1]);
        let rest = bytes.saturating_sub(order(event_type, lines, 0).len());
        let text = order(event_type, lines, rest);
        let at = |what: &str| text.find(what).unwrap_or(0);
        Self {
            time: at(TIME),
            flow: at(FLOW),
            source: at(&format!("\"{COUNTED}\"")) + 1,
            order: at(ORDER) + 2,
            customer: at(CUSTOMER) + 2,
            text: text.into_bytes(),
        }
    }
}

/// Makes events.
pub(super) struct Workload {
    templates: Vec<Template>,
}

impl Workload {
    /// Events of `types` types in turn, of so many bytes each.
    pub(super) fn new(types: u64, bytes: u64) -> Self {
        let template = |n| Template::new(&type_name(n), bytes as usize);
        Self {
            templates: (0..types).map(template).collect(),
        }
    }

    /// The shortest event that can be asked for.
    pub(super) fn least_bytes(types: u64) -> u64 {
        order(&type_name(types.saturating_sub(1)), &LINES[..1], 0).len() as u64
    }

    /// The `n`-th event, at a time as [`stamp`] writes it.
    pub(super) fn event(&self, n: u64, time: &str, counted: bool) -> Vec<u8> {
        let template = &self.templates[(n % self.templates.len() as u64) as usize];
        let mut text = template.text.clone();
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(place) = text.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        let mut id = [0; 36];
        put(
            ID_AT.start,
            uuid(0, n).as_hyphenated().encode_lower(&mut id).as_bytes(),
        );
        put(template.time, time.as_bytes());
        put(
            template.flow,
            uuid(1, n).as_hyphenated().encode_lower(&mut id).as_bytes(),
        );
        put(
            template.source,
            if counted { COUNTED } else { WARM_UP }.as_bytes(),
        );
        put(template.order, &digits::<12>(n));
        put(template.customer, &digits::<6>(n % 1_000_000));
        text
    }

    /// The type of the `n`-th event.
    pub(super) fn event_type(&self, n: u64) -> String {
        type_name(n % self.templates.len() as u64)
    }
}

/// A UUID of version 4 that carries a number.
fn uuid(kind: u64, n: u64) -> Uuid {
    Uuid::from_u64_pair(0x5f1e_e7be_0000_4000 + kind, 1 << 63 | n)
}

/// The number that an event's ID carries.
pub(super) fn number(id: Uuid) -> u64 {
    id.as_u64_pair().1 & !(1 << 63)
}

fn digits<const N: usize>(mut n: u64) -> [u8; N] {
    let mut text = [b'0'; N];
    for place in text.iter_mut().rev() {
        *place = b'0' + (n % 10) as u8;
        n /= 10;
    }
    text
}

/// A time of an event, always as long.
pub(super) fn stamp(time: Timestamp) -> String {
    format!("{time:.9}")
}

/// When an event was meant to be sent, if it counts. Bare: finds what it needs in the bytes.
pub(super) fn sent_at(event: &[u8]) -> Option<Timestamp> {
    let head = std::str::from_utf8(event.get(..400.min(event.len()))?).ok()?;
    let time = head.split_once("\"timestamp\":\"")?.1.get(..TIME.len())?;
    head.contains("\"source\":\"bench\"")
        .then(|| time.parse().ok())?
}

/// Whether an event counts.
pub(super) fn is_counted(source: Option<&str>) -> bool {
    source == Some(COUNTED)
}

/// The subscribers by number.
pub(super) fn subscribers(count: u64) -> Vec<String> {
    (1..=count).map(|n| format!("bench{n}-service")).collect()
}

/// What routing.yaml and the schemas are made from.
pub(super) struct Shape {
    pub(super) types: u64,
    pub(super) event_bytes: u64,
    pub(super) subscribers: u64,
    pub(super) concurrency: u64,
    pub(super) maxlen: Option<u64>,
}

impl Shape {
    /// Writes routing.yaml and its schemas into a folder, and reads them as a router would.
    pub(super) fn write(&self, folder: &Path) -> Result<(PathBuf, Config), CommandError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |cause| CommandError::File { path, cause }
        };
        let schemas = folder.join("schemas");
        fs::create_dir_all(&schemas).map_err(failed(&schemas))?;
        let write = |path: &Path, text: String| fs::write(path, text).map_err(failed(path));
        for n in 0..self.types {
            let name = type_name(n);
            write(
                &schemas.join(format!("{name}.v1.json")),
                schema(&name, ORDER_DATA),
            )?;
        }
        let name = FOLLOW_UP_TYPE;
        write(
            &schemas.join(format!("{name}.v1.json")),
            schema(name, SHIPMENT_DATA),
        )?;
        let path = folder.join("routing.yaml");
        write(&path, self.routing())?;
        let config = Config::load(&path)?;
        Ok((path, config))
    }

    fn routing(&self) -> String {
        let mut yaml = format!(
            "version: 1\nnamespace: {NAMESPACE}\nschemas: schemas\nlimits: {{ event_bytes: {} }}\n",
            self.event_bytes.max(DEFAULT_LIMIT)
        );
        let maxlen = self.maxlen.map(|n| format!(", maxlen: {n}"));
        let maxlen = maxlen.unwrap_or_default();
        let _ = write!(
            yaml,
            "streams:\n  {STREAM}: {{ events: [\"Order.**\"]{maxlen} }}\n  {FOLLOW_UPS}: {{ events: [\"Shipment.**\"] }}\nroutes:\n"
        );
        let to = subscribers(self.subscribers).join(", ");
        if self.types * self.subscribers <= MOST_NAMES {
            for n in 0..self.types {
                let _ = writeln!(yaml, "  {}: [{to}]", type_name(n));
            }
        } else {
            let _ = writeln!(yaml, "  \"Order.**\": [{to}]");
        }
        let _ = write!(
            yaml,
            "defaults:\n  start: beginning\n  concurrency: {}\n  lease: {LEASE_MS}ms\n  backoff: {{ initial: 10ms, multiplier: 1, max: 10ms, jitter: 0 }}\n",
            self.concurrency
        );
        yaml
    }
}

/// Whom the router names in each entry.
pub(super) fn recipients(workload: &Workload, config: &Config) -> Result<String, CommandError> {
    let event = workload.event(0, TIME, true);
    match admit(&event, 0, config) {
        Ok(admitted) => Ok(admitted.to.to_string()),
        Err(rejection) => Err(CommandError::Refused(format!(
            "the events of the benchmark are refused: {}",
            rejection.error
        ))),
    }
}

fn schema(event_type: &str, data: &str) -> String {
    format!(
        r#"{{
  "$schema": "http://json-schema.org/draft-07/schema#",
  "title": "{event_type}.v1",
  "type": "object",
  "required": ["event_id", "event_type", "version", "timestamp", "correlation_id", "data"],
  "properties": {{
    "event_id": {{ "type": "string", "format": "uuid" }},
    "event_type": {{ "const": "{event_type}" }},
    "version": {{ "const": "1" }},
    "timestamp": {{ "type": "string", "format": "date-time" }},
    "correlation_id": {{ "type": "string", "format": "uuid" }},
    "causation_id": {{ "type": "string", "format": "uuid" }},
    "source": {{ "type": "string" }},
    "data": {data}
  }}
}}"#
    )
}

const ORDER_DATA: &str = r#"{
      "type": "object",
      "required": ["order_id", "customer", "currency", "lines", "total", "placed_at"],
      "properties": {
        "order_id": { "type": "string", "minLength": 1, "maxLength": 40 },
        "customer": {
          "type": "object",
          "required": ["customer_id", "name", "country"],
          "properties": {
            "customer_id": { "type": "string" },
            "name": { "type": "string", "maxLength": 200 },
            "country": { "type": "string", "minLength": 2, "maxLength": 2 }
          }
        },
        "currency": { "enum": ["EUR", "GBP", "USD"] },
        "lines": {
          "type": "array",
          "minItems": 1,
          "items": {
            "type": "object",
            "required": ["sku", "quantity", "unit_price"],
            "properties": {
              "sku": { "type": "string" },
              "quantity": { "type": "integer", "minimum": 1 },
              "unit_price": { "type": "number", "minimum": 0 }
            }
          }
        },
        "total": { "type": "number", "minimum": 0 },
        "placed_at": { "type": "string", "format": "date-time" },
        "note": { "type": "string" }
      }
    }"#;

const SHIPMENT_DATA: &str = r#"{
      "type": "object",
      "required": ["order"],
      "properties": { "order": { "type": "string", "format": "uuid" } }
    }"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_their_size_pass_the_door_and_differ() {
        let folder = tempfile::tempdir().unwrap();
        for (types, event_bytes) in [(1, 600), (12, Workload::least_bytes(12)), (3, 5_000)] {
            let shape = Shape {
                types,
                event_bytes,
                subscribers: 2,
                concurrency: 4,
                maxlen: Some(1),
            };
            let (_, config) = shape.write(folder.path()).unwrap();
            let workload = Workload::new(types, event_bytes);
            assert_eq!(
                recipients(&workload, &config).unwrap(),
                "bench1-service,bench2-service"
            );
            let now = Timestamp::now();
            for n in [0, 1, 11, 999_999_999] {
                let event = workload.event(n, &stamp(now), n != 1);
                assert!(
                    event.len() as u64 >= event_bytes.min(600) - 1,
                    "{}",
                    event.len()
                );
                let admitted = admit(&event, 0, &config).unwrap();
                assert_eq!(
                    admitted.envelope.event_type.as_str(),
                    workload.event_type(n)
                );
                assert_eq!(number(admitted.envelope.event_id), n);
                let id = admitted.envelope.event_id.to_string();
                assert_eq!(&event[ID_AT], id.as_bytes());
                assert_eq!(sent_at(&event), (n != 1).then_some(now));
            }
            let first = workload.event(0, &stamp(now), true);
            assert_eq!(first.len() as u64, event_bytes);
            assert_ne!(first, workload.event(types, &stamp(now), true));
        }
    }
}
