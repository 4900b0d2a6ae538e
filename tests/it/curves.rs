//! `scripts/performance`: that it runs, keeps what it measured, and that the pages show the newest
//! results. Never how fast anything is.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::server::program;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const PAGES: [&str; 2] = ["docs/performance.md", "README.md"];

fn run(command: &mut Command) -> Output {
    command
        .current_dir(ROOT)
        .env("STREAMFLEET_REDIS_SERVER", program())
        .output()
        .unwrap()
}

fn output(command: &mut Command) -> String {
    let output = run(command);
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// What was measured: files of a folder.
fn results(folder: &Path, kind: &str) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let mut found: Vec<_> = paths
        .filter(|path| path.to_string_lossy().ends_with(kind))
        .collect();
    found.sort();
    found
}

/// A copy of the pages, with what was measured written into them.
fn pages(file: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("docs/benchmarks")).unwrap();
    for page in PAGES {
        std::fs::copy(Path::new(ROOT).join(page), folder.path().join(page)).unwrap();
    }
    let write = Path::new(ROOT).join("benches/curves/page.py");
    output(Command::new(write).arg(file).arg(folder.path()));
    folder
}

fn measure(args: &[&str], folder: &Path) -> Command {
    // `streamfleet bench` starts the router that lies beside it.
    assert!(Path::new(env!("CARGO_BIN_EXE_streamfleet-router")).is_file());
    let programs = Path::new(env!("CARGO_BIN_EXE_streamfleet"))
        .parent()
        .unwrap();
    let mut command = Command::new(Path::new(ROOT).join("scripts/performance"));
    command.args(args).args(["--quick", "--events", "200"]);
    command.arg("--bin-dir").arg(programs);
    command.arg("--save").arg(folder);
    command
}

#[test]
fn every_curve_that_is_asked_for_has_its_points_beside_the_floor() {
    let folder = tempfile::tempdir().unwrap();
    let said = output(&mut measure(&["retries", "routers"], folder.path()));
    assert!(said.contains("### Routers"), "{said}");
    // What was measured before stays.
    output(&mut measure(&["recipients"], folder.path()));
    let file = results(folder.path(), "-curves.json").pop().unwrap();
    let report: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let curves = report["curves"].as_object().unwrap();
    assert_eq!(curves.len(), 3);
    for (curve, points) in [
        ("retries", &[0, 20, 200][..]),
        ("routers", &[1, 2, 4]),
        ("recipients", &[1, 2, 20, 200]),
    ] {
        assert_eq!(curves[curve]["problem"], Value::Null);
        let rows = curves[curve]["rows"].as_array().unwrap();
        let found: Vec<_> = rows.iter().map(|row| row["x"].as_u64().unwrap()).collect();
        assert_eq!(found, points, "{curve}");
        for row in rows {
            for figure in [
                "events_per_second",
                "redis_us_per_event",
                "client_us_per_event",
            ] {
                for side in ["ours", "floor"] {
                    let value = &row["figures"][figure][side]["median"];
                    assert!(value.is_number(), "{curve} {figure} {side}: {row}");
                }
            }
            assert!(row["processes"][0]["peak_rss_mb"]["max"].is_number());
        }
    }
    for fact in ["date", "cpu", "cores", "server", "version", "base"] {
        assert!(!report[fact].is_null(), "{fact}");
    }
    let pages = pages(&file);
    let page = std::fs::read_to_string(pages.path().join(PAGES[0])).unwrap();
    assert!(
        page.contains("## How cost grows") && page.contains("from the first point to the last")
    );
    assert!(page.contains("<!-- peers -->"), "it stays as it is");
    let svg = results(&pages.path().join("docs/benchmarks"), ".svg");
    let svg = std::fs::read_to_string(&svg[0]).unwrap();
    assert!(svg.starts_with("<svg ") && svg.contains("<polyline"));
    assert!(svg.contains("prefers-color-scheme: dark"));
    assert!(!svg.contains("nan") && !svg.contains("inf"), "{svg}");
}

/// What cannot be measured does not stop what can.
#[test]
fn what_fails_is_said_and_what_does_not_exist_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut broken = measure(&["routers", "workers"], folder.path());
    broken.env("STREAMFLEET_FAILPOINT", "router.routed 1 abort");
    let ran = run(&mut broken);
    let said = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{said}");
    assert!(said.contains("the router ended by itself"), "{said}");
    let file = results(folder.path(), "-curves.json").pop().unwrap();
    let report: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert!(report["curves"]["routers"]["problem"].is_string());
    assert_eq!(report["curves"]["workers"]["problem"], Value::Null);
    let unknown = run(&mut measure(&["lunch"], folder.path()));
    assert_eq!(unknown.status.code(), Some(2));
}

#[test]
fn the_pages_show_the_newest_results() {
    let folder = Path::new(ROOT).join("docs/benchmarks");
    let Some(newest) = results(&folder, "-curves.json").pop() else {
        // Nothing is claimed.
        let readme = std::fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
        assert!(readme.contains("<!-- headline -->\nNot measured yet.\n<!-- /headline -->"));
        return;
    };
    let written = pages(&newest);
    let picture = newest.with_extension("svg");
    let picture = picture.strip_prefix(ROOT).unwrap().to_str().unwrap();
    for page in PAGES.into_iter().chain([picture]) {
        assert_eq!(
            std::fs::read_to_string(written.path().join(page)).unwrap(),
            std::fs::read_to_string(Path::new(ROOT).join(page)).unwrap(),
            "{page}: write it with benches/curves/page.py {} .",
            newest.display()
        );
    }
}
