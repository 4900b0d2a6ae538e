//! The properties of `tests/fuzz`, held against inputs drawn at random: a bounded number of them,
//! so that they are part of every test run. `scripts/fuzz` searches longer and deeper.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use redis::Value as Reply;

use crate::properties;

/// Fragments of JSON that have broken somebody's reader.
const NASTY_JSON: [&str; 34] = [
    "null",
    "true",
    "0",
    "-0",
    "-0.0",
    "1e400",
    "-1e400",
    "1e-400",
    "9007199254740993",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775809",
    "0.1",
    "1.10",
    "01",
    "NaN",
    "\"\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"\\ud83d\\ude00\"",
    "\"\u{202e}x\"",
    "\"\u{1b}[2J\"",
    "\"{}\\r\\n\"",
    "\"1\"",
    "\"2026-01-01T00:00:00Z\"",
    "\"Test.Happened\"",
    "\"Order.Created\"",
    "\"0190a8c0-0000-7000-8000-000000000001\"",
    "\"{0190a8c0-0000-7000-8000-000000000001}\"",
    "[]",
    "{}",
    "{\"a\":1,\"a\":2}",
    "[[[[[[[[[[1]]]]]]]]]]",
    "{\"x\":9007199254740993.10}",
];

/// An event in which any field may be missing, twice, or hold anything.
fn events() -> impl Strategy<Value = Vec<u8>> {
    let good = [
        ("event_id", "\"0190a8c0-0000-7000-8000-000000000001\""),
        ("event_type", "\"Test.Happened\""),
        ("version", "\"1\""),
        ("timestamp", "\"2026-01-01T00:00:00Z\""),
        ("correlation_id", "\"0190a8c0-0000-7000-8000-000000000002\""),
        ("data", "{\"n\":1.10}"),
    ];
    let names = [
        "event_id",
        "event_type",
        "version",
        "timestamp",
        "correlation_id",
        "data",
        "key",
        "source",
        "causation_id",
        "traceparent",
        "expires_at",
        "deliver_at",
        "other",
        "\\u0064ata",
    ];
    let value = prop_oneof![
        4 => select(&NASTY_JSON[..]).prop_map(str::to_owned),
        1 => any::<f64>().prop_map(|number| format!("{{\"n\":{number:e}}}")),
        1 => ".{0,200}".prop_map(|text| serde_json::to_string(&text).unwrap()),
        1 => ".{0,40}",
    ];
    let changed = vec((select(names.to_vec()), value), 0..3);
    (changed, vec(any::<bool>(), 3), 0..60_usize).prop_map(move |(changed, flags, cut)| {
        let mut fields: Vec<(&str, String)> = good.map(|(k, v)| (k, v.to_owned())).to_vec();
        for (name, value) in changed {
            // Instead of the good one, or besides it.
            match fields.iter_mut().find(|(known, _)| *known == name) {
                Some(field) if flags[0] => field.1 = value,
                _ => fields.push((name, value)),
            }
        }
        let fields: Vec<_> = fields.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
        let mut text = format!("{{{}}}", fields.join(",")).into_bytes();
        if flags[1] && flags[2] {
            text.truncate(text.len().saturating_sub(cut));
        }
        text
    })
}

/// JSON of all kinds, with many keys and few, spaced and escaped in all ways, sometimes broken.
fn json_texts() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        4 => select(&NASTY_JSON[..]).prop_map(str::to_owned),
        2 => any::<f64>().prop_map(|number| number.to_string()),
        1 => any::<i64>().prop_map(|number| number.to_string()),
        1 => (any::<u64>(), -400..400_i32).prop_map(|(n, e)| format!("{n}e{e}")),
        2 => ".{0,20}".prop_map(|text| serde_json::to_string(&text).unwrap()),
        1 => "[ -~]{0,6}",
        // Few keys and many, in no order, and perhaps one of them again.
        1 => (1..40_usize, any::<prop::sample::Index>(), any::<bool>()).prop_map(|(count, at, again)| {
            let again = again.then(|| at.index(count));
            let keys = (0..count).chain(again).map(|n| n * 7 % 41);
            let fields: Vec<_> = keys.map(|n| format!("\"k{n}\":{n}")).collect();
            format!("{{{}}}", fields.join(","))
        }),
    ];
    let key = prop_oneof![
        4 => "[a-e]{1,2}".prop_map(|key| format!("\"{key}\"")),
        1 => "[a-e]".prop_map(|key| format!("\"\\u00{:02x}\"", key.as_bytes()[0])),
        1 => ".{0,4}".prop_map(|key| serde_json::to_string(&key).unwrap()),
    ];
    let text = leaf.prop_recursive(5, 80, 24, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(|items| format!("[{}]", items.join(", "))),
            vec((key.clone(), inner), 0..24).prop_map(|fields| {
                let fields: Vec<_> = fields.iter().map(|(k, v)| format!("{k} :{v}")).collect();
                format!("{{\n{}}}", fields.join(","))
            }),
        ]
    });
    let cut = any::<prop::sample::Index>();
    (text, any::<bool>(), 0..8_u8, cut, any::<u8>()).prop_map(|(text, whole, how, cut, byte)| {
        let text = if whole {
            format!("{{\"data\":{text}}}")
        } else {
            text
        };
        let mut bytes = text.into_bytes();
        let at = cut.index(bytes.len() + 1);
        match how {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, byte),
            2 if at < bytes.len() => bytes[at] = byte,
            _ => {}
        }
        bytes
    })
}

