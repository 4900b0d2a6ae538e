//! The users of `scripts/redis/users.acl`: what each must be able to do, and what it must not.
//! (The whole shop under them: `whole_shop`.)

use std::process::Command;
use std::sync::Arc;

use serde_json::json;
use streamfleet::commands::{Command as Given, Commands};
use streamfleet::routing::Config;
use streamfleet::store::Access;

use crate::support::cli::{Ran, run, streamfleet};
use crate::support::fleet::{ROUTING, typed};
use crate::support::users::Users;
use crate::support::{Fleet, Server, event, eventually};

const MAKE: [&str; 6] = [
    "--streams",
    "test-events,more-events,system-events",
    "--subscriber",
    "probe-service:Account",
    "--subscriber",
    "other-service",
];

/// A fleet of probes with everything turned on that keeps something.
fn guarded() -> Fleet {
    let fleet = Fleet::on(Server::guarded(&MAKE, &[]));
    for name in ["System.Breaker.Opened", "System.Breaker.Closed"] {
        fleet.write_schema(name);
    }
    let routing = ROUTING
        .replace(
            "version: 1",
            "version: 1\naudit: { maxlen: 1000 }\ntrace: { ttl: 1h }",
        )
        .replace(
            r#"events: ["Test.**"]"#,
            r#"events: ["Test.**"], maxlen: 20"#,
        )
        .replace(
            "routes:",
            "  system-events: { events: [\"System.**\"] }\nroutes:\n  System.**: [other-service]",
        );
    fleet.configure(&format!(
        "{routing}  breaker: {{ consecutive: 2, open: 200ms, max_open: 200ms, probes: 1 }}\n"
    ));
    fleet
}

fn ask_as(fleet: &Fleet, user: &str, args: &[&str]) -> Ran {
    let mut command = streamfleet(args);
    command.env("STREAMFLEET_CONFIG", fleet.config());
    command.env("STREAMFLEET_REDIS_URL", fleet.url());
    fleet.users.as_ref().unwrap().be(&mut command, user);
    run(command, b"")
}

