//! user-service: a user is the same for every order of events, and is in the event store.

use super::event_time::{
    Reader, Service, assert_same, comes_out_the_same, event, numbers,
    refuses_what_is_routed_by_mistake,
};

const USER: Service = Service {
    name: "user",
    program: env!("CARGO_BIN_EXE_user-worker"),
};

fn created(n: u32, at: &str, id: u32, name: &str) -> String {
    let at = format!("2026-01-05T{at}Z");
    let data = format!(
        r#"{{"user_id":{id},"username":"{name}","email":"{name}@example.org","created_at":"{at}","user_type":"customer"}}"#
    );
    event(n, "User.Created", &at, &data)
}

fn updated(n: u32, at: &str, id: u32, fields: &str) -> String {
    let at = format!("2026-01-05T{at}Z");
    let data = format!(r#"{{"user_id":{id},"updated_at":"{at}",{fields}}}"#);
    event(n, "User.Updated", &at, &data)
}

fn stories() -> Vec<String> {
    vec![
        created(1, "10:00:00", 1, "ann"),
        updated(2, "12:00:00", 1, r#""email":"ann@b.org""#),
        updated(3, "11:00:00", 1, r#""email":"ann@c.org","username":"anna""#),
        // Older than what it updates.
        updated(4, "09:00:00", 2, r#""username":"old","user_type":"vendor""#),
        created(5, "10:00:00", 2, "bob"),
        // Nobody has created this one.
        updated(6, "10:00:00", 3, r#""username":"eve""#),
        // At the same time: the greater ID decides.
        created(7, "10:00:00", 4, "carl"),
        updated(8, "10:00:00", 4, r#""username":"carla""#),
    ]
}

/// Many changes of few users at few moments.
fn bustle(from: u32) -> Vec<String> {
    let mut number = numbers(13);
    let change = |n: u32| {
        let (at, id) = (format!("08:00:0{}", number(5)), 100 + number(2) as u32);
        let fields = match number(4) {
            0 => format!(r#""username":"name {n}""#),
            1 => format!(r#""email":"{n}@example.org""#),
            2 => format!(r#""user_type":"vendor","username":"name {n}""#),
            _ => r#""user_type":"admin""#.to_owned(),
        };
        updated(n, &at, id, &fields)
    };
    (from..from + 60).map(change).collect()
}

#[test]
fn a_user_is_the_same_for_every_order() {
    let kept = comes_out_the_same(USER, &[stories(), bustle(100)].concat());
    let has = |id: u32| kept[&format!("user-service:user:{id}")].clone();
    assert_eq!(
        has(1),
        [
            "as_of=2026-01-05T12:00:00Z",
            "created_at=2026-01-05T10:00:00Z",
            "email=ann@b.org",
            "user_type=customer",
            "username=anna",
        ]
    );
    assert_eq!(has(2).last().unwrap(), "username=bob");
    assert_eq!(has(3), ["as_of=2026-01-05T10:00:00Z", "username=eve"]);
    assert_eq!(has(4).last().unwrap(), "username=carla");
}

#[test]
fn every_event_is_in_the_history_and_what_comes_again_changes_nobody() {
    let reader = Reader::start(USER, |text| text);
    let events = [stories(), bustle(100)].concat();
    reader.take(&events);
    let kept = reader.kept();
    let versions = |id: u32| reader.fleet.cli::<u64>(&format!("XLEN es:User:{id}"));
    assert_eq!([1, 2, 3, 4].map(versions), [3, 2, 1, 2]);
    assert_eq!(
        versions(100) + versions(101),
        60,
        "all at a time, and none lost"
    );
    reader.again();
    assert_same("again", &reader.kept(), &kept);

    // With its snapshot or without, the history makes the same user of it.
    let snapshot = |id: u32| {
        reader
            .fleet
            .cli::<u64>(&format!("HGET snapshot:User:{id} version"))
    };
    assert!(
        [100, 101].iter().all(|id| snapshot(*id) >= 40),
        "one every 20 versions"
    );
    assert_eq!(reader.fleet.cli::<u64>("DEL snapshot:User:100"), 1);
    let late = [100, 101].map(|id| updated(900 + id, "07:00:00", id, r#""username":"late""#));
    reader.take(&late);
    assert_same("late", &reader.kept(), &kept);
}

#[test]
fn what_is_routed_by_mistake_is_rejected() {
    refuses_what_is_routed_by_mistake(USER);
}