fn field_texts() -> impl Strategy<Value = Vec<u8>> {
    let known = [
        "event",
        "id",
        "type",
        "to",
        "hops",
        "redrives",
        "history",
        "stream",
        "entry",
        "subscriber",
        "reason",
        "errors",
        "attempts",
        "x:event",
        "x:",
        "EVENT",
        "",
        "{}\r\n",
        "18446744073709551615",
        "router",
        "7-1",
        "0-0",
        "+5-+1",
        "18446744073709551616-0",
    ];
    prop_oneof![
        3 => select(known.to_vec()).prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..20),
    ]
}

/// Anything that the protocol can carry; most often something like an entry.
fn replies() -> impl Strategy<Value = Reply> {
    let bulk = || field_texts().prop_map(Reply::BulkString);
    let leaf = prop_oneof![
        6 => bulk(),
        1 => any::<i64>().prop_map(Reply::Int),
        1 => Just(Reply::Nil),
        1 => Just(Reply::Okay),
        1 => any::<f64>().prop_map(Reply::Double),
        1 => ".{0,10}".prop_map(Reply::SimpleString),
    ];
    let entry = || {
        (bulk(), vec(bulk(), 0..12))
            .prop_map(|(id, fields)| Reply::Array(vec![id, Reply::Array(fields)]))
    };
    let anything = leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Reply::Array),
            vec((inner.clone(), inner), 0..4).prop_map(Reply::Map),
        ]
    });
    prop_oneof![
        entry(),
        vec(entry(), 0..4).prop_map(Reply::Array),
        (bulk(), vec(entry(), 0..3)).prop_map(|(key, entries)| {
            Reply::Array(vec![Reply::Array(vec![key, Reply::Array(entries)])])
        }),
        anything,
    ]
}

/// routing.yaml, most of its lines right.
fn routing_files() -> impl Strategy<Value = Vec<u8>> {
    let lines = [
        "version: 1",
        "streams:",
        "  order-events: { events: [\"Order.**\"] }",
        "  user-events: { events: [\"User.**\"], maxlen: 10, retention: 7d }",
        "routes:",
        "  Order.Created: [a-service, b-service]",
        "  \"*.Created\": [c-service]",
        "defaults:",
        "  backoff: { initial: 1s, max: 20s, jitter: 0.1 }",
        "  lease: 30s",
        "subscribers:",
        "  a-service: { concurrency: 2, start: beginning }",
    ];
    let nasty = [
        "",
        "version: 2",
        "version: 1",
        "\tversion: 1",
        "streams: []",
        "streams: *a",
        "routes: &a {}",
        "  <<: *a",
        "  {}: {}",
        "  \"{}\\r\\n\": [a-service]",
        "  *.Created: [x]",
        "  inbox: { events: [\"User.*\"] }",
        "  order-events: null",
        "? [a]",
        "? - b",
        "--- ",
        "...",
        "- 1",
        "!!binary x",
        "  Order.Created: [router, a-service, a-service]",
        "  lease: 99999999999999999999d",
        "  lease: .nan",
        "  jitter: .inf",
        "  maxlen: -1",
        "  maxlen: 1e400",
        "limits: { event_bytes: 1e3, depth: 1000 }",
        "dedupe_window: 0s",
        "namespace: \"a\\eb\"",
        "\u{feff}version: 1",
        "\"\\u202e\": 1",
        "\u{85}",
        "a: \"\\x1b[2J\"",
        "# comment",
        "%YAML 1.2",
        "  start: 9999-99-99T00:00:00Z",
    ];
    let edit = (
        any::<prop::sample::Index>(),
        select(nasty.to_vec()),
        0..3_u8,
    );
    let edited = vec(edit, 0..4).prop_map(move |edits| {
        let mut text: Vec<&str> = lines.to_vec();
        for (at, nasty, how) in edits {
            let at = at.index(text.len());
            match how {
                0 => text.insert(at, nasty),
                1 => text[at] = nasty,
                _ => text.swap(0, at),
            }
        }
        text.join("\n").into_bytes()
    });
    prop_oneof![
        8 => edited,
        1 => "[-:?{}\\[\\],&*!|>'\"%@`#a1 \n\t]{0,80}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..60),
    ]
}

