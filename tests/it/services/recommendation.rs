//! recommendation-service: rankings are the same for every order of events.

use super::event_time::{
    Reader, Service, comes_out_the_same, event, numbers, refuses_what_is_routed_by_mistake,
    shuffled,
};

const RECOMMENDATION: Service = Service {
    name: "recommendation",
    program: env!("CARGO_BIN_EXE_recommendation-worker"),
};

fn order(n: u32, user: u32, products: &[u32]) -> String {
    let item = |product: &u32| {
        format!(
            r#"{{"product_id":{product},"sku_id":{product},"sku_code":"S","product_name":"P","sku_name":"S","quantity":1,"unit_price":1,"subtotal":1}}"#
        )
    };
    let items: Vec<_> = products.iter().map(item).collect();
    let data = format!(
        r#"{{"order_id":{n},"order_number":"N-{n}","user_id":{user},"total_amount":1,"status":"pending","items":[{}],"shipping_address":{{"recipient":"A","phone":"1","address":"1","city":"L","province":"R"}},"created_at":"2026-01-05T10:00:00Z"}}"#,
        items.join(",")
    );
    event(n, "Order.Created", "2026-01-05T10:00:00Z", &data)
}

/// A view so many minutes after midnight.
fn view(n: u32, minute: u32, user: u32, product: u32) -> String {
    let at = format!("2026-01-05T{:02}:{:02}:00Z", minute / 60, minute % 60);
    let data = format!(r#"{{"user_id":{user},"product_id":{product},"viewed_at":"{at}"}}"#);
    event(n, "Product.Viewed", &at, &data)
}

fn carted(n: u32, user: u32, product: u32) -> String {
    let at = "2026-01-05T10:00:00Z";
    let data = format!(
        r#"{{"user_id":{user},"product_id":{product},"sku_id":1,"quantity":2,"added_at":"{at}"}}"#
    );
    event(n, "Product.AddedToCart", at, &data)
}

fn signed_up(n: u32, user: u32, at: &str) -> String {
    let data = format!(
        r#"{{"user_id":{user},"username":"A","email":"a@example.org","created_at":"{at}","user_type":"customer"}}"#
    );
    event(n, "User.Created", at, &data)
}

fn stories() -> Vec<String> {
    vec![
        order(1, 7, &[1, 2, 3]),
        order(2, 8, &[2, 1, 2]),
        order(3, 0, &[1, 4]),
        order(4, 7, &[5]),
        // One visit, a second one, and another user between.
        view(10, 600, 7, 1),
        view(11, 615, 7, 2),
        view(12, 630, 7, 1),
        view(13, 661, 7, 3),
        view(14, 610, 8, 3),
        // Guests are many.
        view(15, 600, 0, 1),
        view(16, 601, 0, 2),
        carted(20, 7, 2),
        carted(21, 0, 2),
        signed_up(30, 7, "2026-01-05T09:00:00Z"),
        signed_up(31, 7, "2026-01-05T09:30:00Z"),
    ]
}

/// Many views of few users and products, within what their histories hold.
fn bustle(from: u32) -> Vec<String> {
    let mut number = numbers(3);
    let mut view = |n| {
        let user = 100 + number(3) as u32;
        view(n, number(180) as u32, user, 100 + number(6) as u32)
    };
    (from..from + 90).map(&mut view).collect()
}

#[test]
fn rankings_are_the_same_for_every_order() {
    let events = [stories(), bustle(100)].concat();
    let kept = comes_out_the_same(RECOMMENDATION, &events);
    let has = |key: &str| kept[&format!("recommendation-service:{key}")].clone();
    assert_eq!(has("bought"), ["1=3", "2=2", "3=1", "4=1", "5=1"]);
    assert_eq!(has("bought-with:1"), ["2=2", "3=1", "4=1"]);
    assert_eq!(has("bought-with:2"), ["1=2", "3=1"]);
    assert!(!kept.contains_key("recommendation-service:bought-with:5"));
    assert_eq!(has("viewed-with:1"), ["2=2"], "1, 2 and 1 again");
    assert_eq!(has("viewed-with:2"), ["1=2"]);
    assert!(!kept.contains_key("recommendation-service:viewed-with:3"));
    // Viewed twice and bought; viewed, put into the cart and bought; viewed and bought; bought.
    assert_eq!(has("interests:7"), ["1=7", "2=9", "3=6", "5=5"]);
    assert_eq!(has("user:7"), ["carts=1", "orders=2", "views=4"]);
    assert_eq!(
        has("user:7:signed_up").last().unwrap(),
        "value=2026-01-05T09:30:00Z"
    );
    assert!(
        !kept.keys().any(|key| key.ends_with(":0")),
        "no guest has a profile"
    );
}

#[test]
fn a_large_order_and_a_long_history_are_bounded_and_redis_cli_ranks() {
    let reader = Reader::start(RECOMMENDATION, |text| text);
    let everything: Vec<_> = (1..=500).collect();
    reader.take(&[
        order(1, 7, &everything),
        order(2, 8, &[1, 2]),
        order(3, 8, &[1, 2]),
    ]);
    reader.refused_nothing();
    let asked = |line: &str| -> Vec<String> { reader.fleet.cli(line) };
    let rank = "ZREVRANGE recommendation-service:bought-with:1";
    assert_eq!(asked(&format!("{rank} 0 0 WITHSCORES")), ["2", "3"]);
    assert_eq!(asked(&format!("{rank} 0 -1")).len(), 31);

    let views: Vec<_> = (0..200).map(|n| view(1_000 + n, n, 9, n)).collect();
    reader.take(&shuffled(&views, 6));
    let history: String = reader.fleet.cli("GET recommendation-service:history:9");
    let history: serde_json::Value = serde_json::from_str(&history).unwrap();
    let products: Vec<_> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["product_id"].as_u64().unwrap())
        .collect();
    assert_eq!(products, (150..200).rev().collect::<Vec<u64>>());

    // What goes with the products that user 8 is drawn to, and is new to the user.
    let with = [1, 2].map(|product| format!("recommendation-service:bought-with:{product}"));
    let show = format!(
        "ZUNION 3 {} {} recommendation-service:interests:8 WEIGHTS 1 1 -1000000 WITHSCORES",
        with[0], with[1]
    );
    let ranked = asked(&show);
    assert_eq!(ranked.last().unwrap(), "2", "in both");
    assert!(
        ranked[1].starts_with('-') && ranked[3].starts_with('-'),
        "known already"
    );
    assert!(ranked[5..].iter().step_by(2).all(|score| score == "2"));
}

#[test]
fn what_is_routed_by_mistake_is_rejected() {
    refuses_what_is_routed_by_mistake(RECOMMENDATION);
}
