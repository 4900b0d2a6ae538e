//! analytics-service: every number is the same for every order of events; a late event lands in
//! its own window.

use super::event_time::{Reader, Service, comes_out_the_same, event, numbers};

const ANALYTICS: Service = Service {
    name: "analytics",
    program: env!("CARGO_BIN_EXE_analytics-worker"),
};

fn order(n: u32, at: &str, user: u32, quantity: u64, total: &str) -> String {
    let data = format!(
        r#"{{"order_id":{n},"order_number":"N-{n}","user_id":{user},"total_amount":{total},"status":"pending","items":[{{"product_id":1,"sku_id":1,"sku_code":"S","product_name":"P","sku_name":"S","quantity":{quantity},"unit_price":1,"subtotal":1}}],"shipping_address":{{"recipient":"A","phone":"1","address":"1","city":"L","province":"R","country":"France"}},"created_at":"{at}"}}"#
    );
    event(n, "Order.Created", at, &data)
}

fn viewed(n: u32, at: &str, user: u32) -> String {
    let data = format!(r#"{{"user_id":{user},"product_id":1,"viewed_at":"{at}"}}"#);
    event(n, "Product.Viewed", at, &data)
}

fn carted(n: u32, at: &str, user: u32, quantity: u64) -> String {
    let data = format!(
        r#"{{"user_id":{user},"product_id":1,"sku_id":1,"quantity":{quantity},"added_at":"{at}"}}"#
    );
    event(n, "Product.AddedToCart", at, &data)
}

fn returned(n: u32, at: &str, quantity: u64) -> String {
    let data = format!(
        r#"{{"sku_id":1,"quantity":{quantity},"reason":"return","received_at":"{at}","unit_price":0.50,"country":"France"}}"#
    );
    event(n, "Inventory.Stock.Received", at, &data)
}

fn logged_in(n: u32, at: &str, user: u32) -> String {
    let data = format!(r#"{{"user_id":{user},"logged_in_at":"{at}"}}"#);
    event(n, "User.LoggedIn", at, &data)
}

fn stories() -> Vec<String> {
    let failed = r#"{"component":"smtp","check":"reachable","message":"refused","failed_at":"2026-01-05T10:00:00Z"}"#;
    vec![
        order(1, "2026-01-05T10:00:00Z", 7, 2, "20.00"),
        order(2, "2026-01-05T10:00:59Z", 8, 1, "0.29"),
        order(3, "2026-01-05T10:59:00Z", 7, 1, "5"),
        // An hour and a day are those of UTC, wherever it happened.
        order(4, "2026-01-06T00:30:00+01:00", 7, 1, "1.10"),
        viewed(5, "2026-01-05T10:00:30Z", 9),
        viewed(6, "2026-01-04T23:59:59Z", 7),
        carted(7, "2026-01-05T10:00:31Z", 9, 3),
        logged_in(8, "2026-01-05T09:59:00Z", 9),
        returned(9, "2026-01-05T11:00:00Z", 2),
        event(
            10,
            "System.Health.CheckFailed",
            "2026-01-05T10:00:00Z",
            failed,
        ),
    ]
}

/// Many things at few moments of two days.
fn bustle(from: u32) -> Vec<String> {
    let mut number = numbers(5);
    let mut one = |n| {
        let at = format!(
            "2026-02-0{}T1{}:00:0{}Z",
            1 + number(2),
            number(2),
            number(9)
        );
        let user = number(5) as u32;
        match number(5) {
            0 => viewed(n, &at, user),
            1 => carted(n, &at, user, 1 + number(3)),
            2 => logged_in(n, &at, user),
            3 => returned(n, &at, 2 * (1 + number(3))),
            _ => order(
                n,
                &at,
                user,
                1 + number(4),
                &format!("{}.{:02}", number(50), number(100)),
            ),
        }
    };
    (from..from + 80).map(&mut one).collect()
}

#[test]
fn every_number_is_the_same_for_every_order() {
    let events = [stories(), bustle(100)].concat();
    let kept = comes_out_the_same(ANALYTICS, &events);
    let has = |key: &str| kept[&format!("analytics-service:{key}")].clone();
    assert_eq!(
        has("minute:2026-01-05T10:00"),
        [
            "events:Order.Created=2",
            "events:Product.AddedToCart=1",
            "events:Product.Viewed=1",
            "events:System.Health.CheckFailed=1",
            "orders=2",
            "revenue_cents=2029",
            "units=3",
        ]
    );
    assert_eq!(has("minute:2026-01-05T10:00:users"), ["7", "8", "9"]);
    assert!(has("hour:2026-01-05T10").contains(&"revenue_cents=2529".to_owned()));
    let day = has("day:2026-01-05");
    for field in [
        "orders=4",
        "revenue_cents=2639",
        "returns=1",
        "returned_units=2",
        "returns_cents=100",
        "events:User.LoggedIn=1",
    ] {
        assert!(day.contains(&field.to_owned()), "{field} in {day:?}");
    }
    assert_eq!(
        has("day:2026-01-04"),
        ["events:Product.Viewed=1"],
        "its own day"
    );
    assert_eq!(has("day:2026-01-04:users"), ["7"]);
    assert_eq!(has("user:7"), ["orders=3", "spent_cents=2610", "views=1"]);
    assert_eq!(
        has("user:9"),
        ["carted_units=3", "carts=1", "logins=1", "views=1"]
    );
    assert_eq!(has("user:7:hours"), ["10=2", "23=2"]);
    assert!(has("user:7:last_seen").contains(&"value=2026-01-05T23:30:00Z".to_owned()));
}

#[test]
fn more_units_than_can_be_counted_are_rejected_with_their_place() {
    let reader = Reader::start(ANALYTICS, |text| text);
    let at = "2026-01-05T10:00:00Z";
    const MANY: u64 = 1_000_000_000_001;
    reader.take(&[
        order(1, at, 7, MANY, "1"),
        carted(2, at, 7, MANY),
        returned(3, at, MANY),
    ]);
    let mut letters = reader.letters();
    letters.sort();
    let rejected = |pointer: &str| {
        let error = format!("{pointer}: these are more units than can be counted");
        ("rejected".to_owned(), error)
    };
    let expected = ["/data/items", "/data/quantity", "/data/quantity"].map(rejected);
    assert_eq!(letters, expected);
    assert!(reader.kept().is_empty());
}