#[test]
fn what_fails_waits_dies_and_comes_back_needs_no_more_rights() {
    let fleet = guarded();
    let _router = fleet.router("r");
    let worker = fleet.worker("probe-service", "w");
    let _other = fleet.worker("other-service", "o");
    let mut fails = vec![
        event(json!({"do": "reject"})),
        event(json!({"do": "fail"})),
        event(json!({"do": "unavailable once"})),
        event(json!({"do": "follow"})),
        event(json!({"do": "schedule", "ms": 100})),
        event(json!({"do": "read and add"})),
        typed("Nobody.Knows", json!({})),
    ];
    fails.extend((0..60).map(|_| event(json!({"do": "fail twice"}))));
    fleet.publish(&fails);
    ask_as(
        &fleet,
        "producer",
        &["publish", "Test.Happened", "--data", "{}"],
    )
    .ok();
    eventually("letters are written", || {
        (fleet.dead("probe-service").len() == 2 && fleet.dead("router").len() == 1).then_some(())
    });
    // An own event again, under the same ID: a duplicate; and with other data: a conflict.
    fleet.publish(&[fails[0].clone()]);
    let mut other = fails[0].clone();
    other["data"] = json!({"do": "nothing"});
    fleet.publish(&[other]);
    eventually("the conflict is refused", || {
        (fleet.dead("router").len() == 2).then_some(())
    });

    // Scheduled for later, and cancelled: by a handler and by hand.
    for by_hand in [true, false] {
        fleet.publish(&[event(json!({"do": "schedule", "ms": 600_000}))]);
        let scheduled = eventually("it is scheduled", || {
            let scheduled: Vec<String> = fleet.cli("ZRANGE scheduled 0 -1");
            scheduled.into_iter().next()
        });
        match by_hand {
            true => drop(
                fleet
                    .ask(&["scheduled", "cancel", &scheduled, "--yes"])
                    .ok(),
            ),
            false => fleet.publish(&[event(json!({"do": "cancel", "text": scheduled}))]),
        }
        eventually("it is cancelled", || {
            (fleet.cli::<u64>("ZCARD scheduled") == 0).then_some(())
        });
    }

    // A worker dies with something in hand; its next life takes over. Then the name is gone for good, and
    // another reclaims.
    let long = event(json!({"do": "sleep", "ms": 700}));
    fleet.publish(&[long.clone()]);
    eventually("it is started", || fleet.starts(&long));
    drop(worker);
    let worker = fleet.worker("probe-service", "w");
    eventually("it is started again", || {
        fleet.starts(&long).filter(|&n| n > 1)
    });
    drop(worker);
    let _worker = fleet.worker("probe-service", "x");

    // A breaker opens and closes, and says so.
    let _: u64 = fleet.cli("SADD probe-service:down it");
    let needs: Vec<_> = (0..3)
        .map(|_| event(json!({"do": "need", "text": "it"})))
        .collect();
    fleet.publish(&needs);
    eventually("it opens", || {
        fleet
            .cli::<Option<u64>>("HGET stats:probe-service opened")
            .filter(|&n| n > 1)
    });
    let _: u64 = fleet.cli("SREM probe-service:down it");
    eventually("it closes", || {
        fleet.cli::<Option<u64>>("HGET stats:probe-service closed")
    });

    // What an operator does.
    fleet.ask(&["pause", "other-service", "--for", "10m"]).ok();
    fleet.ask(&["resume", "other-service"]).ok();
    fleet
        .ask(&[
            "dead",
            "redrive",
            "--subscriber",
            "probe-service",
            "--reason",
            "rejected",
        ])
        .ok();
    fleet.write_schema("Nobody.Knows");
    fleet
        .ask(&["dead", "redrive", "--reason", "unknown_type"])
        .ok();
    eventually("the letter is back", || {
        (fleet.dead("probe-service").len() >= 2).then_some(())
    });
    fleet.ask(&[
        "dead",
        "discard",
        "--subscriber",
        "router",
        "--all",
        "--yes",
    ]);
    let flow = fails[3]["correlation_id"].as_str().unwrap();
    for user in ["operator", "viewer"] {
        for args in [
            &["status"][..],
            &["status", "--output", "json"],
            &["dead", "list"],
            &["group", "list"],
            &["audit"],
            &["scheduled", "list"],
            &["trace", flow],
            &["entity", "use"],
            &["saga", "list"],
        ] {
            let ran = ask_as(&fleet, user, args);
            assert!(
                !ran.err.to_lowercase().contains("perm"),
                "{user} {args:?}: {ran:?}"
            );
            assert_ne!(ran.out, "", "{user} {args:?}: {ran:?}");
        }
    }
    // It examines everything with the rights of who repairs.
    let found = ask_as(&fleet, "operator", &["doctor", "--output", "json"]);
    let found = crate::support::cli::items(&found.out);
    assert!(
        found.iter().all(|finding| finding["about"] != "rights"),
        "{found:#?}"
    );
    eventually("history is cut", || {
        (fleet.cli::<usize>("XLEN test-events") <= 20).then_some(())
    });
    fleet.drained();
    assert_eq!(fleet.refusals(), [""; 0]);
}

/// A command from outside of any delivery is carried out as the user of its subscriber.
#[tokio::test]
async fn commands_need_the_rights_of_their_subscriber() {
    let fleet = guarded();
    let users = fleet.users.as_ref().unwrap();
    let config = Arc::new(Config::load(&fleet.config()).unwrap());
    let carry_out = |user: &str| {
        let access = Access::from(&users.url(&fleet.url(), user));
        let config = config.clone();
        async move {
            let commands = Commands::connect(access, config, "probe-service")
                .await
                .unwrap();
            let command = Given::in_flow(uuid::Uuid::new_v4());
            let done = commands.execute(command, async |cx| {
                cx.hash_increment("balance", "account", 7)?;
                cx.publish("Test.Happened", &json!({"do": "nothing"}))?;
                Ok(())
            });
            done.await.map_err(|error| error.to_string())
        }
    };
    carry_out("probe-service").await.unwrap();
    assert_eq!(fleet.refusals(), [""; 0]);
    let before = fleet.snapshot();
    let refused = carry_out("other-service").await.unwrap_err();
    assert!(refused.contains("permissions"), "{refused}");
    assert_eq!(fleet.snapshot(), before);
}

