//! The mutants (`tests/mutants`, run by `scripts/mutants`) fit the tree: each patch applies, and
//! the tests that are to catch it exist. That they do catch it, only running them shows.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The patches, by path.
fn patches() -> Vec<(PathBuf, String)> {
    let files = std::fs::read_dir(Path::new(ROOT).join("tests/mutants")).unwrap();
    let mut patches: Vec<_> = files
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "patch"))
        .map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()))
        .collect();
    patches.sort();
    patches
}

fn fields<'a>(patch: &'a str, name: &str) -> Vec<&'a str> {
    let header = patch.lines().take_while(|line| !line.starts_with("--- "));
    header.filter_map(|line| line.strip_prefix(name)).collect()
}

/// The file of each hunk, and the lines that it expects there.
fn hunks(patch: &str) -> Vec<(&str, String)> {
    let (mut hunks, mut file): (Vec<(&str, String)>, _) = (Vec::new(), "");
    for line in patch.lines().skip_while(|line| !line.starts_with("--- ")) {
        if let Some(name) = line.strip_prefix("--- a/") {
            file = name;
        } else if line.starts_with("@@ ") {
            hunks.push((file, String::new()));
        } else if let (Some(kept), Some((_, old))) =
            (line.strip_prefix([' ', '-']), hunks.last_mut())
        {
            *old += &format!("{kept}\n");
        }
    }
    hunks
}

/// One place, so that a patch that has drifted is never applied somewhere else.
#[test]
fn each_patch_applies_to_exactly_one_place() {
    for (path, patch) in patches() {
        let hunks = hunks(&patch);
        assert!(!hunks.is_empty(), "{}", path.display());
        for (file, old) in hunks {
            assert!(file.starts_with("src/"), "{}: {file}", path.display());
            let text = std::fs::read_to_string(Path::new(ROOT).join(file)).unwrap();
            let found = text.matches(&old).count();
            assert_eq!(found, 1, "{} looks in {file} for\n{old}", path.display());
        }
    }
}

#[test]
fn each_patch_says_what_it_breaks_and_names_tests_that_exist() {
    let list = Command::new(std::env::current_exe().unwrap())
        .args(["--list", "--format", "terse"])
        .output()
        .unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let tests: BTreeSet<_> = list
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .collect();
    for (path, patch) in patches() {
        assert_eq!(fields(&patch, "Breaks: ").len(), 1, "{}", path.display());
        let named = fields(&patch, "Caught-by: ");
        assert!(!named.is_empty(), "{}", path.display());
        for test in named {
            let exists = match test.split_once("::tests::") {
                Some((module, name)) => is_unit_test(module, name),
                None => tests.contains(test),
            };
            assert!(exists, "{}: there is no test {test}", path.display());
        }
    }
}

/// Whether a module of the library has a test of that name.
fn is_unit_test(module: &str, name: &str) -> bool {
    let module = module.replace("::", "/");
    let files = [".rs", "/mod.rs", "/tests.rs"].map(|end| format!("src/{module}{end}"));
    files.iter().any(|file| {
        let text = std::fs::read_to_string(Path::new(ROOT).join(file));
        text.is_ok_and(|text| text.contains(&format!("fn {name}()")))
    })
}
