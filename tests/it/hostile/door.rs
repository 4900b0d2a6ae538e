//! Bad events and odd entries, each among good events: exactly one dead letter that says why and
//! where and keeps the bytes, its neighbours handled once, the processes alive.

use redis::streams::{StreamId, StreamRangeReply};
use serde_json::{Value, json};

use crate::support::fleet::{Process, id};
use crate::support::{Fleet, event, eventually};

/// What no process may come near while it handles a few megabytes.
const MAX_MEMORY_KB: u64 = 512 * 1024;

/// One bad event: why it must be refused, where the letter must say that it is bad, and its bytes.
struct Row {
    reason: &'static str,
    says: &'static str,
    bytes: Vec<u8>,
}

fn row(reason: &'static str, says: &'static str, bytes: impl Into<Vec<u8>>) -> Row {
    Row {
        reason,
        says,
        bytes: bytes.into(),
    }
}

/// A good event whose `field` is replaced by this JSON text.
fn with(field: &str, json: &str) -> String {
    let mut event = event(json!({}));
    event[field] = json!("(here)");
    event.to_string().replace("\"(here)\"", json)
}

fn rows() -> Vec<Row> {
    let long = "k".repeat(400_000);
    let good = event(json!({"text": "x".repeat(100)})).to_string();
    let many = vec!["0"; 300_000].join(",");
    let mut utf16 = vec![0xff, 0xfe];
    utf16.extend(good.encode_utf16().flat_map(u16::to_le_bytes));
    let broken_text = with("data", r#"{"text":"@"}"#)
        .bytes()
        .map(|byte| if byte == b'@' { 0xc0 } else { byte })
        .collect::<Vec<_>>();
    vec![
        row(
            "too_large",
            "limits.event_bytes",
            with("data", &format!("{{\"x\":\"{}\"}}", "x".repeat(1 << 20))),
        ),
        row(
            "too_deep",
            "line 1 column",
            with(
                "data",
                &format!("{}1{}", "{\"a\":".repeat(64), "}".repeat(64)),
            ),
        ),
        row("too_deep", "line 1 column", "[".repeat(500_000)),
        row("invalid_utf8", "byte ", broken_text),
        row("invalid_utf8", "byte 0", utf16),
        row("invalid_json", "line 1 column 1", format!("\u{feff}{good}")),
        row(
            "invalid_json",
            "line 1 column",
            &good.as_bytes()[..good.len() / 2],
        ),
        row("invalid_json", "line 1 column", format!("{good}{good}")),
        row("invalid_json", "line 1 column 0", ""),
        row("invalid_json", "line 1 column 1", "\0"),
        row(
            "invalid_json",
            "line 1 column",
            with("data", "{\"x\":1e400}"),
        ),
        row(
            "invalid_json",
            "line 1 column",
            with("data", "{\"x\":-1e400}"),
        ),
        row("invalid_json", "line 1 column", with("data", "{\"x\":NaN}")),
        row(
            "invalid_json",
            "line 1 column",
            with("data", "{\"x\":\"\\ud800\"}"),
        ),
        row(
            "invalid_json",
            "line 1 column",
            with("data", "{\"x\":\"a\0b\"}"),
        ),
        row(
            "invalid_json",
            "line 1 column",
            with("data", "{\"x\":\"a\r\nb\"}"),
        ),
        row(
            "duplicate_key",
            "\"event_id\"",
            format!("{{\"event_id\":1,{}", &good[1..]),
        ),
        row(
            "duplicate_key",
            "\"a\"",
            with("data", r#"{"x":{"a":1,"\u0061":2}}"#),
        ),
        row(
            "duplicate_key",
            "…",
            format!("{{\"{long}\":1,\"{long}\":2}}"),
        ),
        row("bad_envelope", "/event_id", with("event_id", r#""\u0000""#)),
        row("bad_envelope", "/event_id", with("event_id", r#""{}\r\n""#)),
        row(
            "bad_envelope",
            "/event_id",
            with("event_id", r#""\u001b[2J""#),
        ),
        row(
            "bad_envelope",
            "/event_type",
            with("event_type", r#""Test.Happened\u0000""#),
        ),
        row(
            "bad_envelope",
            "/event_type",
            with("event_type", r#""Test.Happened\r\n""#),
        ),
        row(
            "bad_envelope",
            "/event_type",
            with("event_type", r#""{Test}.Happened""#),
        ),
        row(
            "bad_envelope",
            "/event_type",
            with("event_type", "\"Test.\u{202e}Happened\""),
        ),
        row(
            "bad_envelope",
            "/event_type",
            with("event_type", &format!("\"Test.{long}\"")),
        ),
        row(
            "bad_envelope",
            "/correlation_id",
            with("correlation_id", r#""\u001b]0;x\u0007""#),
        ),
        row(
            "bad_envelope",
            "/timestamp",
            with("timestamp", &format!("\"2026-01-01T00:00:00Z{long}\"")),
        ),
        row("bad_envelope", "/version", with("version", r#""１""#)),
        row("bad_envelope", "/data", with("data", "null")),
        row(
            "schema_violation",
            "/data/amount",
            with("data", r#"{"amount":-1}"#),
        ),
        row(
            "schema_violation",
            "/data/amount",
            with("data", r#"{"amount":"\u001b[31m"}"#),
        ),
        row(
            "schema_violation",
            "too many values",
            with("data", &format!("{{\"amount\":[{many}]}}")),
        ),
    ]
}

fn text(entry: &StreamId, field: &str) -> String {
    redis::from_redis_value(entry.map[field].clone()).unwrap()
}

fn letters(fleet: &Fleet) -> Vec<StreamId> {
    let reply: redis::RedisResult<StreamRangeReply> = redis::cmd("XRANGE")
        .arg("dead:router")
        .arg("-")
        .arg("+")
        .query(&mut fleet.connection());
    reply.unwrap().ids
}

fn is_well(process: &mut Process) {
    assert_eq!(process.child.try_wait().unwrap(), None, "it still runs");
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.child.id())).unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|size| size.trim().trim_end_matches(" kB").parse::<u64>().ok())
        .unwrap();
    assert!(peak < MAX_MEMORY_KB, "{peak} kB");
    // The log is on its way to a terminal, or to something that shows it on one.
    let log = process.log_text();
    let harmful = log.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(harmful, None);
}

/// Name and value.
type Field<'a> = (&'a [u8], &'a [u8]);

fn add(fleet: &Fleet, fields: &[Field]) {
    let mut command = redis::cmd("XADD");
    command.arg("inbox").arg("*");
    for (name, value) in fields {
        command.arg(name).arg(value);
    }
    command.exec(&mut fleet.connection()).unwrap();
}

#[test]
fn a_bad_event_is_refused_once_and_its_neighbours_are_handled() {
    let fleet = Fleet::new();
    let rows = rows();
    for row in &rows {
        fleet.publish(&[event(json!({}))]);
        add(&fleet, &[(b"event", &row.bytes)]);
    }
    fleet.publish(&[event(json!({}))]);
    let mut router = fleet.router("r");
    let mut worker = fleet.worker("probe-service", "w");
    fleet.handles_each_once("probe-service", rows.len() + 1);
    let letters = letters(&fleet);
    assert_eq!(letters.len(), rows.len());
    for (row, letter) in rows.iter().zip(&letters) {
        let (reason, error, errors) = (
            text(letter, "reason"),
            text(letter, "error"),
            text(letter, "errors"),
        );
        let shown = String::from_utf8_lossy(&row.bytes[..row.bytes.len().min(200)]);
        assert_eq!(reason, row.reason, "{shown}: {error}");
        assert!(error.contains(row.says), "{shown}: {error:.300}");
        if row.says.starts_with('/') {
            let errors: Value = serde_json::from_str(&errors).unwrap();
            assert_eq!(errors[0]["pointer"], row.says, "{shown}");
        }
        assert!(error.len() + errors.len() < 4_000, "{shown}: {error:.300}");
        let kept: Vec<u8> = redis::from_redis_value(letter.map["event"].clone()).unwrap();
        assert_eq!(kept, row.bytes, "as received");
    }
    assert!(fleet.dead("probe-service").is_empty());
    is_well(&mut router);
    is_well(&mut worker);
}

#[test]
fn an_odd_entry_is_refused_once_and_its_neighbours_are_handled() {
    let fleet = Fleet::new();
    let good = || event(json!({})).to_string();
    let crowd: Vec<_> = (0..100_000).map(|n| format!("f{n}")).collect();
    let crowd: Vec<Field> = crowd
        .iter()
        .map(|name| (name.as_bytes(), &b"v"[..]))
        .collect();
    let refused: [(&str, Vec<Field>); 7] = [
        ("no field `event`", vec![(b"evnt", b"{}")]),
        (
            "no field `event`",
            vec![(b"Event", b"{}"), (b"EVENT", b"{}")],
        ),
        (
            "no field `event`",
            vec![(b"event ", b"{}"), (b"\0event", b"{}"), (b"", b"")],
        ),
        ("no field `event`", crowd.clone()),
        (
            "more than one field `event`",
            vec![(b"event", b"{\"n\":1}"), (b"event", b"{\"n\":2}")],
        ),
        ("line 1 column 0", vec![(b"event", b"")]),
        ("at most 32", vec![(b"event", b"(good)"), (b"hops", b"33")]),
    ];
    for (_, fields) in &refused {
        fleet.publish(&[event(json!({}))]);
        let good = good();
        let fields: Vec<Field> = fields
            .iter()
            .map(|(name, value)| match *value {
                b"(good)" => (*name, good.as_bytes()),
                other => (*name, other),
            })
            .collect();
        add(&fleet, &fields);
    }
    // What is odd besides a good event is not ours to judge.
    let good = [good(), good(), good()];
    let mut crowded: Vec<Field> = vec![(b"event", good[0].as_bytes())];
    crowded.extend(crowd);
    add(&fleet, &crowded);
    add(
        &fleet,
        &[(b"\x1b[2J\xff", b"\0"), (b"event", good[1].as_bytes())],
    );
    add(
        &fleet,
        &[
            (b"hops", b"many"),
            (b"event", good[2].as_bytes()),
            (b"redrives", b"-1"),
        ],
    );

    let mut router = fleet.router("r");
    let mut worker = fleet.worker("probe-service", "w");
    fleet.handles_each_once("probe-service", refused.len() + good.len());
    let letters = letters(&fleet);
    assert_eq!(letters.len(), refused.len());
    for ((says, fields), letter) in refused.iter().zip(&letters) {
        let error = text(letter, "error");
        assert!(error.contains(says), "{error}");
        assert!(letter.map.len() < 1_100, "what is kept is bounded");
        for (name, value) in fields
            .iter()
            .filter(|(name, _)| !matches!(*name, b"event" | b"hops"))
            .take(1_000)
        {
            let kept = letter
                .map
                .iter()
                .find(|(known, _)| known.as_bytes() == [b"x:", *name].concat());
            assert_eq!(kept.unwrap().1, &redis::Value::BulkString(value.to_vec()));
        }
    }
    // Of two events, both are there.
    let both = &letters[4].map;
    assert_eq!(
        both["event"],
        redis::Value::BulkString(b"{\"n\":1}".to_vec())
    );
    assert_eq!(
        both["x:event"],
        redis::Value::BulkString(b"{\"n\":2}".to_vec())
    );
    is_well(&mut router);
    is_well(&mut worker);
}

/// A producer that claims to be a redrive can spoil neither the letter nor its redrive.
#[test]
fn counters_of_ours_that_a_producer_wrote_stop_no_redrive() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    add(
        &fleet,
        &[
            (b"event", b"{"),
            (b"redrives", b"18446744073709551615"),
            (b"hops", b"18446744073709551615"),
        ],
    );
    eventually("it is refused", || fleet.dead("router").pop());
    fleet.ask(&["dead", "redrive", "--all"]).ok();
    let letter = eventually("it is refused again", || fleet.dead("router").pop());
    assert_eq!(letter["redrives"], "18446744073709551615");
}

/// Nothing on the way from the producer to the handler goes through a float.
#[test]
fn numbers_stay_exact_from_the_producer_to_the_handler() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let _worker = fleet.worker("probe-service", "w");
    let data = r#"{"do":"exact","ms":0,"amount":79228162514264337.593543950335,"n":18446744073709551615,"more":[9007199254740993,-9223372036854775808,123456789012345678901234567890,0.1,1.10,-0.0,1E+2]}"#;
    let sent = with("data", data);
    add(&fleet, &[(b"event", sent.as_bytes())]);
    let key: Value = serde_json::from_str(&sent).unwrap();
    let (text, amount, n): (String, String, String) = eventually("it is handled", || {
        redis::cmd("HMGET")
            .arg("probe-service:exact")
            .arg(&["text", "amount", "n"])
            .query::<(Option<String>, Option<String>, Option<String>)>(&mut fleet.connection())
            .map(|(a, b, c)| Some((a?, b?, c?)))
            .unwrap()
    });
    assert_eq!(text, data);
    assert_eq!(amount, "79228162514264337.593543950335");
    assert_eq!(n, "18446744073709551615");
    let routed: StreamRangeReply = redis::cmd("XRANGE")
        .arg(&["test-events", "-", "+"])
        .query(&mut fleet.connection())
        .unwrap();
    assert_eq!(self::text(&routed.ids[0], "event"), sent, "as sent");
    assert_eq!(self::text(&routed.ids[0], "id"), id(&key));
}
