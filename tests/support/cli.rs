//! The real `streamfleet` binary, run as an operator runs it.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::Fleet;

/// How one command ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// What it answered, if it ended with 0.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.out
    }

    /// What it said on standard error, if it ended with `code`.
    #[track_caller]
    pub fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self.err
    }

    /// What is in the envelope of its answer.
    #[track_caller]
    pub fn items(self) -> Vec<Value> {
        items(&self.ok())
    }

    /// The same as one value.
    #[track_caller]
    pub fn list(self) -> Value {
        self.items().into()
    }

    /// The only thing in the envelope of its answer.
    #[track_caller]
    pub fn json(self) -> Value {
        let mut items = self.items();
        assert_eq!(items.len(), 1, "{items:?}");
        items.remove(0)
    }
}

/// What is in the envelope of an answer with `--output json`.
#[track_caller]
pub fn items(answer: &str) -> Vec<Value> {
    let mut envelope: Value = serde_json::from_str(answer).unwrap();
    assert_eq!(envelope["version"], 1, "{envelope}");
    assert!(envelope["kind"].is_string(), "{envelope}");
    match envelope["items"].take() {
        Value::Array(items) => items,
        other => panic!("{other} is no list"),
    }
}

/// `streamfleet` with these arguments and nothing of the environment that it listens to.
pub fn streamfleet(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamfleet"));
    let ours = std::env::vars_os().map(|(name, _)| name);
    for name in ours.filter(|name| name.to_string_lossy().starts_with("STREAMFLEET_")) {
        command.env_remove(name);
    }
    command.args(args);
    command
}

/// Runs it to its end with `input` on its standard input.
pub fn run(mut command: Command, input: &[u8]) -> Ran {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // It may end without reading everything.
    drop(stdin.write_all(input));
    drop(stdin);
    let ended = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran {
        code: ended.status.code(),
        out: text(ended.stdout),
        err: text(ended.stderr),
    }
}

impl Fleet {
    /// Runs a command on this fleet.
    pub fn ask(&self, args: &[&str]) -> Ran {
        self.ask_with(args, b"")
    }

    /// The same, with `input` on its standard input.
    pub fn ask_with(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut command = streamfleet(args);
        command
            .env("STREAMFLEET_CONFIG", self.config())
            .env("STREAMFLEET_REDIS_URL", self.url());
        if let Some(users) = &self.users {
            users.equip(&mut command);
        }
        run(command, input)
    }
}
