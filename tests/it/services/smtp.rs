//! notification-service by SMTP, against a real server (`smtp_server.py`, aiosmtpd).

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::shop::brisk_shop;
use crate::support::cli::run;
use crate::support::fleet::{Process, id, typed};
use crate::support::{Fleet, eventually};

const PROGRAM: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/it/services/smtp_server.py"
);

/// A Python that has aiosmtpd. Debian's package is for Debian's own, whatever comes first in PATH.
fn python() -> &'static str {
    let has_it = |python: &&str| {
        let mut import = Command::new(python);
        import.args(["-c", "import aiosmtpd"]).stderr(Stdio::null());
        import.status().is_ok_and(|status| status.success())
    };
    let found = ["/usr/bin/python3", "python3"].into_iter().find(has_it);
    found.expect("no Python has aiosmtpd: apt-get install python3-aiosmtpd (scripts/setup does)")
}

struct Server {
    child: Option<Child>,
    folder: PathBuf,
    port: String,
    login: Vec<String>,
}

impl Server {
    fn start(folder: &Path, login: &[&str]) -> Self {
        let folder = folder.join("smtp");
        std::fs::create_dir(&folder).unwrap();
        let mut server = Self {
            child: None,
            folder,
            port: "0".to_owned(),
            login: login.iter().map(|&word| word.to_owned()).collect(),
        };
        server.run();
        server
    }