fn values() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        select(vec![
            "null",
            "true",
            "0",
            "-1",
            "1.5",
            "1e20",
            "18446744073709551615",
            "\"\"",
            "\"a\"",
            "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!\"",
            "\"2026-01-01T00:00:00Z\"",
            "\"\\u001b[2J\""
        ])
        .prop_map(str::to_owned),
        ".{0,12}".prop_map(|text| serde_json::to_string(&text).unwrap()),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(|items| format!("[{}]", items.join(","))),
            vec(
                (select(vec!["a", "b", "data", "~/", "\\u001b"]), inner),
                0..4
            )
            .prop_map(|fields| {
                let fields: Vec<_> = fields.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
                format!("{{{}}}", fields.join(","))
            }),
        ]
    })
}

fn schemas() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        3 => select(vec![
            r##"{}"##, r##"true"##, r##"false"##, r##"{"type":"integer"}"##, r##"{"type":["string","null"]}"##,
            r##"{"$ref":"#"}"##, r##"{"$ref":"#/definitions/a"}"##, r##"{"$ref":"#/definitions/none"}"##,
            r##"{"$ref":"http://127.0.0.1:1/"}"##, r##"{"pattern":"^(a+)+$"}"##, r##"{"pattern":"("}"##,
            r##"{"format":"date-time"}"##, r##"{"format":"regex"}"##, r##"{"format":"uuid"}"##,
            r##"{"multipleOf":0.01}"##, r##"{"multipleOf":0}"##, r##"{"minLength":-1}"##, r##"{"maximum":1e400}"##,
            r##"{"uniqueItems":true}"##, r##"{"const":{"a":1}}"##, r##"{"enum":[]}"##, r##"{"$id":"x","minimum":1}"##,
            r##"{"required":["\u001b"]}"##, r##"{"dependencies":{"a":["b"]}}"##, r##"{"maxProperties":1}"##,
        ]).prop_map(str::to_owned),
        1 => values(),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        let keyword = select(vec![
            "items",
            "additionalProperties",
            "not",
            "contains",
            "propertyNames",
            "if",
            "then",
            "additionalItems",
        ]);
        let list = select(vec!["allOf", "anyOf", "oneOf", "items"]);
        let map = select(vec![
            "properties",
            "definitions",
            "patternProperties",
            "dependencies",
        ]);
        prop_oneof![
            (keyword, inner.clone()).prop_map(|(k, s)| format!("{{\"{k}\":{s}}}")),
            (list, vec(inner.clone(), 1..3))
                .prop_map(|(k, s)| format!("{{\"{k}\":[{}]}}", s.join(","))),
            (
                map,
                select(vec!["a", "data", "^a", "\\u001b"]),
                inner.clone(),
                inner
            )
                .prop_map(|(k, name, s, rest)| {
                    format!("{{\"{k}\":{{\"{name}\":{s}}},\"allOf\":[{rest}]}}")
                }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn any_event_is_admitted_whole_or_refused_once(event in events()) {
        properties::envelope::check(&event);
    }

    #[test]
    fn any_bytes_are_no_event_and_no_panic(bytes in vec(any::<u8>(), 0..300)) {
        properties::envelope::check(&bytes);
    }

    #[test]
    fn an_event_is_parsed_as_serde_json_would(event in events()) {
        properties::json::check(&event);
    }

    #[test]
    fn any_json_is_parsed_as_serde_json_would(text in json_texts()) {
        properties::json::check(&text);
    }

    #[test]
    fn any_reply_is_read_without_losing_a_byte(reply in replies()) {
        properties::entry::check(&reply);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_routing_file_loads_or_says_what_is_wrong(file in routing_files()) {
        properties::routing_yaml::check(&file);
    }

    #[test]
    fn any_schema_loads_and_judges_or_says_what_is_wrong(schema in schemas(), value in values()) {
        properties::schema::check(schema.as_bytes(), value.as_bytes());
    }
}
