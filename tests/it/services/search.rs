//! search-service: the index is the same for every order of events, and is asked with redis-cli.

use super::event_time::{
    Reader, Service, assert_same, comes_out_the_same, numbers, product_created as created,
    product_updated as updated, refuses_what_is_routed_by_mistake, shuffled,
};

const SEARCH: Service = Service {
    name: "search",
    program: env!("CARGO_BIN_EXE_search-worker"),
};

/// One product per thing that can happen.
fn stories() -> Vec<String> {
    vec![
        // Renamed, described, archived, published again.
        created(1, "10:00:00", 1, "GREEN Tea, loose", "published"),
        updated(2, "11:00:00", 1, r#""name":"Sencha Tea""#),
        updated(3, "12:00:00", 1, r#""description":"From Uji: green.""#),
        updated(4, "11:30:00", 1, r#""status":"archived""#),
        updated(5, "12:30:00", 1, r#""status":"published""#),
        // Archived for good.
        created(6, "10:00:00", 2, "Black Tea", "published"),
        updated(7, "11:00:00", 2, r#""status":"archived""#),
        updated(8, "12:00:00", 2, r#""name":"Blackest Tea""#),
        // Never published.
        created(9, "10:00:00", 3, "Tea mug", "draft"),
        // An update that is older than what it updates.
        updated(10, "09:00:00", 4, r#""name":"Old pot","status":"draft""#),
        created(11, "10:00:00", 4, "Tea pot", "published"),
        // At the same time: the greater ID decides.
        created(12, "10:00:00", 5, "Green cup", "draft"),
        updated(
            13,
            "10:00:00",
            5,
            r#""name":"Red cup","status":"published""#,
        ),
        updated(14, "10:00:00", 5, r#""name":"Blue cup""#),
    ]
}

/// Many changes of few products at few moments.
fn bustle(from: u32) -> Vec<String> {
    let mut number = numbers(7);
    let mut of = |words: &[&str]| words[number(words.len() as u64) as usize].to_owned();
    let change = |n: u32| {
        let at = of(&["08:00:01", "08:00:02", "08:00:03", "08:00:04", "08:00:05"]);
        let id = of(&["100", "101", "102"]).parse().unwrap();
        let fields = of(&[
            r#""name":"Crème brûlée""#,
            r#""name":"Plate, blue","description":"A blue plate""#,
            r#""status":"draft""#,
            r#""status":"published""#,
            r#""status":"published","category_id":7"#,
            r#""status":"archived""#,
            r#""description":"""#,
        ]);
        updated(n, &at, id, &fields)
    };
    (from..from + 60).map(change).collect()
}

#[test]
fn the_index_is_the_same_for_every_order() {
    let events = [stories(), bustle(100)].concat();
    let kept = comes_out_the_same(SEARCH, &events);
    let has = |word: &str| kept.get(&format!("search-service:token:{word}")).cloned();
    let products = |ids: &[&str]| Some(ids.iter().map(|id| (*id).to_owned()).collect());
    assert_eq!(has("tea"), products(&["1", "4"]));
    assert_eq!(has("sencha"), products(&["1"]));
    assert_eq!(has("green"), products(&["1"]), "of its description");
    assert!(has("blue").unwrap().contains(&"5".to_owned()));
    for gone in ["loose", "black", "blackest", "mug", "old", "red"] {
        assert_eq!(has(gone), None, "{gone}");
    }
    let shown: Vec<_> = kept["search-service:product:1"].iter().collect();
    assert_eq!(
        shown,
        [
            "category_id=1",
            "description=From Uji: green.",
            "name=Sencha Tea"
        ]
    );
    for hidden in [2, 3] {
        assert!(!kept.contains_key(&format!("search-service:product:{hidden}")));
        assert!(kept.contains_key(&format!("search-service:state:{hidden}")));
    }
}

#[test]
fn what_comes_late_or_again_changes_nothing_and_redis_cli_finds() {
    let reader = Reader::start(SEARCH, |text| text);
    reader.take(&shuffled(&stories(), 5));
    let kept = reader.kept();
    let asked = |line: &str| -> Vec<String> { reader.fleet.cli(line) };
    let [green, tea] = ["search-service:token:green", "search-service:token:tea"];
    assert_eq!(asked(&format!("SINTER {green} {tea}")), ["1"]);
    let mut either = asked(&format!("SUNION {tea} search-service:token:cup"));
    either.sort();
    assert_eq!(either, ["1", "4", "5"]);

    reader.again();
    assert_same("again", &reader.kept(), &kept);
    reader.take(&[updated(900, "10:45:00", 2, r#""status":"published""#)]);
    assert_eq!(
        asked("KEYS search-service:token:blackest"),
        [""; 0],
        "archived later than that"
    );
    reader.take(&[updated(901, "13:00:00", 2, r#""status":"published""#)]);
    assert_eq!(asked("SMEMBERS search-service:token:blackest"), ["2"]);
}

#[test]
fn what_is_routed_by_mistake_is_rejected() {
    refuses_what_is_routed_by_mistake(SEARCH);
}
