//! docs/bad-input.md names the tests that stand behind it: each exists, and none is missing there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const TABLE: &str = include_str!("../../../docs/bad-input.md");

/// The file of a module, by its path in the table.
fn file_of(module: &[&str]) -> Option<PathBuf> {
    let (root, module) = match module {
        ["it", module @ ..] => ("tests/it", module),
        module => ("src", module),
    };
    let stem = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(root)
        .join(module.join("/"));
    let files = [stem.with_extension("rs"), stem.join("mod.rs")];
    files.into_iter().find(|file| file.exists())
}

fn is_test(source: &str, name: &str) -> bool {
    source
        .split_once(&format!("fn {name}("))
        .is_some_and(|(before, _)| {
            let mut above = before.lines().rev().take(4);
            above.any(|line| line.contains("#[test]") || line.contains("#[tokio::test"))
        })
}

#[test]
fn every_test_of_the_table_exists_and_every_hostile_test_is_in_it() {
    let named: BTreeSet<&str> = TABLE
        .lines()
        .filter(|line| line.starts_with('|'))
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(|text| text.contains("::"))
        .collect();
    for test in &named {
        let path: Vec<&str> = test.split("::").collect();
        let (name, module) = path.split_last().unwrap();
        let file = file_of(module).unwrap_or_else(|| panic!("{test}: there is no such module"));
        let source = std::fs::read_to_string(&file).unwrap();
        assert!(
            is_test(&source, name),
            "{test} is not in {}",
            file.display()
        );
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/hostile");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let module = path.file_stem().unwrap().to_string_lossy().into_owned();
        let source = std::fs::read_to_string(&path).unwrap();
        for after in source
            .split("#[test]")
            .skip(1)
            .filter(|_| module != "table")
        {
            let name = after
                .split_once("fn ")
                .unwrap()
                .1
                .split('(')
                .next()
                .unwrap();
            let test = format!("it::hostile::{module}::{name}");
            assert!(named.contains(test.as_str()), "{test} is not in the table");
        }
    }
}
