//! The Debian package, built from the programs under test and handed to dpkg in a root of its own;
//! `scripts/systemd-trial` does the same in a booted system, where its programs run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The folder of the programs under test.
fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_streamfleet"))
        .parent()
        .unwrap()
}

/// Runs it to its end, and answers what it said.
#[track_caller]
fn done(command: &mut Command) -> String {
    let ran = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e} (apt-get install dpkg systemd binutils)"));
    let (out, err) = (
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr),
    );
    assert!(
        ran.status.success(),
        "{command:?}: {}\n{out}\n{err}",
        ran.status
    );
    out.into_owned()
}

fn script(name: &str) -> Command {
    Command::new(format!("{ROOT}/scripts/{name}"))
}

/// A machine's root with nothing in it but what dpkg needs.
struct Machine {
    dir: TempDir,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in [
            "var/lib/dpkg/info",
            "var/lib/dpkg/updates",
            "var/log",
            "etc/systemd/system",
        ] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        for file in ["status", "available"] {
            fs::write(dir.path().join("var/lib/dpkg").join(file), "").unwrap();
        }
        Self { dir }
    }

    /// Nothing here needs root, and the scripts of the package run outside of the new root, with its
    /// path in DPKG_ROOT.
    fn dpkg(&self, args: &[&str]) {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg(format!("--root={}", self.dir.path().display()))
            .args([
                "--force-not-root",
                "--force-script-chrootless",
                "--force-depends",
                "--force-bad-path",
            ])
            .arg(format!("--log={}", self.path("var/log/dpkg.log").display()))
            .args(args);
        done(&mut dpkg);
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn has(&self, path: &str) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }
}

fn package(out: &Path, version: &str) -> String {
    let mut build = script("deb");
    build.args(["--fast", "--version", version, "--from"]);
    build.arg(programs()).arg("--out").arg(out);
    done(&mut build).trim().to_owned()
}

#[test]
fn the_package_installs_upgrades_keeps_what_was_edited_and_purges() {
    let built = tempfile::tempdir().unwrap();
    let machine = Machine::new();
    let first = package(built.path(), "1.0");
    machine.dpkg(&["--install", &first]);
    let manual = |name: &str| format!("usr/share/man/man1/{name}.1.gz");
    for file in [
        "usr/bin/streamfleet-router",
        "usr/lib/streamfleet/inventory-worker",
        "usr/lib/systemd/system/streamfleet.target",
        "usr/lib/systemd/system/streamfleet-worker@.service",
        "usr/share/bash-completion/completions/streamfleet",
        "usr/share/zsh/vendor-completions/_streamfleet",
        "usr/share/fish/vendor_completions.d/streamfleet.fish",
        "usr/share/doc/streamfleet/copyright",
        "usr/share/streamfleet/scripts/redis/make-users",
        "usr/share/streamfleet/scripts/prometheus/alerts.yml",
        "etc/streamfleet/schemas/Order.Created.v1.json",
        "etc/credstore",
        &manual("streamfleet"),
        &manual("streamfleet-router"),
        &manual("streamfleet-check"),
    ] {
        assert!(machine.has(file), "{file}");
    }
    assert!(
        machine.read("etc/passwd").contains("streamfleet:"),
        "the user was not made"
    );

    // The pages lead to each other where they lie, and to nothing that only the sources have.
    let (links, dangling) = crate::pages::dangling(&machine.path("usr/share/doc/streamfleet"));
    assert!(links > 100, "{links}");
    assert!(dangling.is_empty(), "point at nothing:\n{dangling}");

    // What was installed works from where it is.
    let installed = |args: &[&str]| {
        let mut command = Command::new(machine.path("usr/bin/streamfleet"));
        done(
            command
                .env(
                    "STREAMFLEET_CONFIG",
                    machine.path("etc/streamfleet/routing.yaml"),
                )
                .args(args),
        )
    };
    assert!(installed(&["check"]).contains("ok: 4 streams"));
    let help = installed(&["instance", "inventory@1", "--", "--help"]);
    assert!(help.contains("inventory-service"), "{help}");

    // An upgrade keeps edited files, and asks nobody.
    let edited = "# edited by hand\n".to_owned() + &machine.read("etc/streamfleet/routing.yaml");
    fs::write(machine.path("etc/streamfleet/routing.yaml"), &edited).unwrap();
    fs::write(
        machine.path("etc/streamfleet/schemas/Own.Type.v1.json"),
        "{}",
    )
    .unwrap();
    fs::remove_file(&first).unwrap();
    machine.dpkg(&["--install", &package(built.path(), "1.1")]);
    assert_eq!(machine.read("etc/streamfleet/routing.yaml"), edited);
    assert!(machine.read("var/lib/dpkg/status").contains("Version: 1.1"));

    machine.dpkg(&["--remove", "streamfleet"]);
    assert!(!machine.has("usr/bin/streamfleet"));
    assert_eq!(
        machine.read("etc/streamfleet/routing.yaml"),
        edited,
        "configuration stays until it is purged"
    );

    fs::create_dir_all(machine.path("var/lib/streamfleet/outbox")).unwrap();
    fs::write(
        machine.path("etc/credstore/streamfleet.redis-password"),
        "secret",
    )
    .unwrap();
    fs::write(machine.path("etc/credstore/other"), "of another").unwrap();
    machine.dpkg(&["--purge", "streamfleet"]);
    for gone in [
        "etc/streamfleet",
        "var/lib/streamfleet",
        "etc/credstore/streamfleet.redis-password",
        "usr/lib/streamfleet",
    ] {
        assert!(!machine.has(gone), "{gone} is left");
    }
    assert!(machine.has("etc/credstore/other"), "not ours");
}

#[test]
fn without_a_package_the_same_is_installed_below_a_prefix_and_taken_away_again() {
    let dir = tempfile::tempdir().unwrap();
    let root = |path: &str| dir.path().join(path);
    let install = |args: &[&str]| {
        let mut command = script("install");
        command
            .env("DESTDIR", dir.path())
            .args(["--prefix", "/opt/fleet"]);
        done(command.args(args));
    };
    let from = programs().display().to_string();
    install(&["--from", &from]);
    let unit = fs::read_to_string(root("etc/systemd/system/streamfleet-worker@.service")).unwrap();
    assert!(
        unit.contains("ExecStart=/opt/fleet/bin/streamfleet instance"),
        "{unit}"
    );
    assert!(!unit.contains("/usr/bin/"), "{unit}");
    let mut help = Command::new(root("opt/fleet/bin/streamfleet"));
    help.env("STREAMFLEET_CONFIG", root("etc/streamfleet/routing.yaml"));
    let help = done(help.args(["instance", "cache@1", "--", "--help"]));
    assert!(
        help.contains("cache-service"),
        "found in lib/streamfleet: {help}"
    );

    // Again, over what was edited: that stays, and what is new lies beside it.
    fs::write(root("etc/streamfleet/routing.yaml"), "edited").unwrap();
    install(&["--from", &from]);
    assert_eq!(
        fs::read_to_string(root("etc/streamfleet/routing.yaml")).unwrap(),
        "edited"
    );
    assert!(root("etc/streamfleet/routing.yaml.new").exists());

    install(&["--uninstall"]);
    let left: Vec<_> = files(dir.path())
        .into_iter()
        .filter(|f| !f.starts_with(root("etc/streamfleet")))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(root("etc/streamfleet/routing.yaml").exists());
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}
