//! `streamfleet completions` and `streamfleet man`.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::Fleet;
use crate::support::cli::{run, streamfleet};

fn complete(fleet: &Fleet, words: &[&str]) -> Vec<String> {
    let args = [&["complete", "--"], words].concat();
    let answer = fleet.ask(&args).ok();
    let word = |line: &str| line.split('\t').next().unwrap().to_owned();
    answer.lines().map(word).collect()
}

#[test]
fn names_are_those_of_the_file_and_of_redis() {
    let fleet = Fleet::new();
    assert_eq!(
        complete(&fleet, &["pause", ""]),
        ["other-service", "probe-service"]
    );
    assert_eq!(complete(&fleet, &["pause", "o"]), ["other-service"]);
    assert_eq!(
        complete(&fleet, &["dead", "list", "--subscriber=r"]),
        ["--subscriber=router"]
    );
    assert_eq!(complete(&fleet, &["publish", "More."]), ["More.Happened"]);
    // A group that routing.yaml names no more is still to be retired.
    let _: u64 = fleet.cli("HSET fleet group:old-events:old-service 1000:0-0");
    assert_eq!(
        complete(&fleet, &["group", "retire", "ol"]),
        ["old-service"]
    );
    assert_eq!(
        complete(&fleet, &["group", "retire", "old-service", ""]),
        ["more-events", "old-events", "test-events"]
    );
}

/// Somebody waits at a prompt: what cannot be asked is left out, and soon.
#[test]
fn a_redis_that_is_away_or_hangs_costs_its_names_and_no_time() {
    let fleet = Fleet::new();
    fleet.server.signal("STOP");
    let since = Instant::now();
    assert_eq!(
        complete(&fleet, &["pause", ""]),
        ["other-service", "probe-service"]
    );
    assert!(since.elapsed() < Duration::from_secs(5));
    fleet.server.signal("CONT");
    fleet.server.kill();
    assert_eq!(
        complete(&fleet, &["pause", ""]),
        ["other-service", "probe-service"]
    );
    std::fs::write(fleet.config(), "no: routing").unwrap();
    assert!(complete(&fleet, &["pause", ""]).is_empty());
}

/// What was typed says which configuration and which Redis, as whom; then the environment does.
#[test]
fn the_words_say_whom_to_ask() {
    let (fleet, other) = (Fleet::new(), Fleet::new());
    let _: u64 = other.cli("HSET fleet group:old-events:old-service 1000:0-0");
    let (url, away) = (other.url(), "unix:///nowhere");
    let asked = |words: &[&str]| complete(&fleet, &[words, &["pause", "ol"]].concat());
    assert!(asked(&[]).is_empty());
    assert_eq!(asked(&["--redis-url", &url]), ["old-service"]);
    assert!(asked(&["--redis-url", away]).is_empty());
    // As another user, with a password from a file.
    let _: () = other.cli("ACL SETUSER fleet on >hunter2 ~* &* +@all");
    let _: () = other.cli("ACL SETUSER default off");
    let password = fleet.dir.path().join("password");
    std::fs::write(&password, "hunter2").unwrap();
    let password = password.to_str().unwrap();
    let user = ["--redis-url", &url, "--redis-username", "fleet"];
    assert!(asked(&user).is_empty(), "no password");
    let file = format!("--redis-password-file={password}");
    assert_eq!(asked(&[&user[..], &[&file]].concat()), ["old-service"]);
    // (bash breaks words at colons and equals signs.)
    let broken = url.replace(':', " : ");
    let broken: Vec<_> = broken.split(' ').collect();
    let broken = [&["--redis-url", "="], &broken[..], &user[2..], &[&file]].concat();
    assert_eq!(asked(&broken), ["old-service"]);
    // Another file.
    let text = std::fs::read_to_string(fleet.config()).unwrap();
    let elsewhere = fleet.dir.path().join("elsewhere.yaml");
    let elsewhere = elsewhere.to_str().unwrap();
    std::fs::write(elsewhere, text.replace("other-service", "ola-service")).unwrap();
    assert_eq!(asked(&["--config", elsewhere]), ["ola-service"]);
    // What the command would refuse asks nobody.
    assert!(asked(&["--redis-url", "redis://u:hunter2@127.0.0.1"]).is_empty());
}

/// A file can be a pipe to which nobody writes.
#[test]
fn a_file_that_is_never_read_to_its_end_costs_no_time() {
    let fleet = Fleet::new();
    let pipe = fleet.dir.path().join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let pipe = pipe.to_str().unwrap();
    let since = Instant::now();
    let names = ["other-service", "probe-service"];
    let words = ["pause", "--redis-password-file", pipe, ""];
    assert_eq!(complete(&fleet, &words), names);
    assert!(complete(&fleet, &["pause", "--config", pipe, ""]).is_empty());
    assert!(since.elapsed() < Duration::from_secs(10));
}

/// The script in a real bash: what Tab would offer.
#[test]
fn bash_offers_what_the_command_says() {
    let fleet = Fleet::new();
    let script = fleet.ask(&["completions", "bash"]).ok();
    let program = env!("CARGO_BIN_EXE_streamfleet");
    let offered = |words: &str| {
        let typed = format!(
            "{script}\nCOMP_WORDS=({program} {words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))\n\
             _streamfleet; printf '%s\\n' \"${{COMPREPLY[@]}}\"\n\
             complete -p streamfleet >/dev/null"
        );
        let mut bash = Command::new("bash");
        bash.args(["--noprofile", "--norc", "-c", &typed])
            .current_dir(fleet.dir.path())
            .env("STREAMFLEET_CONFIG", fleet.config())
            .env("STREAMFLEET_REDIS_URL", fleet.url())
            .stdin(Stdio::null());
        let ran = run(bash, b"");
        assert_eq!(ran.err, "");
        ran.ok().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(offered("pau"), ["pause"]);
    assert_eq!(offered("pause pr"), ["probe-service"]);
    assert_eq!(offered("status --output = js"), ["json", "jsonl"]);
    assert_eq!(offered("check --config routing.y"), ["routing.yaml"]);
}

#[test]
fn every_command_has_a_manual_page_that_man_reads() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("man1");
    let said = run(streamfleet(&["man", "--dir", dir.to_str().unwrap()]), b"").ok();
    assert!(said.contains("pages into"), "{said}");
    for page in [
        "streamfleet.1",
        "streamfleet-dead-list.1",
        "streamfleet-router.1",
        "streamfleet-worker.1",
    ] {
        let text = std::fs::read_to_string(dir.join(page)).unwrap();
        assert!(
            text.contains(".SH NAME") && text.contains("EXIT STATUS"),
            "{page}: {text}"
        );
    }
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let said = run(streamfleet(&["man", "--dir", file.to_str().unwrap()]), b"").failed(1);
    assert!(said.contains("file: "), "{said}");
    let asked = run(streamfleet(&["completions", "tcsh"]), b"").failed(2);
    assert!(asked.contains("bash, zsh, fish"), "{asked}");
}