/// What everybody may do of a list of commands; what is not named is refused.
#[test]
fn nobody_may_do_more() {
    const EVERYBODY: &[&str] = &[
        "producer",
        "router",
        "probe-service",
        "other-service",
        "operator",
        "viewer",
    ];
    let cases: &[(&str, &[&str])] = &[
        ("PING", EVERYBODY),
        (
            "XADD inbox * event {}",
            &[
                "producer",
                "router",
                "probe-service",
                "other-service",
                "operator",
            ],
        ),
        ("XLEN inbox", &["router", "operator", "viewer"]),
        ("XRANGE inbox - +", &["router", "operator", "viewer"]),
        ("XDEL inbox 1-1", &["router", "operator"]),
        ("XTRIM inbox MAXLEN 0", &["router", "operator"]),
        ("DEL inbox", &["operator"]),
        (
            "XADD test-events * id x type Test.Happened to probe-service event {}",
            &["router", "operator"],
        ),
        (
            "XRANGE test-events - +",
            &[
                "router",
                "probe-service",
                "other-service",
                "operator",
                "viewer",
            ],
        ),
        ("XDEL test-events 1-1", &["operator"]),
        ("XTRIM test-events MAXLEN 1000", &["router", "operator"]),
        ("XGROUP DESTROY test-events nobody", &["operator"]),
        (
            "XACK test-events probe-service 1-1",
            &["probe-service", "other-service", "operator"],
        ),
        (
            "HGETALL probe-service:state",
            &["probe-service", "operator", "viewer"],
        ),
        (
            "HSET probe-service:state a b",
            &["probe-service", "operator"],
        ),
        ("SET other-service:state a", &["other-service", "operator"]),
        (
            "XRANGE es:Account:7 - +",
            &["probe-service", "operator", "viewer"],
        ),
        (
            "XADD es:Account:7 1-0 type a data b",
            &["probe-service", "operator"],
        ),
        (
            "HGET snapshot:Account:7 version",
            &["probe-service", "operator", "viewer"],
        ),
        (
            "XADD dead:probe-service * a b",
            &["probe-service", "operator"],
        ),
        (
            "XRANGE dead:probe-service - +",
            &["router", "operator", "viewer"],
        ),
        ("XDEL dead:probe-service 1-1", &["operator"]),
        ("XADD dead:router * a b", &["router", "operator"]),
        ("XADD redrive:probe-service * a b", &["operator"]),
        (
            "XDEL redrive:probe-service 1-1",
            &["probe-service", "operator"],
        ),
        (
            "HGETALL fleet",
            &[
                "router",
                "probe-service",
                "other-service",
                "operator",
                "viewer",
            ],
        ),
        (
            "HSET control:probe-service paused_until resumed",
            &["probe-service", "operator"],
        ),
        (
            "HSET control:other-service paused_until resumed",
            &["other-service", "operator"],
        ),
        (
            "HGETALL worker:other-service:o",
            &["router", "other-service", "operator", "viewer"],
        ),
        (
            "HSET worker:other-service:o nonce x",
            &["other-service", "operator"],
        ),
        ("HGET seen:1:1 x", &["router", "operator", "viewer"]),
        ("ZADD scheduled 1 x", &["router", "operator"]),
        ("XADD audit * a b", &["router", "operator"]),
        ("XRANGE audit - +", &["router", "operator", "viewer"]),
        ("GET something", &["operator", "viewer"]),
        ("SET something else", &["operator"]),
        (
            "EVALSHA 0000000000000000000000000000000000000000 1 something",
            &["operator"],
        ),
        (
            "EVALSHA 0000000000000000000000000000000000000000 1 probe-service:state",
            &["probe-service", "operator"],
        ),
        // Of the server itself.
        ("EVAL return 0", &[]),
        ("FUNCTION LIST", &[]),
        ("FLUSHALL", &[]),
        ("FLUSHDB", &[]),
        ("SWAPDB 0 1", &[]),
        ("KEYS *", &[]),
        ("CONFIG GET *", &[]),
        ("CONFIG SET maxmemory 1", &[]),
        ("ACL LIST", &[]),
        ("ACL SETUSER x", &[]),
        ("CLIENT LIST", &[]),
        ("CLIENT KILL ID 1", &[]),
        ("SHUTDOWN", &[]),
        ("SAVE", &[]),
        ("BGREWRITEAOF", &[]),
        ("MONITOR", &[]),
        ("REPLICAOF NO ONE", &[]),
        ("SCRIPT FLUSH", &[]),
        ("SLOWLOG GET", &[]),
        ("MIGRATE 127.0.0.1 1 x 0 1", &[]),
        ("SUBSCRIBE x", &[]),
        ("PUBLISH x y", &[]),
    ];
    let fleet = guarded();
    let users = fleet.users.as_ref().unwrap();
    let clients = EVERYBODY.iter().copied().map(|user| {
        let client = redis::Client::open(users.url(&fleet.url(), user)).unwrap();
        (user, client.get_connection().unwrap())
    });
    let mut wrong = Vec::new();
    for (user, mut connection) in clients {
        for (line, may) in cases {
            let mut words = line.split_whitespace();
            let mut command = redis::cmd(words.next().unwrap());
            command.arg(words.collect::<Vec<_>>());
            let answer = command.exec(&mut connection);
            let refused = answer.is_err_and(|error| error.code() == Some("NOPERM"));
            if refused == may.contains(&user) {
                wrong.push(format!("{user}: {line}: refused: {refused}"));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn who_comes_without_a_name_may_do_nothing() {
    let folder = Users::as_shipped(&[]);
    let file = folder.path().join("users.acl");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains(['{', '[', '<', '>']), "{text}");
    assert!(text.lines().all(|line| line.starts_with("user ")), "{text}");
    for name in std::fs::read_dir(folder.path().join("passwords")).unwrap() {
        let password = std::fs::read_to_string(name.unwrap().path()).unwrap();
        assert!(password.len() > 30 && !text.contains(&password));
    }
    // As Redis is started: it pings as nobody, and is answered NOAUTH.
    let server = Server::prepare(&[], &["--aclfile", file.to_str().unwrap()]);
    server.spawn();
    let client = redis::Client::open(server.url()).unwrap();
    let said = eventually("it answers", || {
        let mut connection = client.get_connection().ok()?;
        redis::cmd("PING").exec(&mut connection).err()
    });
    assert_eq!(said.code(), Some("NOAUTH"), "{said}");

    // Redis replays the transactions of its append-only file as nobody: all of it must come back.
    let password = std::fs::read_to_string(folder.path().join("passwords/admin")).unwrap();
    let url = format!("{}?user=admin&pass={password}", server.url());
    let admin = redis::Client::open(url).unwrap();
    let connected = || admin.get_connection().ok();
    let script = redis::Script::new("redis.call('SET', 'a', 1) redis.call('SET', 'b', 1)");
    script
        .invoke::<()>(&mut eventually("admin is let in", connected))
        .unwrap();
    server.kill();
    server.spawn();
    let kept = eventually("it is back", || {
        let mut connection = admin.get_connection().ok()?;
        redis::cmd("DBSIZE").query::<u64>(&mut connection).ok()
    });
    assert_eq!(kept, 2);
}

/// Run again, it keeps the passwords that are there, and adds who is new.
#[test]
fn a_subscriber_is_added_and_a_namespace_comes_before_everything() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/redis/make-users");
    let folder = tempfile::tempdir().unwrap();
    let make = |args: &[&str]| {
        let made = Command::new(script).args(args).arg(folder.path()).output();
        made.unwrap().status.code()
    };
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let first = [
        "--namespace",
        "shop",
        "--streams",
        "a-events",
        "--subscriber",
        "a-service",
    ];
    assert_eq!(make(&first), Some(0));
    let before = (read("passwords/shop-router"), read("users.acl"));
    assert_eq!(
        make(&[&first[..], &["--subscriber", "b-service:Thing"]].concat()),
        Some(0)
    );
    assert_eq!(read("passwords/shop-router"), before.0);
    let text = read("users.acl");
    assert!(text.contains("user shop-router ") && text.contains("user shop-b-service "));
    assert_eq!(text.lines().count(), before.1.lines().count() + 1);
    assert!(text.contains("~shop:es:Thing:*") && !before.1.contains(":es:"));
    // These two may be of another fleet: who looks after Redis, and who is let in nowhere.
    let ours = |line: &&str| !line.contains("admin") && !line.starts_with("user default off ");
    for line in text.lines().filter(ours) {
        let mut patterns = line
            .split([' ', '(', ')'])
            .filter_map(|rule| rule.split_once('~'));
        assert!(
            patterns.all(|(_, pattern)| pattern.starts_with("shop:")),
            "{line}"
        );
    }
    for wrong in [
        &["--namespace", "a b"][..],
        &["--subscriber", "x ~*"],
        &["--subscriber", "x:*"],
        &["--streams", "a,*"],
        &["--streams"],
        &["--nonsense"],
    ] {
        assert_eq!(make(wrong), Some(2), "{wrong:?}");
    }
}
