//! The README is run as it stands, by a reader who types what it says. Other pages are read by the
//! same [`Reader`].
//!
//! - A block marked `console` is typed into one bash session: `$ ` begins a command, `> ` goes
//!   on with it, everything else is what it must print, where `…` stands for anything. It must
//!   succeed; a command that is meant to fail says so itself (`|| echo "exit code $?"`).
//! - A command that only looks is asked again until it shows what the README says, as a reader
//!   would do; one that changes something runs once.
//! - `streamfleet dev` runs in a terminal of its own. A block marked `log` is what that one must
//!   say from then on.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::support::eventually;

const README: &str = include_str!("../../README.md");
const OPERATIONS: &str = include_str!("../../docs/operations.md");
const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// How long one command may take, and how long one that looks is repeated.
pub const DEADLINE: Duration = Duration::from_secs(30);
const END: &str = "--the-command-has-ended--";

#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// A command, and what it prints.
    Type(String, Vec<String>),
    /// What the terminal of `streamfleet dev` says.
    Log(Vec<String>),
}

/// The blocks of a document, in order.
pub fn steps(document: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        let block = lines
            .by_ref()
            .take_while(|line| !line.starts_with("```") || line.len() > 3);
        match line {
            "```console" => {
                for line in block {
                    match (
                        line.strip_prefix("$ "),
                        line.strip_prefix("> "),
                        steps.last_mut(),
                    ) {
                        (Some(command), ..) => steps.push(Step::Type(command.to_owned(), vec![])),
                        (_, Some(more), Some(Step::Type(command, _))) => {
                            *command += "\n";
                            *command += more;
                        }
                        (_, _, Some(Step::Type(_, output))) => output.push(line.to_owned()),
                        _ => panic!("{line:?} comes before the first command of its block"),
                    }
                }
            }
            "```log" => steps.push(Step::Log(block.map(str::to_owned).collect())),
            _ if line.starts_with("```") && line.len() > 3 => block.for_each(drop),
            _ => {}
        }
    }
    steps
}

