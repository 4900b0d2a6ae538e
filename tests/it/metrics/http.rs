//! Whether a process is well, and where it says so.

use super::*;

#[test]
fn a_process_says_whether_it_is_well() {
    let fleet = brisk_shop(|text| text);
    let router = router(&fleet, "r");
    let analytics = service(&fleet, "analytics", &[]);
    for process in [&router, &analytics] {
        for (path, said) in [("/healthz", "alive\n"), ("/readyz", "ready\n")] {
            let told = process.ask(&format!("GET {path}"));
            assert_eq!((told.status, told.body.as_str()), (200, said), "{path}");
        }
    }
    let head = router.ask("HEAD /metrics");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(router.ask("GET /other").status, 404);
    let refused = router.ask("POST /metrics");
    assert_eq!(refused.status, 405);
    assert!(
        refused.head.contains("allow: GET, HEAD"),
        "{}",
        refused.head
    );

    // Who says nothing holds up nobody for long, and too much is not read.
    let silent: Vec<_> = (0..40)
        .map(|_| TcpStream::connect(router.address()).unwrap())
        .collect();
    assert_eq!(router.ask("GET /healthz").status, 200);
    drop(silent);
    let large = format!("GET /metrics HTTP/1.1\r\nX: {}\r\nY:", "x".repeat(100_000));
    let mut stream = TcpStream::connect(router.address()).unwrap();
    drop(stream.write_all(large.as_bytes()));
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 431");

    // A lost group is the business of whom it belongs to.
    let _: () = fleet.cli("XGROUP DESTROY user-events analytics-service");
    eventually("its group is missed", || {
        let told = analytics.ask("GET /readyz");
        (told.status == 503 && told.body.contains("streamfleet group recreate")).then_some(())
    });
    assert_eq!(router.ask("GET /readyz").status, 200);
    eventually("the router shows it", || {
        let lost =
            "streamfleet_group_lost{subscriber=\"analytics-service\",stream=\"user-events\"}";
        (router.samples()[lost] == 1.0).then_some(())
    });

    // Redis being away is no reason to restart a process.
    fleet.server.signal("STOP");
    let told = router.ask("GET /readyz");
    assert_eq!(told.status, 503, "{}", told.body);
    assert_eq!(router.ask("GET /healthz").status, 200);
    eventually("the fleet cannot be read", || {
        (router.samples()["streamfleet_fleet_up"] == 0.0).then_some(())
    });
    fleet.server.signal("CONT");
    eventually("it is ready again", || {
        (router.ask("GET /readyz").status == 200).then_some(())
    });
}

/// Its loop is frozen, and it goes on telling so.
#[test]
fn a_process_that_hangs_is_not_healthy() {
    let fleet = Fleet::new();
    let mut command = fleet.router_command("r");
    command
        .args(ANY)
        .env("STREAMFLEET_FAILPOINT", "router.decided 1 freeze");
    let router = fleet.launch(command, "r", "router started");
    fleet.publish(&[crate::support::event(serde_json::json!({}))]);
    let start = Instant::now();
    while router.ask("GET /healthz").status == 200 {
        assert!(start.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(500));
    }
    let told = router.ask("GET /healthz").body;
    // Both are on one thread; the one that was silent first is named.
    let named = ["routing", "scheduling"].map(|name| format!("no progress in {name} for 3"));
    assert!(named.iter().any(|name| told.contains(name)), "{told}");
}

#[test]
fn an_address_that_cannot_be_had_ends_the_process() {
    let fleet = Fleet::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (address, code, said) in [
        (taken.as_str(), 1, "a --metrics-address of its own"),
        // Kept for documentation: nobody has it.
        ("192.0.2.1:9464", 78, "must be an address of this machine"),
        ("9464", 2, "write HOST:PORT"),
    ] {
        let mut command = fleet.router_command("r");
        command.env("STREAMFLEET_METRICS_ADDRESS", address);
        let mut router = fleet.launch(command, "r", "");
        assert_eq!(router.exit_code(), Some(code), "{address}");
        assert!(router.log_text().contains(said), "{}", router.log_text());
    }
}
