//! `System.Health.CheckFailed`.

use super::*;

impl Fleet {
    /// How often it was told that a subscriber does not pass a check.
    fn told(&self, subscriber: &str, check: &str) -> usize {
        let events = self.events("system-events");
        let about = |event: &&Value| {
            event["event_type"] == "System.Health.CheckFailed"
                && event["data"]["component"] == subscriber
                && event["data"]["check"] == check
        };
        events.iter().filter(about).count()
    }

    fn events(&self, stream: &str) -> Vec<Value> {
        let entries: Vec<(String, BTreeMap<String, String>)> = self
            .connection()
            .xrange_all::<_, redis::Value>(stream)
            .map(|v| redis::from_redis_value(v).unwrap())
            .unwrap();
        let event = |(_, fields): &(String, BTreeMap<String, String>)| {
            serde_json::from_str(&fields["event"]).unwrap()
        };
        entries.iter().map(event).collect()
    }
}

#[test]
fn of_several_routers_one_says_once_who_is_not_well() {
    let fleet = brisk_shop(|text| {
        let brisk = text.replace("no_worker: 1m, behind: 15m", "no_worker: 1s, behind: 2s");
        assert_ne!(brisk, text);
        brisk.replace(
            "search-service: {",
            "search-service: { health: { enabled: false },",
        )
    });
    let _routers = [fleet.router("a"), fleet.router("b")];
    let user = service(&fleet, "user", &[]);
    fleet.ask(&["pause", "cache-service"]).ok();
    let day = Path::new(ROOT).join("examples/day.ndjson");
    fleet
        .ask(&["publish", "--file", day.to_str().unwrap()])
        .ok();
    let told = |subscriber: &str| ["workers", "behind"].map(|check| fleet.told(subscriber, check));
    eventually("whoever has no worker is told of", || {
        (told("payment-service") == [1, 1]).then_some(())
    });
    // Enough for both routers to have looked twice more.
    let look = Duration::from_secs(11);
    std::thread::sleep(look);
    assert_eq!(told("payment-service"), [1, 1], "once");
    assert_eq!(told("user-service"), [0, 0], "it is well");
    assert_eq!(told("cache-service"), [0, 0], "it is paused");
    assert_eq!(told("search-service"), [0, 0], "nobody wants to know");
    let first = fleet.events("system-events");
    let first = &first[0];
    assert_eq!(first["key"], first["data"]["component"]);
    assert!(
        first["data"]["message"]
            .as_str()
            .unwrap()
            .contains("start one")
            || first["data"]["message"]
                .as_str()
                .unwrap()
                .contains("has waited")
    );
    assert!(fleet.dead("router").is_empty(), "it passes the door");

    // A recovery ends it, and the next time is another.
    let mark = "HGET fleet health:user-service:workers";
    user.signal("TERM");
    eventually("it is told of", || {
        (told("user-service")[0] == 1).then_some(())
    });
    assert!(fleet.cli::<Option<String>>(mark).is_some());
    let user = service(&fleet, "user", &[]);
    eventually("it is well again", || {
        fleet.cli::<Option<String>>(mark).is_none().then_some(())
    });
    drop(user);
    eventually("it is told of again", || {
        (told("user-service")[0] == 2).then_some(())
    });
}
