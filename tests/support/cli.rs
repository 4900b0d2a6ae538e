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

    /// Its answer as JSON, one value per line.
    #[track_caller]
    pub fn json_lines(self) -> Vec<Value> {
        let line = |line: &str| serde_json::from_str(line).unwrap();
        self.ok().lines().map(line).collect()
    }

    /// Its answer as one value of JSON.
    #[track_caller]
    pub fn json(self) -> Value {
        let mut lines = self.json_lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.remove(0)
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
        run(command, input)
    }
}