/// A section of a document, without its heading.
fn section(document: &'static str, heading: &str) -> &'static str {
    let (_, rest) = document
        .split_once(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("there is a section {heading:?}"));
    rest.split("\n## ").next().unwrap_or(rest)
}

/// Whether a line fits one of the README: `…` stands for anything, and so does white space for
/// any other (the columns of a table move with what is in them).
fn fits(pattern: &str, line: &str) -> bool {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (pattern, line) = (words(pattern), words(line));
    let mut parts = pattern.split('…').map(str::trim);
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    true
}

/// Whether an output fits; a line of `…` alone stands for any number of lines.
pub fn all_fit(patterns: &[String], lines: &[String]) -> bool {
    match (patterns, lines) {
        ([], []) => true,
        ([any, more @ ..], _) if any.trim() == "…" => {
            (0..=lines.len()).any(|n| all_fit(more, &lines[n..]))
        }
        ([pattern, more @ ..], [line, rest @ ..]) => fits(pattern, line) && all_fit(more, rest),
        _ => false,
    }
}

/// Whether a command changes nothing, so that it can be asked again.
fn only_looks(command: &str) -> bool {
    const LOOKS: [&str; 15] = [
        "status",
        "pending",
        "workers",
        "doctor",
        "tap",
        "dead list",
        "dead show",
        "group list",
        "XLEN",
        "XRANGE",
        "XINFO",
        "XPENDING",
        "HGET",
        "HGETALL",
        "--scan",
    ];
    let redis = command.strip_prefix("redis-cli -s .streamfleet/redis.sock ");
    let said = redis.or_else(|| command.strip_prefix("streamfleet "));
    let looks = |said: &str| {
        LOOKS
            .iter()
            .any(|look| said == *look || said.starts_with(&format!("{look} ")))
    };
    said.is_some_and(looks) || command.starts_with("ls ")
}

/// A process whose standard output is read line by line.
pub struct Terminal {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Terminal {
    fn start(mut command: Command, folder: &Path, programs: &Path) -> Self {
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .current_dir(folder)
            .env("PATH", format!("{}:{path}", programs.display()))
            // redis-cli then prints as it does on a terminal.
            .env("FAKETTY", "1")
            .env_remove("STREAMFLEET_CONFIG")
            .env_remove("STREAMFLEET_REDIS_URL")
            .env_remove("STREAMFLEET_OUTBOX")
            .env_remove("STREAMFLEET_SMTP")
            .env_remove("STREAMFLEET_GATEWAY")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            output
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Self {
            child,
            input,
            lines,
        }
    }

    /// A bash in a folder that finds our programs in another.
    pub fn bash(folder: &Path, programs: &Path) -> Self {
        let mut bash = Command::new("bash");
        bash.args(["--noprofile", "--norc"]);
        let mut bash = Self::start(bash, folder, programs);
        bash.run("exec 2>&1");
        bash
    }

    /// Types a command; answers what it prints and its exit code.
    pub fn run(&mut self, command: &str) -> (Vec<String>, i32) {
        self.run_for(command, DEADLINE)
    }

    /// The same of one that may take this long.
    pub fn run_for(&mut self, command: &str, longest: Duration) -> (Vec<String>, i32) {
        let input = self.input.as_mut().unwrap();
        // A line of its own, whatever the output ends with.
        writeln!(input, "{command}\nprintf '\\n%s %d\\n' {END} $?").unwrap();
        let (mut output, deadline) = (Vec::new(), Instant::now() + longest);
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => match line.strip_prefix(END) {
                    Some(code) => {
                        while output.last().is_some_and(String::is_empty) {
                            output.pop();
                        }
                        return (output, code.trim().parse().unwrap());
                    }
                    None => output.push(line),
                },
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{command}\ndid not end; so far:\n{}", output.join("\n"))
                }
                Err(RecvTimeoutError::Disconnected) => panic!("{command}\nended the session"),
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// `streamfleet dev` in a terminal of its own, and what it has said.
struct Dev {
    terminal: Terminal,
    said: Vec<String>,
    read: usize,
}

impl Dev {
    fn start(folder: &Path, programs: &Path) -> Self {
        let mut command = Command::new(programs.join("streamfleet"));
        command.arg("dev");
        Self {
            terminal: Terminal::start(command, folder, programs),
            said: Vec::new(),
            read: 0,
        }
    }

    /// Waits for a line after those that were waited for before.
    fn wait_for(&mut self, pattern: &str) {
        let what = format!("{pattern:?} in the terminal of streamfleet dev");
        self.read += eventually(&what, || {
            self.said.extend(self.terminal.lines.try_iter());
            let mut new = self.said.iter().skip(self.read);
            new.position(|line| fits(pattern, line)).map(|at| at + 1)
        });
    }

    /// Ctrl-C.
    fn stop(&mut self) {
        let id = self.terminal.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-INT", &id])
                .status()
                .unwrap()
                .success()
        );
        let child = &mut self.terminal.child;
        let status = eventually("streamfleet dev stops", || child.try_wait().unwrap());
        assert!(status.success(), "streamfleet dev: {status}");
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.said.extend(self.terminal.lines.try_iter());
            eprintln!("--- streamfleet dev\n{}", self.said.join("\n"));
        }
    }
}

/// Where the programs are that Cargo has built.
pub fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_streamfleet"))
        .parent()
        .unwrap()
}

/// Who types what a page says, and compares: in one bash session, with `streamfleet dev` in a
/// terminal of its own.
pub struct Reader<'p> {
    page: &'static str,
    pub bash: Terminal,
    dev: Option<Dev>,
    programs: &'p Path,
}

impl<'p> Reader<'p> {
    /// A reader of the page of this name, in a folder.
    pub fn of(page: &'static str, folder: &Path, programs: &'p Path) -> Self {
        Self {
            page,
            bash: Terminal::bash(folder, programs),
            dev: None,
            programs,
        }
    }

    /// Does what the next block says.
    pub fn does(&mut self, step: &Step) {
        match step {
            Step::Type(command, _) if command == "streamfleet dev" => {
                let (folder, _) = self.bash.run("pwd");
                self.dev = Some(Dev::start(Path::new(&folder[0]), self.programs));
            }
            Step::Type(command, expected) => self.check(command, expected, only_looks(command)),
            Step::Log(expected) => {
                let dev = self.dev.as_mut().expect("streamfleet dev comes first");
                expected.iter().for_each(|line| dev.wait_for(line));
            }
        }
    }

