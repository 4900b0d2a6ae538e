//! Answers for programs: one envelope around all of them, so that a script can tell what it has
//! got, and whether it knows this version of it.
//!
//! - `--output json` is one document: `{"version":1,"kind":"dead-letters","items":[…]}`;
//! - `--output jsonl` is one line per item: `{"version":1,"kind":"dead-letters","item":{…}}`.
//!
//! Within a version, fields are added and never change what they mean.

use std::io::Write;

use serde::Serialize;

use super::CommandError;
use super::text::escape_json;

/// The version of the envelope and of all that is in it.
const VERSION: u32 = 1;

/// How a command answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs: one document.
    Json,
    /// For programs: a document per line and item.
    Jsonl,
}

/// Items on their way out, one by one.
pub(super) struct Items<W: Write> {
    out: W,
    output: Output,
    kind: &'static str,
    any: bool,
}

impl<W: Write> Items<W> {
    /// Begins an answer; `output` is one for programs.
    pub(super) fn begin(
        mut out: W,
        output: Output,
        kind: &'static str,
    ) -> Result<Self, CommandError> {
        if output == Output::Json {
            write!(out, r#"{{"version":{VERSION},"kind":"{kind}","items":["#)?;
        }
        Ok(Self {
            out,
            output,
            kind,
            any: false,
        })
    }

    /// Writes an item.
    pub(super) fn push(&mut self, item: &impl Serialize) -> Result<(), CommandError> {
        let item = one_line(item)?;
        let kind = self.kind;
        match self.output {
            Output::Json => {
                let comma = if self.any { "," } else { "" };
                write!(self.out, "{comma}{item}")?;
            }
            _ => {
                writeln!(
                    self.out,
                    r#"{{"version":{VERSION},"kind":"{kind}","item":{item}}}"#
                )?;
                // Who follows reads it now.
                self.out.flush()?;
            }
        }
        self.any = true;
        Ok(())
    }

    /// Ends the answer.
    pub(super) fn end(mut self) -> Result<(), CommandError> {
        if self.output == Output::Json {
            writeln!(self.out, "]}}")?;
        }
        self.out.flush()?;
        Ok(())
    }
}

/// A whole answer to standard output.
pub(super) fn answer<T: Serialize>(
    output: Output,
    kind: &'static str,
    items: impl IntoIterator<Item = T>,
) -> Result<(), CommandError> {
    let out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut answer = Items::begin(out, output, kind)?;
    for item in items {
        answer.push(&item)?;
    }
    answer.end()
}

/// JSON without a line break: what an event was sent with may have some between its fields.
pub(super) fn one_line(value: &impl Serialize) -> Result<String, serde_json::Error> {
    serde_json::to_string(value).map(|json| escape_json(&json).replace(['\n', '\r'], " "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use serde_json::value::RawValue;

    fn written(output: Output, items: &[&str]) -> String {
        let mut out = Vec::new();
        let mut answer = Items::begin(&mut out, output, "things").unwrap();
        for item in items {
            let item: &RawValue = serde_json::from_str(item).unwrap();
            answer.push(&item).unwrap();
        }
        answer.end().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_envelope_is_around_all_of_it_or_around_each() {
        let items = ["{\n\"a\": 1.50}", "\"x\u{202e}\""];
        let json = written(Output::Json, &items);
        assert_eq!(
            json,
            "{\"version\":1,\"kind\":\"things\",\"items\":[{ \"a\": 1.50},\"x\\u202e\"]}\n"
        );
        let lines = written(Output::Jsonl, &items);
        assert_eq!(
            lines,
            "{\"version\":1,\"kind\":\"things\",\"item\":{ \"a\": 1.50}}\n\
             {\"version\":1,\"kind\":\"things\",\"item\":\"x\\u202e\"}\n"
        );
        for line in lines.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["version"], 1);
        }
    }

    #[test]
    fn nothing_is_an_empty_list_or_no_line() {
        assert_eq!(
            written(Output::Json, &[]),
            "{\"version\":1,\"kind\":\"things\",\"items\":[]}\n"
        );
        assert_eq!(written(Output::Jsonl, &[]), "");
    }
}
