//! cache-service: a page is the same for every order of events.

use super::event_time::{
    Reader, Service, assert_same, comes_out_the_same, event, numbers, product_created as created,
    product_updated as updated, refuses_what_is_routed_by_mistake, shuffled,
};

const CACHE: Service = Service {
    name: "cache",
    program: env!("CARGO_BIN_EXE_cache-worker"),
};

fn sku(n: u32, at: &str, id: u32, sku: u32, price: &str) -> String {
    let data = format!(
        r#"{{"sku_id":{sku},"product_id":{id},"sku_code":"SKU-{sku}","name":"Tin","price":{price},"cost_price":1.00,"is_active":true,"created_by":1,"created_at":"2026-01-05T10:00:00Z"}}"#
    );
    event(n, "SKU.Created", &format!("2026-01-05T{at}Z"), &data)
}

fn stories() -> Vec<String> {
    vec![
        created(1, "10:00:00", 1, "Green tea", "published"),
        sku(2, "10:00:01", 1, 11, "10.00"),
        sku(
            3,
            "10:00:02",
            1,
            12,
            "5.5,\"market_price\":1234567890123456789.123456789",
        ),
        updated(4, "12:00:00", 1, r#""name":"Sencha","brand_id":4"#),
        updated(5, "11:00:00", 1, r#""name":"Bancha","description":"Fresh""#),
        // Archived for good, while variants are still added.
        created(6, "10:00:00", 2, "Black tea", "published"),
        updated(7, "11:00:00", 2, r#""status":"archived""#),
        sku(8, "12:00:00", 2, 21, "3"),
        updated(9, "10:30:00", 2, r#""status":"published""#),
        // Variants that come before their product, one of them corrected.
        sku(10, "08:00:00", 3, 31, "1"),
        sku(11, "09:00:00", 3, 31, "1.10"),
        created(12, "10:00:00", 3, "Mug", "published"),
        // Of a product that nobody has created.
        sku(13, "10:00:00", 4, 41, "2"),
    ]
}

/// Many changes of few products at few moments.
fn bustle(from: u32) -> Vec<String> {
    let mut number = numbers(11);
    let change = |n: u32| {
        let at = format!("08:00:0{}", number(5));
        let id = 100 + number(3) as u32;
        let fields = match number(8) {
            0 => r#""name":"Cup","status":"published""#,
            1 => r#""name":"Blue cup""#,
            2 => r#""status":"draft""#,
            3 => r#""status":"published""#,
            4 => r#""status":"archived","brand_id":2"#,
            other => return sku(n, &at, id, 10 * id + other as u32, &format!("{n}.50")),
        };
        updated(n, &at, id, fields)
    };
    (from..from + 60).map(change).collect()
}

#[test]
fn a_page_is_the_same_for_every_order() {
    let events = [stories(), bustle(100)].concat();
    let kept = comes_out_the_same(CACHE, &events);
    assert_eq!(
        kept["cache-service:product:1"],
        [
            "as_of=2026-01-05T12:00:00Z",
            "brand_id=4",
            "category_id=1",
            "description=Fresh",
            "name=Sencha",
            r#"sku:11={"sku_code":"SKU-11","name":"Tin","price":"10.00","is_active":true}"#,
            r#"sku:12={"sku_code":"SKU-12","name":"Tin","price":"5.5","market_price":"1234567890123456789.123456789","is_active":true}"#,
        ]
    );
    assert_eq!(
        kept["cache-service:product:3"],
        [
            "as_of=2026-01-05T10:00:00Z",
            "category_id=1",
            "name=Mug",
            r#"sku:31={"sku_code":"SKU-31","name":"Tin","price":"1.10","is_active":true}"#,
        ]
    );
    for hidden in [2, 4] {
        assert!(!kept.contains_key(&format!("cache-service:product:{hidden}")));
        assert!(kept.contains_key(&format!("cache-service:state:{hidden}")));
    }
}

#[test]
fn what_comes_late_or_again_changes_nothing() {
    let reader = Reader::start(CACHE, |text| text);
    reader.take(&shuffled(&stories(), 5));
    let kept = reader.kept();
    reader.again();
    assert_same("again", &reader.kept(), &kept);
    let exists = || reader.fleet.cli::<u64>("EXISTS cache-service:product:2");
    reader.take(&[updated(900, "10:59:59", 2, r#""status":"published""#)]);
    assert_eq!(exists(), 0, "archived later than that");
    reader.take(&[updated(901, "13:00:00", 2, r#""status":"published""#)]);
    assert_eq!(exists(), 1);
    let sku: String = reader.fleet.cli("HGET cache-service:product:2 sku:21");
    assert!(
        sku.contains(r#""price":"3""#),
        "added while it was archived: {sku}"
    );
}

#[test]
fn a_price_that_does_not_fit_is_rejected_with_its_place() {
    let reader = Reader::start(CACHE, |text| text);
    let price = format!("0.{}1", "0".repeat(40));
    reader.take(&[
        sku(1, "10:00:00", 1, 11, &price),
        sku(2, "10:00:00", 1, 12, &format!("1,\"market_price\":{price}")),
    ]);
    let mut letters = reader.letters();
    letters.sort();
    let rejected = |field: &str| {
        let error = format!("/data/{field}: {price} does not fit an amount of 28 digits");
        ("rejected".to_owned(), error)
    };
    assert_eq!(letters, [rejected("market_price"), rejected("price")]);
    assert!(reader.kept().is_empty());
}

#[test]
fn what_is_routed_by_mistake_is_rejected() {
    refuses_what_is_routed_by_mistake(CACHE);
}
