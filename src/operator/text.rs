//! Text for people and for programs: tables, durations, and the rule that nothing from an event
//! reaches a terminal as a control character.

use std::io::{self, IsTerminal};
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use serde_json::value::RawValue;

use crate::fleet::control::Pause;
pub(super) use crate::text::{escape, escape_json};

/// At most `max` characters of it, escaped.
pub(super) fn shorten(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => escape(text.get(..end).unwrap_or(text)) + "…",
        None => escape(text),
    }
}

/// Indents valid JSON without touching its numbers and strings.
pub(super) fn pretty(json: &RawValue) -> String {
    let (mut out, mut depth, mut quoted, mut escaped) = (String::new(), 0_usize, false, false);
    let mut chars = json.get().chars().peekable();
    let newline = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(c) = chars.next() {
        if quoted {
            out.push(c);
            quoted = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            '"' => {
                quoted = true;
                out.push(c);
            }
            '{' | '[' => {
                out.push(c);
                while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
                if let Some(close) = chars.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    newline(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                newline(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                newline(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    escape_json(&out)
}

/// A duration in its two largest units.
pub(super) fn human(duration: Duration) -> String {
    let s = duration.as_secs();
    let two = |large: u64, l: &str, small: u64, m: &str| match small {
        0 => format!("{large}{l}"),
        small => format!("{large}{l}{small}{m}"),
    };
    match s {
        0 if duration.is_zero() => "0s".to_owned(),
        0 => format!("{}ms", duration.as_millis()),
        1..60 => format!("{s}s"),
        60..3_600 => two(s / 60, "m", s % 60, "s"),
        3_600..86_400 => two(s / 3_600, "h", s % 3_600 / 60, "m"),
        _ => two(s / 86_400, "d", s % 86_400 / 3_600, "h"),
    }
}

/// An age in milliseconds; a dash for none.
pub(super) fn age(ms: Option<u64>) -> String {
    ms.map_or("-".to_owned(), |ms| human(Duration::from_millis(ms)))
}

/// A moment, to the second; a question mark for none.
pub(super) fn moment(at: Option<Timestamp>) -> String {
    let seconds = |at: Timestamp| Timestamp::from_second(at.as_second()).unwrap_or(at);
    at.map_or("?".to_owned(), |at| seconds(at).to_string())
}

/// How a pause is told: until when, by whom, why.
pub(super) fn paused(pause: &Pause) -> String {
    let until = match pause.until {
        Some(until) => moment(Some(until)),
        None => "it is resumed".to_owned(),
    };
    let mut text = format!("is paused until {until}, by {}", escape(&pause.by));
    if !pause.why.is_empty() {
        text += &format!(": {}", escape(&pause.why));
    }
    text
}

/// `1 event`, `2 events`.
pub(super) fn count(n: u64, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

/// Columns under a header; those whose header starts with `>` are aligned to the right.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|h| h.trim_start_matches('>')));
    for (at, name) in header.iter().enumerate() {
        if let Some(column) = table.column_mut(at) {
            column.set_padding((0, 2));
            if name.starts_with('>') {
                column.set_cell_alignment(comfy_table::CellAlignment::Right);
            }
        }
    }
    table
}

/// What a line says by its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// Something is wrong.
    Alarm,
    /// Somebody should look.
    Notice,
    /// Nothing to look at.
    Quiet,
    /// A heading.
    Strong,
}

/// Colours lines, if the reader sees colours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint(bool);

impl Paint {
    /// For standard output: colours on a terminal, unless NO_COLOR is set.
    pub(super) fn stdout() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        Self(wanted && io::stdout().is_terminal())
    }

    /// For none.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self(false)
    }

    /// The text in its tone.
    pub(super) fn tone(self, text: &str, tone: Tone) -> String {
        let code = match tone {
            Tone::Alarm => "31",
            Tone::Notice => "33",
            Tone::Quiet => "2",
            Tone::Strong => "1",
        };
        self.code(text, code)
    }

    /// The text in the `n`-th of a few distinct colours.
    pub(super) fn nth(self, text: &str, n: usize) -> String {
        const COLOURS: [&str; 6] = ["36", "35", "32", "34", "33", "96"];
        self.code(text, COLOURS.get(n % COLOURS.len()).unwrap_or(&"0"))
    }

    fn code(self, text: &str, code: &str) -> String {
        match self.0 {
            true => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            false => text.to_owned(),
        }
    }

    /// A table, its header strong, each row in its tone.
    pub(super) fn table(self, table: &Table, tones: &[Option<Tone>]) -> String {
        let mut text = String::new();
        let header = std::iter::once(Some(Tone::Strong));
        let tones = header.chain(tones.iter().copied().chain(std::iter::repeat(None)));
        for (line, tone) in table.lines().zip(tones) {
            let line = line.trim_end();
            text += &tone.map_or_else(|| line.to_owned(), |tone| self.tone(line, tone));
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::is_unsafe;

    #[test]
    fn nothing_unsafe_gets_through() {
        let nasty = "a\u{1b}[31m\u{202e}b\n\u{7f}\u{85}é\u{e0041}";
        let json = serde_json::to_string(nasty).unwrap();
        let safe = escape_json(&json);
        assert!(!safe.chars().any(is_unsafe), "{safe}");
        assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), nasty);
        assert_eq!(shorten("añb\n", 3), "añb…");
        assert_eq!(shorten("añb", 3), "añb");
    }

    #[test]
    fn indents_and_keeps_every_digit() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        let text = r#"{"a" : 1.10,"b":[ ],"c":[1e400,{"d":"x, \"{y}\\"}]}"#;
        let expected = "{\n  \"a\": 1.10,\n  \"b\": [],\n  \"c\": [\n    1e400,\n    {\n      \"d\": \"x, \\\"{y}\\\\\"\n    }\n  ]\n}";
        assert_eq!(pretty(&raw(text)), expected);
    }

    #[test]
    fn durations_have_two_units_at_most() {
        let cases = [
            (0, "0s"),
            (20, "20ms"),
            (59_999, "59s"),
            (130_000, "2m10s"),
            (3_600_000, "1h"),
            (90_000_000, "1d1h"),
        ];
        for (ms, text) in cases {
            assert_eq!(human(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn tables_align_and_colour_whole_lines() {
        let mut t = table(&["name", ">n"]);
        t.add_row(["a", "5"]).add_row(["long", "100"]);
        assert_eq!(
            Paint(false).table(&t, &[]),
            "name    n\na       5\nlong  100\n"
        );
        let coloured = Paint(true).table(&t, &[None, Some(Tone::Alarm)]);
        assert!(
            coloured.ends_with("\u{1b}[31mlong  100\u{1b}[0m\n"),
            "{coloured:?}"
        );
    }
}
