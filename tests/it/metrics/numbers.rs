//! What is shown is what happened.

use super::*;

/// The shop on a day on which its payment gateway takes calls and never answers.
#[test]
fn what_is_shown_is_what_happened_and_everything_that_names_a_metric_is_right() {
    let fleet = brisk_shop(|text| {
        let text = text.replace("no_worker: 1m", "no_worker: 24h");
        text + "  payment-service: { timeout: 200ms }\n"
    });
    let gateway = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = format!("http://{}", gateway.local_addr().unwrap());
    let router = router(&fleet, "r");
    let analytics = service(&fleet, "analytics", &[]);
    let inventory = service(&fleet, "inventory", &[]);
    let payment = service(&fleet, "payment", &[("STREAMFLEET_GATEWAY", &gateway)]);
    let day = Path::new(ROOT).join("examples/day.ndjson");
    for _ in 0..2 {
        let day = day.to_str().unwrap();
        fleet.ask(&["publish", "--file", day]).ok();
    }
    let unknown = crate::support::fleet::typed("Nobody.Knows", serde_json::json!({}));
    fleet.publish(&[unknown]);
    eventually("everything is handled or given up", || {
        let router = router.samples();
        let done = |process: &Process, outcome| {
            let samples = process.samples();
            let with = |(name, _): &(&String, &f64)| {
                name.starts_with("streamfleet_deliveries_total") && name.contains(outcome)
            };
            samples
                .iter()
                .filter(with)
                .map(|(_, n)| *n as u64)
                .sum::<u64>()
        };
        (router["streamfleet_router_events_total{outcome=\"routed\"}"] == 9.0
            && router["streamfleet_router_events_total{outcome=\"duplicate\"}"] == 7.0
            && router["streamfleet_dead_letters_kept{subscriber=\"router\"}"] == 1.0
            && done(&analytics, "handled") == 8
            && done(&inventory, "handled") == 3
            && done(&payment, "dead") == 2)
            .then_some(())
    });

    // The numbers.
    let of_router = router.samples();
    for (name, value) in [
        ("build_info{version=\"0.1.0\",role=\"router\"}", 1.0),
        ("fleet_up", 1.0),
        ("router_events_total{outcome=\"refused\"}", 1.0),
        ("refused_events_total{reason=\"unknown_type\"}", 1.0),
        ("refused_events_total{reason=\"schema_violation\"}", 0.0),
        ("router_batch_entries_sum", 17.0),
        ("routing_latency_seconds_count", 17.0),
        ("inbox_entries", 0.0),
        ("stream_entries{stream=\"order-events\"}", 5.0),
        ("live_workers{subscriber=\"router\"}", 1.0),
        ("live_workers{subscriber=\"analytics-service\"}", 1.0),
        ("live_workers{subscriber=\"user-service\"}", 0.0),
        ("subscribed{subscriber=\"user-service\"}", 1.0),
        (
            "backlog_entries{subscriber=\"user-service\",stream=\"user-events\"}",
            2.0,
        ),
        (
            "lost_deliveries_total{subscriber=\"analytics-service\"}",
            0.0,
        ),
        (
            "breaker_state{subscriber=\"payment-service\",state=\"closed\"}",
            1.0,
        ),
        ("paused{subscriber=\"payment-service\"}", 0.0),
        ("config_generation", 1.0),
        ("fleet_config_generation", 1.0),
    ] {
        assert_eq!(of_router[&format!("streamfleet_{name}")], value, "{name}");
    }
    assert!(of_router["streamfleet_redis_exchange_duration_seconds_count"] > 10.0);
    let check = |process: &Process, subscriber: &str, expected: &[(&str, &str, f64)]| {
        let samples = process.samples();
        for (name, label, value) in expected {
            let label = match *label {
                "" => String::new(),
                label => format!(",{label}"),
            };
            let name = format!("streamfleet_{name}{{subscriber=\"{subscriber}\"{label}}}");
            let found = samples.get(&name);
            assert_eq!(found, Some(value), "{name}");
        }
    };
    check(
        &payment,
        "payment-service",
        &[
            ("deliveries_total", "outcome=\"retried\"", 2.0),
            ("deliveries_total", "outcome=\"dead\"", 2.0),
            ("deliveries_total", "outcome=\"handled\"", 0.0),
            ("retries_total", "attempt=\"1\"", 1.0),
            ("retries_total", "attempt=\"2\"", 1.0),
            ("retries_total", "attempt=\"3\"", 0.0),
            ("dead_letters_total", "reason=\"exhausted\"", 1.0),
            ("dead_letters_total", "reason=\"rejected\"", 1.0),
            ("handler_duration_seconds_count", "result=\"failed\"", 4.0),
        ],
    );
    check(
        &analytics,
        "analytics-service",
        &[
            ("deliveries_total", "outcome=\"dead\"", 1.0),
            ("delivery_latency_seconds_count", "", 8.0),
            ("handler_duration_seconds_count", "result=\"ok\"", 8.0),
            ("published_events_total", "result=\"ok\"", 0.0),
        ],
    );
    check(
        &inventory,
        "inventory-service",
        &[("published_events_total", "result=\"ok\"", 2.0)],
    );
    let of_inventory = inventory.samples();
    let appends =
        "streamfleet_store_append_duration_seconds_count{subscriber=\"inventory-service\"}";
    assert!(of_inventory[appends] >= 2.0);

    // Its form, in both formats.
    let pages = [router.page(), inventory.page()];
    for page in &pages {
        assert_eq!(promtool(&["check", "metrics"], page), "");
        for id in ["0000-7000-8000", "Order.Created", "TEA-100"] {
            assert!(!page.contains(id), "{id}");
        }
    }
    let open = router.ask(&format!(
        "GET /metrics HTTP/1.1\r\nAccept: {OPENMETRICS}\r\nX:"
    ));
    assert!(
        open.head
            .contains("content-type: application/openmetrics-text; version=1.0.0")
    );
    assert!(open.body.ends_with("\n# EOF\n"));
    let total = |name: String| name.trim_end_matches("_total").replace("_info", "");
    let plain: BTreeSet<_> = names(&pages[0]).into_iter().map(total).collect();
    assert_eq!(names(&open.body), plain);

    // Who names metrics names these.
    let shown: BTreeSet<String> = pages.iter().flat_map(|page| names(page)).collect();
    let rows = METRICS
        .lines()
        .filter_map(|line| line.strip_prefix("| `streamfleet_"));
    let rows: Vec<_> = rows.map(|row| row.split_once('`').unwrap().0).collect();
    let documented: BTreeSet<_> = rows
        .iter()
        .map(|name| format!("streamfleet_{name}"))
        .collect();
    assert_eq!(rows.len(), documented.len(), "each is explained once");
    assert_eq!(documented, shown, "docs/metrics.md");
    for (file, text) in [
        ("alerts.yml", ALERTS),
        ("alerts_test.yml", ALERTS_TEST),
        ("dashboard.json", DASHBOARD),
        ("docs/metrics.md", METRICS),
        ("docs/operations.md", OPERATIONS),
    ] {
        let unknown: Vec<_> = mentioned(text).difference(&shown).cloned().collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}");
    }
    let on_dashboard = mentioned(DASHBOARD);
    let missing: Vec<_> = shown.difference(&on_dashboard).collect();
    assert!(
        missing.is_empty(),
        "the dashboard does not show {missing:?}"
    );
}
