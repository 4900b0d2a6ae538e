//! `docs/handlers.md` is followed as it stands: a project of one's own is made of the files that it
//! shows, its tests run, and its worker under `streamfleet dev`. The same files are
//! `examples/template`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::readme::{Reader, Step, programs, steps};
use crate::support::server::program;

const PAGE: &str = include_str!("../../docs/handlers.md");
const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Where the page has the library, and where the template has it.
const LIBRARY: [&str; 2] = ["path = \"../streamfleet\"", "path = \"../..\""];

/// The files that the page shows: a line with the name alone, and a block.
fn files() -> BTreeMap<&'static str, String> {
    let mut files = BTreeMap::new();
    let mut name = None;
    let mut lines = PAGE.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("```") {
            let block = lines.by_ref().take_while(|line| *line != "```");
            let text: String = block.map(|line| format!("{line}\n")).collect();
            files.extend(name.take().map(|name| (name, text)));
        } else if !line.is_empty() {
            name = line.strip_prefix('`').and_then(|l| l.strip_suffix("`:"));
        }
    }
    files
}

/// All files below a folder, by their paths in it.
fn below(folder: &Path, at: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder.join(at)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        // What Cargo makes where somebody builds it in its place.
        if ["target", "Cargo.lock"].contains(&&*name) {
            continue;
        }
        let path = Path::new(at).join(name).to_str().unwrap().to_owned();
        match entry.file_type().unwrap().is_dir() {
            true => below(folder, &path, found),
            false => found.push(path),
        }
    }
}

#[test]
fn the_page_and_the_template_are_the_same_text() {
    let files = files();
    let template = Path::new(ROOT).join("examples/template");
    let mut there = Vec::new();
    below(&template, "", &mut there);
    there.sort();
    assert_eq!(there, files.keys().copied().collect::<Vec<_>>());
    for (name, text) in files {
        let text = text.replace(LIBRARY[0], LIBRARY[1]);
        let theirs = std::fs::read_to_string(template.join(name)).unwrap();
        assert_eq!(theirs, text, "{name}");
    }
}

/// What Cargo builds for the project it shares with what it has built for this test: the same
/// versions, settings and features of all that it depends on.
fn share_what_is_built(project: &Path) {
    let root = Path::new(ROOT);
    std::fs::copy(root.join("Cargo.lock"), project.join("Cargo.lock")).unwrap();
    std::os::unix::fs::symlink(programs().parent().unwrap(), project.join("target")).unwrap();
    let here = format!("path = \"{ROOT}\"");
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let section = |name: &str| {
        let (_, rest) = manifest.split_once(name).unwrap();
        let end = rest.find("\n[").map_or(rest.len(), |at| at + 1);
        format!("\n{name}{}", &rest[..end])
    };
    let theirs = project.join("Cargo.toml");
    let text = std::fs::read_to_string(&theirs).unwrap();
    assert!(text.contains(LIBRARY[0]), "{text}");
    let shared = section("[dev-dependencies]\n").replace("path = \".\"", &here);
    let text = text.replace(LIBRARY[0], &here) + &shared + &section("[profile.dev]\n");
    std::fs::write(theirs, text).unwrap();
}

/// A folder with `streamfleet` and the router, as `cargo install` makes one; and with the server
/// that is tested, if it is another than the one in PATH.
fn installed() -> tempfile::TempDir {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for name in ["streamfleet", "streamfleet-router"] {
        let (built, here) = (programs().join(name), folder.path().join(name));
        if std::fs::hard_link(&built, &here).is_err() {
            std::fs::copy(built, here).unwrap();
        }
    }
    let server = program();
    if server.is_absolute() {
        std::os::unix::fs::symlink(server, folder.path().join("redis-server")).unwrap();
    }
    folder
}

#[test]
fn a_worker_is_written_tested_and_run_as_the_page_says() {
    let folder = tempfile::Builder::new()
        .prefix("streamfleet-handlers-")
        .tempdir()
        .unwrap();
    let installed = installed();
    let mut reader = Reader::of("docs/handlers.md", folder.path(), installed.path());
    // All that is needed was fetched for this test itself.
    reader
        .bash
        .run("export CARGO_NET_OFFLINE=true; unset CARGO_TARGET_DIR");
    for step in steps(PAGE) {
        reader.does(&step);
        if matches!(&step, Step::Type(command, _) if command == "cd points") {
            let project: PathBuf = folder.path().join("points");
            for (name, text) in files() {
                let file = project.join(name);
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(file, text).unwrap();
            }
            share_what_is_built(&project);
        }
    }
    reader.ends();
}
