//! `scripts/soak`: that it runs, that its counts add up, that its results have their figures, and
//! that the page shows those that are kept. Never how fast anything is.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::cli::run;
use crate::support::server::program;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const PAGE: &str = "docs/performance.md";

fn script(path: &str) -> Command {
    let mut command = Command::new(Path::new(ROOT).join(path));
    command.env("STREAMFLEET_REDIS_SERVER", program());
    command
}

fn newest(folder: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(folder).unwrap();
    files
        .map(|file| file.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with("-soak.json"))
        .max()
}

#[test]
fn a_short_one_misses_nothing_and_keeps_what_it_saw() {
    let folder = tempfile::tempdir().unwrap();
    // It starts what lies beside it.
    assert!(Path::new(env!("CARGO_BIN_EXE_streamfleet-router")).is_file());
    let programs = Path::new(env!("CARGO_BIN_EXE_streamfleet")).parent();
    let mut soak = script("scripts/soak");
    soak.args(["--minutes", "0.1", "--rate", "200", "--save"])
        .arg(folder.path());
    soak.arg("--bin-dir").arg(programs.unwrap());
    let text = run(soak, b"").ok();
    for words in [
        "memory of router-2",
        "memory of Redis",
        "latency, p99",
        "nothing is missing or owed",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }

    let file = newest(folder.path()).unwrap();
    let all: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(all["account"]["published"], 1_200);
    let subscribers = all["account"]["subscribers"].as_object().unwrap();
    assert_eq!(subscribers.len(), 2);
    for found in subscribers.values() {
        let count = |what: &str| found[what].as_u64().unwrap();
        assert_eq!(count("handled") + count("dead"), 1_200);
        assert!(count("dead") > 0, "one of them always fails");
        assert_eq!((count("owed"), count("lost")), (0, 0));
    }
    let strikes = all["strikes"].as_array().unwrap();
    for signal in ["SIGKILL", "SIGTERM"] {
        assert!(strikes.iter().any(|s| s["signal"] == signal), "{strikes:?}");
    }
    let samples = all["samples"].as_array().unwrap();
    assert!(samples.len() > 1);
    let sum = |what: &str| {
        samples
            .iter()
            .map(|s| s[what].as_u64().unwrap())
            .sum::<u64>()
    };
    assert!(sum("failed") > 0 && sum("handled") > 0, "{samples:?}");
    for sample in samples {
        assert_eq!(sample["rss"].as_object().unwrap().len(), 6);
        assert!(sample["rss"]["router-2"].as_u64().unwrap() > 0);
        assert!(sample["redis_memory"].is_u64() && sample["keys"].is_u64());
    }
    assert!(samples.iter().any(|s| s["latency"]["p99_ms"].is_f64()));
    let chart = std::fs::read_to_string(file.with_extension("svg")).unwrap();
    assert!(
        chart.starts_with("<svg ") && chart.contains("<polyline"),
        "{chart}"
    );

    let mut again = script("benches/soak/report.py");
    again.arg(&file);
    assert_eq!(
        run(again, b"").ok(),
        text,
        "what is kept says what was printed"
    );
    let page = folder.path().join("page.md");
    std::fs::write(&page, "a\n<!-- soak -->\n<!-- /soak -->\nb\n").unwrap();
    let mut write = script("benches/soak/report.py");
    write.arg(&file).arg(&page);
    run(write, b"").ok();
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.starts_with("a\n<!-- soak -->\n") && page.ends_with("\n<!-- /soak -->\nb\n"));
    assert!(page.contains("| keys | "), "{page}");
}

#[test]
fn the_page_shows_the_newest_results() {
    let benchmarks = Path::new(ROOT).join("docs/benchmarks");
    let page = Path::new(ROOT).join(PAGE);
    let is = std::fs::read_to_string(&page).unwrap();
    let Some(newest) = newest(&benchmarks) else {
        assert!(is.contains("<!-- soak -->\n<!-- /soak -->"), "from where?");
        return;
    };
    assert!(newest.with_extension("svg").is_file());
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("page.md");
    std::fs::copy(&page, &copy).unwrap();
    let mut write = script("benches/soak/report.py");
    write.arg(&newest).arg(&copy);
    run(write, b"").ok();
    assert_eq!(
        std::fs::read_to_string(&copy).unwrap(),
        is,
        "write it with benches/soak/report.py {} {PAGE}",
        newest.display()
    );
}

#[test]
fn wrong_arguments_are_refused() {
    for (args, why) in [
        (["--minutes", "0"], "--minutes: at least 0.1"),
        (["--rate", "0"], "--rate: at least 1"),
    ] {
        let mut soak = script("scripts/soak");
        soak.args(args);
        let said = run(soak, b"").failed(2);
        assert!(said.contains(why), "{said}");
    }
}
