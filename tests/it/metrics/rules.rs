//! The alert rules and the dashboard.

use super::*;

#[test]
fn every_alert_is_tested_and_says_what_to_do() {
    promtool(&["check", "rules", "scripts/prometheus/alerts.yml"], "");
    promtool(&["test", "rules", "scripts/prometheus/alerts_test.yml"], "");
    let alerts = ALERTS
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let alerts: Vec<_> = alerts.collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in &alerts {
        let fires = ALERTS_TEST.split("alertname: ").any(|part| {
            part.starts_with(alert)
                && part
                    .split("alertname")
                    .next()
                    .unwrap()
                    .contains("exp_labels")
        });
        assert!(fires, "{alert} never fires in alerts_test.yml");
    }
    let section = OPERATIONS.split("\n## Alerts\n").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let explained: Vec<_> = section
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .collect();
    assert_eq!(explained, alerts, "docs/operations.md");
    for part in section.split("\n### ").skip(1) {
        assert!(part.contains("```sh\n"), "no command: {part}");
    }
}

#[test]
fn the_dashboard_asks_what_prometheus_understands() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert!(
        variables
            .iter()
            .any(|v| v["type"] == "datasource" && v["name"] == "datasource")
    );
    let mut rules = String::from("groups:\n- name: dashboard\n  rules:\n");
    let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].to_string()), "{}", panel["id"]);
        assert!(
            places.insert(panel["gridPos"].to_string()),
            "{}",
            panel["title"]
        );
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert_eq!(target["datasource"]["uid"], "${datasource}");
            let expr = target["expr"].as_str().unwrap();
            let expr = expr
                .replace("$__rate_interval", "5m")
                .replace("$subscriber", ".*");
            let record = format!(
                "panel:{}:{}",
                panel["id"],
                target["refId"].as_str().unwrap()
            );
            rules += &format!("  - record: {record}\n    expr: {}\n", Value::String(expr));
        }
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rules).unwrap();
    promtool(&["check", "rules", file.path().to_str().unwrap()], "");
}
