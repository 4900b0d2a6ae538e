//! What there is, and what it came to, as tables.

use std::path::Path;
use std::time::SystemTime;

use comfy_table::{CellAlignment, Table, presets};

use crate::Fault;
use crate::harness::run::Report;

/// Prints what there is to strike with.
pub fn print_catalogue(faults: &[Fault]) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["FAULT", "WHAT STRIKES"]);
    for fault in faults {
        table.add_row([fault.name, fault.about]);
    }
    println!("{table}");
}

/// Prints those that were written since `began`.
pub fn print(reports: &Path, began: SystemTime) {
    let Ok(folder) = std::fs::read_dir(reports) else {
        return;
    };
    let fresh = folder.filter_map(Result::ok).filter(|file| {
        file.metadata()
            .and_then(|m| m.modified())
            .is_ok_and(|at| at >= began)
    });
    let mut fresh: Vec<Report> = fresh
        .filter_map(|file| serde_json::from_slice(&std::fs::read(file.path()).ok()?).ok())
        .collect();
    fresh.sort_by(|a, b| a.fault.cmp(&b.fault));
    if fresh.is_empty() {
        return;
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "FAULT",
        "STRIKES",
        "PUBLISHED",
        "HANDLED",
        "DEAD",
        "LOST",
        "FORGOTTEN",
        "DUPLICATED",
        "STUCK",
        "CHARGED",
        "RECOVERY P50",
        "P99",
    ]);
    for report in &fresh {
        let account = &report.account;
        let ms = |time: Option<u64>| time.map_or("-".to_owned(), |ms| format!("{ms} ms"));
        table.add_row([
            report.fault.clone(),
            report.strikes.to_string(),
            account.published.to_string(),
            account.handled.to_string(),
            account.dead.to_string(),
            account.lost.to_string(),
            account.forgotten.to_string(),
            account.duplicated.to_string(),
            account.stuck.to_string(),
            account.charged.to_string(),
            ms(report.recovery_p50_ms),
            ms(report.recovery_p99_ms),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}\n");
}
