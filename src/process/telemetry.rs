//! Logs: on stderr, for people on a terminal and as JSON lines for everything else. Texts from outside
//! (errors of handlers, names, answers of servers) can neither forge a line of it nor move a cursor.

use std::io::{self, IsTerminal, Stderr, Write, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::text::{escape, escape_json};

/// What to log: a level, or an `EnvFilter` such as `info,streamfleet::worker=debug`.
const LEVEL: &str = "STREAMFLEET_LOG";
/// `human` or `json`, where the choice by terminal is not wanted.
const FORMAT: &str = "STREAMFLEET_LOG_FORMAT";
/// What a line begins with that belongs to the one before: no line that is logged does.
const CONTINUED: &str = "\n    | ";

/// Starts logging. A second call does nothing.
pub fn init() {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .with_env_var(LEVEL)
        .from_env();
    let (filter, ignored) = match filter {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let terminal = stderr().is_terminal();
    let format = std::env::var(FORMAT).unwrap_or_default();
    let human = match format.as_str() {
        "human" => true,
        "json" => false,
        _ => terminal,
    };
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let form = match (human, colour) {
        (true, true) => Form::Coloured,
        (true, false) => Form::Plain,
        (false, _) => Form::Json,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || Tame {
            form,
            out: stderr(),
        });
    // An error means that a subscriber is set already, by a test or by an embedding program.
    let started = if human {
        builder.with_ansi(colour).with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    if started.is_ok() {
        log_panics();
    }
    if started.is_ok() && !["", "human", "json"].contains(&format.as_str()) {
        tracing::warn!(
            format,
            "{FORMAT} is human or json: going by whether this is a terminal"
        );
    }
    if let (Ok(()), Some(error)) = (started, ignored) {
        tracing::warn!(%error, "{LEVEL} is not a filter such as info or streamfleet=debug: using info");
    }
}

/// A panic is logged like everything else, where its message cannot break a line. What a panic of a
/// handler says is with the delivery that failed for it: there, what routing.yaml hides is hidden.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("?");
        match panic.location() {
            Some(place) => tracing::error!(thread, %place, "panicked"),
            None => tracing::error!(thread, "panicked"),
        }
        if std::env::var_os("RUST_BACKTRACE").is_some_and(|set| set != "0") {
            let trace = std::backtrace::Backtrace::force_capture();
            tracing::error!(thread, "{trace}");
        }
    }));
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Plain,
    /// The colours that the formatter uses stay: it writes some foreign texts as they are, so no other
    /// sequence is let through.
    Coloured,
}

/// Writes what the formatter hands over, a line at a time.
struct Tame<W = Stderr> {
    form: Form,
    out: W,
}

impl<W: Write> Write for Tame<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        self.out.write_all(tame(&text, self.form).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn tame(line: &str, form: Form) -> String {
    let (line, end) = match line.strip_suffix('\n') {
        Some(line) => (line, "\n"),
        None => (line, ""),
    };
    let tamed = match form {
        Form::Json => escape_json(line),
        Form::Plain => line
            .split('\n')
            .map(escape)
            .collect::<Vec<_>>()
            .join(CONTINUED),
        Form::Coloured => {
            let lines = line.split('\n').map(keep_colours);
            lines.collect::<Vec<_>>().join(CONTINUED)
        }
    };
    tamed + end
}

/// What the formatter writes: reset, bold, dim, italic, and the colours of the levels.
const COLOURS: [&str; 9] = ["0", "1", "2", "3", "31", "32", "33", "34", "35"];

fn keep_colours(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let mut kept = parts.next().map(escape).unwrap_or_default();
    for part in parts {
        let sequence = part.strip_prefix('[').and_then(|rest| rest.split_once('m'));
        let known = sequence.is_some_and(|(code, _)| COLOURS.contains(&code));
        kept += if known { "\u{1b}" } else { "\\u{1b}" };
        kept += &escape(part);
    }
    kept
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;

    use super::*;
    use crate::text::is_unsafe;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged of a foreign text, as message and as fields.
    fn logged(form: Form, text: &str) -> String {
        let out = Shared::default();
        let writer = out.clone();
        let make = move || Tame {
            form,
            out: writer.clone(),
        };
        let builder = tracing_subscriber::fmt().with_writer(make);
        let log = || tracing::warn!(error = text, shown = %text, debug = ?text, "before {text}");
        match form {
            Form::Json => {
                let subscriber = builder.json().flatten_event(true).finish();
                tracing::subscriber::with_default(subscriber, log);
            }
            _ => {
                let subscriber = builder.with_ansi(form == Form::Coloured).finish();
                tracing::subscriber::with_default(subscriber, log);
            }
        }
        let bytes = out.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    /// Texts of what is dangerous, among what is not.
    fn nasty() -> impl Strategy<Value = String> {
        let pieces = prop_oneof![
            any::<char>().prop_map(String::from),
            prop::sample::select(vec![
                "\n",
                "\r\n",
                "\r",
                "\u{1b}[2J",
                "\u{1b}]0;x\u{7}",
                "\u{9b}31m",
                "\u{202e}",
                "\u{200b}",
                "\u{2066}",
                "\u{feff}",
                "\u{e0041}",
                "\u{2028}",
                "\0",
                "\u{7f}",
                "\u{85}",
                "\"",
                "\\",
                "2026-01-01T00:00:00Z ERROR forged",
                "{\"level\":\"ERROR\"}",
                "a",
                "é",
            ])
            .prop_map(str::to_owned),
        ];
        prop::collection::vec(pieces, 0..20).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn no_text_forges_a_line(text in nasty()) {
            let json = logged(Form::Json, &text);
            prop_assert_eq!(json.matches('\n').count(), 1);
            let value: serde_json::Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(value["error"].as_str(), Some(text.as_str()));
            prop_assert!(!json.trim_end().contains(is_unsafe));

            let plain = logged(Form::Plain, &text);
            let mut lines = plain.strip_suffix('\n').unwrap().split('\n');
            prop_assert!(lines.next().unwrap().contains(" WARN "));
            for line in lines {
                prop_assert!(line.starts_with("    | "), "{:?}", plain);
            }
            prop_assert!(!plain.replace('\n', "").contains(is_unsafe), "{:?}", plain);

            // Nothing of the terminal is controlled but colours.
            let coloured = logged(Form::Coloured, &text);
            for after in coloured.split('\u{1b}').skip(1) {
                let sequence = after.strip_prefix('[').and_then(|rest| rest.split_once('m'));
                let sequence = sequence.map(|(digits, _)| digits);
                prop_assert!(
                    sequence.is_some_and(|s| s.chars().all(|c| c.is_ascii_digit() || c == ';')),
                    "{:?}", coloured
                );
            }
            prop_assert!(!coloured.replace(['\n', '\u{1b}'], "").contains(is_unsafe), "{:?}", coloured);
        }
    }
}
