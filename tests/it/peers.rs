//! `benches/peers`, as far as it needs no network: what is measured is pinned, and the page shows
//! what was measured.

use std::path::{Path, PathBuf};
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const PAGE: &str = "docs/performance.md";

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(path)).unwrap()
}

fn output(command: &mut Command) -> String {
    let output = command.current_dir(ROOT).output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_version_is_pinned_and_from_whatever_registry_is_configured() {
    let listed = output(Command::new("benches/peers/run").arg("--list"));
    let listed: Vec<_> = listed.lines().filter_map(|l| l.split_once(' ')).collect();
    let names: Vec<_> = listed.iter().map(|(name, _)| *name).collect();
    for name in ["bullmq", "faststream", "celery", "sea-streamer", "apalis"] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    for (name, version) in listed {
        let exact = version
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-.".contains(c));
        assert!(exact, "{name} {version}");
    }
    for file in ["faststream.txt", "celery.txt"] {
        for line in read(format!("benches/peers/python/{file}")).lines() {
            assert!(
                line.contains("==") && !line.contains("://"),
                "{file}: {line}"
            );
        }
    }
    let lock = read("benches/peers/node/package-lock.json");
    assert!(lock.contains("\"integrity\"") && !lock.contains("\"resolved\""));
}

#[test]
fn the_page_shows_the_newest_results() {
    let files = std::fs::read_dir(Path::new(ROOT).join("docs/benchmarks")).unwrap();
    let newest = files
        .map(|file| file.unwrap().path())
        .filter(|path: &PathBuf| path.to_string_lossy().ends_with("-peers.json"))
        .max()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("page.md");
    std::fs::copy(Path::new(ROOT).join(PAGE), &copy).unwrap();
    output(Command::new("benches/peers/table.py").args([&newest, &copy]));
    assert_eq!(
        std::fs::read_to_string(&copy).unwrap(),
        read(PAGE),
        "write it with benches/peers/table.py {} {PAGE}",
        newest.display()
    );
    let listed = output(Command::new("benches/peers/run").arg("--list"));
    for version in listed
        .lines()
        .filter_map(|l| l.split_once(' '))
        .map(|(_, v)| v)
    {
        assert!(
            read(PAGE).contains(&format!(" {version} |")),
            "measure {version} again"
        );
    }
}