    /// Starts it, again on the same port.
    fn run(&mut self) {
        let mut command = Command::new(python());
        command.args([PROGRAM, &self.port]).arg(&self.folder);
        command.args(&self.login).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let port = line.trim().strip_prefix("listening on ");
        self.port = port.unwrap_or_else(|| panic!("{line:?}")).to_owned();
        self.child = Some(child);
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Makes a rule hold, or no longer.
    fn rule(&self, name: &str, holds: bool) {
        let file = self.folder.join(name);
        match holds {
            true => std::fs::write(file, "").unwrap(),
            false => std::fs::remove_file(file).unwrap(),
        }
    }

    fn mails(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.join("mails")).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Waits until it has so many mails and nothing is owed; answers their recipients.
    fn gets(&self, fleet: &Fleet, mails: usize) -> Vec<String> {
        eventually(&format!("{mails} mails"), || {
            (self.mails().len() >= mails).then_some(())
        });
        fleet.drained();
        let mut to: Vec<_> = self
            .mails()
            .iter()
            .map(|mail| mail["to"].to_string())
            .collect();
        to.sort();
        assert_eq!(to.len(), mails, "{to:?}");
        to
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn worker(fleet: &Fleet, server: &str, more: &[(&str, &Path)]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_notification-worker"));
    command.args(["--name", "w"]).current_dir(fleet.dir.path());
    command.env_remove("STREAMFLEET_OUTBOX");
    command.env("STREAMFLEET_MAIL_FROM", "The shop <shop@shop.example>");
    command.env("STREAMFLEET_SMTP", server);
    command.envs(more.iter().copied());
    fleet.launch(command, "w", "worker started")
}

/// A user, to whom a welcome is sent.
fn user(user_id: i64, email: &str) -> Value {
    let data = json!({"user_id": user_id, "username": "Zoë", "email": email,
        "created_at": "2026-01-05T10:00:00Z", "user_type": "customer"});
    typed("User.Created", data)
}

#[test]
fn mail_is_sent_with_an_id_of_its_event_and_no_file_is_written() {
    let fleet = brisk_shop(|text| text);
    let server = Server::start(fleet.dir.path(), &[]);
    let _router = fleet.router("r");
    let _worker = worker(&fleet, &format!("smtp://127.0.0.1:{}", server.port), &[]);
    let welcome = user(1, "zoe@example.org");
    fleet.publish(&[welcome.clone()]);
    assert_eq!(server.gets(&fleet, 1), [r#"["zoe@example.org"]"#]);
    let sent = &server.mails()[0];
    assert_eq!(sent["from"], "shop@shop.example");
    let mail = sent["mail"].as_str().unwrap();
    let message_id = format!("Message-ID: <{}@shop.example>\r\n", id(&welcome));
    assert!(mail.contains(&message_id), "{mail}");
    assert!(mail.contains("Subject: Welcome to the shop\r\n"), "{mail}");
    assert!(!fleet.dir.path().join("outbox").exists());
}

/// A server that is away or not ready: no attempt is charged, and every mail arrives in the end.
#[test]
fn a_server_that_is_away_costs_no_mail_and_no_attempt() {
    let fleet = brisk_shop(|text| text);
    let mut server = Server::start(fleet.dir.path(), &[]);
    let _router = fleet.router("r");
    let worker = worker(&fleet, &format!("smtp://127.0.0.1:{}", server.port), &[]);
    let failures = |said: &str| {
        let log = worker.log_text();
        let failed = log
            .lines()
            .filter(|line| line.contains("a delivery failed"));
        failed.filter(|line| line.contains(said)).count()
    };
    server.rule("later", true);
    server.rule("no-senders", true);
    fleet.publish(&[user(1, "later@example.org"), user(2, "now@example.org")]);
    eventually("no sender is taken", || {
        (failures("you may not send here") > 6).then_some(())
    });
    server.rule("no-senders", false);
    eventually("the other arrives", || {
        (server.mails().len() == 1).then_some(())
    });
    eventually("one is put off", || {
        (failures("come back later") > 3).then_some(())
    });
    server.kill();
    fleet.publish(&[user(3, "late@example.org")]);
    eventually("nobody is there", || {
        (failures("Connection refused") > 3).then_some(())
    });
    server.rule("later", false);
    server.run();
    let everybody = ["late@example.org", "later@example.org", "now@example.org"];
    assert_eq!(
        server.gets(&fleet, 3),
        everybody.map(|to| format!(r#"["{to}"]"#))
    );
    assert!(failures(r#""charged":false"#) > 10 && failures(r#""charged":true"#) == 0);
    assert!(fleet.dead("notification-service").is_empty());
}

#[test]
fn a_recipient_that_is_refused_for_good_becomes_a_dead_letter_and_holds_up_nobody() {
    let fleet = brisk_shop(|text| text);
    let server = Server::start(fleet.dir.path(), &[]);
    let _router = fleet.router("r");
    let _worker = worker(&fleet, &format!("smtp://127.0.0.1:{}", server.port), &[]);
    fleet.publish(&[user(1, "gone@example.org"), user(2, "here@example.org")]);
    assert_eq!(server.gets(&fleet, 1), [r#"["here@example.org"]"#]);
    let letters = fleet.dead("notification-service");
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0]["reason"], "rejected");
    let error = &letters[0]["error"];
    let told = ["gone@example.org", "550", "nobody of that name"];
    assert!(told.iter().all(|text| error.contains(text)), "{error}");
}

#[test]
fn a_password_comes_from_a_file_and_a_wrong_one_loses_no_mail() {
    let fleet = brisk_shop(|text| text);
    let server = Server::start(fleet.dir.path(), &["shop@shop.example", "secret"]);
    let _router = fleet.router("r");
    let file = fleet.dir.path().join("password");
    std::fs::write(&file, "wrong\n").unwrap();
    let with = [("STREAMFLEET_SMTP_PASSWORD_FILE", file.as_path())];
    let address = format!("smtp://shop@shop.example@127.0.0.1:{}", server.port);
    let mut first = worker(&fleet, &address, &with);
    fleet.publish(&[user(1, "zoe@example.org")]);
    first.wait_for_log("535");
    first.signal("TERM");
    assert_eq!(first.exit_code(), Some(0));
    std::fs::write(&file, "secret\n").unwrap();
    let second = worker(&fleet, &address, &with);
    server.gets(&fleet, 1);
    for log in [first.log_text(), second.log_text()] {
        assert!(!log.contains("secret") && !log.contains("wrong"), "{log}");
    }
}

#[test]
fn a_server_that_cannot_be_understood_is_refused_at_the_start() {
    for (server, told) in [
        ("smtps://mail.example:465", "there is no TLS"),
        (
            "smtp://shop:secret@mail.example:25",
            "STREAMFLEET_SMTP_PASSWORD_FILE",
        ),
        (
            "smtp://shop@mail.example:25",
            "STREAMFLEET_SMTP_PASSWORD_FILE",
        ),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_notification-worker"));
        command.env("STREAMFLEET_SMTP", server);
        command.env_remove("STREAMFLEET_SMTP_PASSWORD_FILE");
        let said = run(command, b"").failed(78);
        assert!(said.contains(told) && !said.contains("secret"), "{said}");
    }
}