    /// Types a command and compares; a look is repeated until it fits.
    pub fn check(&mut self, command: &str, expected: &[String], looks: bool) {
        let deadline = Instant::now() + DEADLINE;
        // Cargo may have to build.
        let longest = DEADLINE * if command.starts_with("cargo ") { 20 } else { 1 };
        loop {
            let (output, code) = self.bash.run_for(command, longest);
            if code == 0 && all_fit(expected, &output) {
                return;
            }
            assert!(
                looks && Instant::now() < deadline,
                "$ {command}\nexit code {code}, printed\n{}\n--- {} says\n{}",
                output.join("\n"),
                self.page,
                expected.join("\n"),
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Presses Ctrl-C in the other terminal.
    pub fn ends(self) {
        let dev = self.dev;
        dev.expect("the page starts streamfleet dev").stop();
    }
}

/// The shop's configuration and examples, in a folder.
pub fn copy_shop(folder: &Path) {
    let root = Path::new(ROOT);
    std::fs::copy(root.join("routing.yaml"), folder.join("routing.yaml")).unwrap();
    for name in ["schemas", "examples"] {
        std::fs::create_dir(folder.join(name)).unwrap();
        for file in std::fs::read_dir(root.join(name)).unwrap() {
            let file = file.unwrap();
            if file.path().is_file() {
                std::fs::copy(file.path(), folder.join(name).join(file.file_name())).unwrap();
            }
        }
    }
}

#[test]
fn what_the_readme_says_happens() {
    let folder = tempfile::Builder::new()
        .prefix("streamfleet-readme-")
        .tempdir()
        .unwrap();
    copy_shop(folder.path());
    let mut reader = Reader::of("README.md", folder.path(), programs());
    let steps = steps(README);
    assert!(steps.len() > 20, "the README has blocks to run: {steps:?}");
    steps.iter().for_each(|step| reader.does(step));
    // What is to be tried on the same fleet after the tour.
    reader.page = "docs/operations.md";
    let lost = self::steps(section(OPERATIONS, "Lost groups"));
    assert!(lost.len() > 3, "the section has blocks to run: {lost:?}");
    lost.iter().for_each(|step| reader.does(step));
    reader.ends();
}

/// What an editor is given accepts the file that ships, and marks a slip in it.
#[test]
fn the_printed_schema_fits_the_shipped_file() {
    let printed = Command::new(env!("CARGO_BIN_EXE_streamfleet"))
        .args(["check", "--schema"])
        .output()
        .unwrap();
    assert!(printed.status.success());
    let schema = serde_json::from_slice(&printed.stdout).unwrap();
    let validator = jsonschema::draft7::new(&schema).unwrap();
    let text = std::fs::read_to_string(Path::new(ROOT).join("routing.yaml")).unwrap();
    let read =
        |text: &str| -> serde_json::Value { serde_saphyr::from_str(text).expect("it is YAML") };
    assert!(validator.is_valid(&read(&text)));
    assert!(!validator.is_valid(&read(&text.replace("max_attempts: 3", "max_attempt: 3"))));
}

#[test]
fn blocks_and_patterns_are_read_as_meant() {
    let document = "```sh\n$ no\n```\n```console\n$ a \\\n> b\nout …\n$ c\n```\n```log\nx\n```\n";
    let text = |lines: &[&str]| lines.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        steps(document),
        [
            Step::Type("a \\\nb".into(), text(&["out …"])),
            Step::Type("c".into(), vec![]),
            Step::Log(text(&["x"])),
        ]
    );
    for (pattern, line, fit) in [
        ("a  1", "a 1", true),
        ("a … c", "a b c", true),
        ("a … c", "a b d", false),
        ("a …", "a", true),
        ("… end", "x end y end", true),
        ("a", "a b", false),
        ("1) \"…-0\"", "1) \"17-0\"", true),
    ] {
        assert_eq!(fits(pattern, line), fit, "{pattern:?} and {line:?}");
    }
    assert!(all_fit(
        &text(&["a", "…", "d"]),
        &text(&["a", "b", "c", "d"])
    ));
    assert!(!all_fit(&text(&["a"]), &text(&["a", "b"])));
}
