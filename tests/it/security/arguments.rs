//! How a process is told its password: by a file, a credential or its environment, and by no
//! argument.

use std::path::Path;
use std::process::Command;

use crate::support::Fleet;
use crate::support::cli::{Ran, run, streamfleet};

const FILE: &str = "STREAMFLEET_REDIS_PASSWORD_FILE";

/// A fleet whose Redis takes nobody without the password `hunter2`, but the tests' own connection.
fn guarded() -> Fleet {
    let fleet = Fleet::new();
    let _: () = fleet.cli("ACL SETUSER fleet on >hunter2 ~* &* +@all");
    fleet
}

fn put(fleet: &Fleet, name: &str, content: &str) -> String {
    let path = fleet.dir.path().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, content).unwrap();
    path.display().to_string()
}

fn status(fleet: &Fleet, variables: &[(&str, &str)]) -> Ran {
    let mut command = streamfleet(&["status"]);
    command.env_remove("CREDENTIALS_DIRECTORY");
    command.env("STREAMFLEET_CONFIG", fleet.config());
    command.env("STREAMFLEET_REDIS_URL", fleet.url());
    command.envs(variables.iter().copied());
    run(command, b"")
}

fn who(fleet: &Fleet) -> Vec<String> {
    let log: Vec<Vec<redis::Value>> = fleet.cli("ACL LOG");
    let _: () = fleet.cli("ACL LOG RESET");
    log.into_iter()
        .flatten()
        .map(|value| format!("{value:?}"))
        .filter(|text| text.contains("fleet"))
        .collect()
}

#[test]
fn a_password_in_an_argument_is_refused() {
    let fleet = Fleet::new();
    for url in [
        "redis://fleet:hunter2@127.0.0.1:9",
        "unix:///nowhere?user=fleet&pass=hunter2",
        "redis+cluster://fleet:hunter2@127.0.0.1:9",
    ] {
        for program in [
            env!("CARGO_BIN_EXE_streamfleet-router"),
            env!("CARGO_BIN_EXE_cache-worker"),
            env!("CARGO_BIN_EXE_streamfleet"),
        ] {
            let mut command = Command::new(program);
            if program.ends_with("streamfleet") {
                command.arg("status");
            }
            command.env("STREAMFLEET_CONFIG", fleet.config());
            command.args(["--redis-url", url]);
            let said = run(command, b"").failed(2);
            assert!(said.contains(FILE) && !said.contains("hunter2"), "{said}");
        }
    }
    let bench = streamfleet(&["bench", "--redis-url", "redis://:hunter2@127.0.0.1:9"]);
    let said = run(bench, b"").failed(2);
    assert!(said.contains(FILE) && !said.contains("hunter2"), "{said}");
}

#[test]
fn a_password_comes_from_a_file_or_a_credential() {
    let fleet = guarded();
    let file = put(&fleet, "password", "hunter2\n");
    let credential = put(&fleet, "credentials/redis-password", "hunter2");
    let folder = Path::new(&credential).parent().unwrap().to_str().unwrap();
    let user = ("STREAMFLEET_REDIS_USERNAME", "fleet");
    let credentials = ("CREDENTIALS_DIRECTORY", folder);

    status(&fleet, &[user, (FILE, &file)]).ok();
    status(&fleet, &[user, credentials]).ok();
    let by_url = format!("{}?user=fleet&pass=hunter2", fleet.url());
    status(&fleet, &[("STREAMFLEET_REDIS_URL", &by_url)]).ok();
    assert_eq!(who(&fleet), [""; 0], "nothing was refused to anybody");

    // The file comes before the credential, and none is none.
    let wrong = put(&fleet, "wrong", "hunter3");
    let said = status(&fleet, &[user, credentials, (FILE, &wrong)]).failed(78);
    assert!(
        said.contains("The user or the password is not accepted"),
        "{said}"
    );
    status(&fleet, &[user, credentials, (FILE, "")]).ok();
    let mut none = streamfleet(&["status", "--redis-password-file", ""]);
    none.env("STREAMFLEET_CONFIG", fleet.config());
    none.env("STREAMFLEET_REDIS_URL", fleet.url());
    none.envs([user, credentials]);
    let said = run(none, b"").failed(78);
    assert!(said.contains("but no password"), "{said}");
    let said = status(&fleet, &[user, (FILE, "/nowhere")]).failed(78);
    assert!(said.contains("/nowhere: No such file"), "{said}");
    let both = [("STREAMFLEET_REDIS_URL", &*by_url), (FILE, &file)];
    let said = status(&fleet, &both).failed(78);
    assert!(
        said.contains("two passwords") && !said.contains("hunter"),
        "{said}"
    );
}

/// `Environment=X=` in a unit sets it and means nothing.
#[test]
fn a_variable_that_is_empty_is_as_good_as_none() {
    let fleet = Fleet::new();
    const NAMES: [&str; 13] = [
        "STREAMFLEET_CONFIG",
        "STREAMFLEET_REDIS_URL",
        "STREAMFLEET_REDIS_USERNAME",
        FILE,
        "STREAMFLEET_REDIS_CA_FILE",
        "STREAMFLEET_REDIS_CERT_FILE",
        "STREAMFLEET_REDIS_KEY_FILE",
        "STREAMFLEET_REDIS_SERVER",
        "STREAMFLEET_METRICS_ADDRESS",
        "STREAMFLEET_WATCH",
        "STREAMFLEET_THREADS",
        "STREAMFLEET_LOG",
        "STREAMFLEET_LOG_FORMAT",
    ];
    let folder = tempfile::tempdir().unwrap();
    let with_nothing = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).current_dir(folder.path());
        command.envs(NAMES.map(|name| (name, "")));
        run(command, b"")
    };
    for (program, args) in [
        (env!("CARGO_BIN_EXE_streamfleet-router"), &[][..]),
        (env!("CARGO_BIN_EXE_cache-worker"), &[]),
        (env!("CARGO_BIN_EXE_streamfleet"), &["status"]),
        (env!("CARGO_BIN_EXE_streamfleet"), &["dev"]),
    ] {
        // The default, which is not in this folder.
        let said = with_nothing(program, args).failed(78);
        assert!(said.contains("routing.yaml: "), "{said}");
        assert!(!said.contains("is human or json"), "{said}");
    }
    std::fs::copy(fleet.config(), folder.path().join("routing.yaml")).unwrap();
    let schemas = fleet.config().parent().unwrap().join("schemas");
    std::os::unix::fs::symlink(schemas, folder.path().join("schemas")).unwrap();
    let ran = with_nothing(env!("CARGO_BIN_EXE_streamfleet"), &["status"]);
    // There may be one.
    assert!(
        ran.code == Some(0) || ran.err.contains("127.0.0.1:6379"),
        "{ran:?}"
    );
}
