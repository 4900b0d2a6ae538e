//! What is wrong with the configuration: where, what, and what to do about it.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::text::escape;

/// Whether a problem keeps the configuration from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// Legal, but suspicious.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One thing that is wrong in `routing.yaml` or in a schema file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Whether the configuration is refused because of it.
    pub severity: Severity,
    /// The file it is in.
    pub file: PathBuf,
    /// Line, counted from 1, where it is known.
    pub line: Option<u64>,
    /// Column in characters, counted from 1, where it is known.
    pub column: Option<u64>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub fix: String,
}

impl Problem {
    /// An error in a file as a whole.
    pub(crate) fn error(file: &Path, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            file: file.to_owned(),
            line: None,
            column: None,
            message: message.into(),
            fix: fix.into(),
        }
    }

    /// The same problem at a place in its file.
    pub(crate) fn at(mut self, line: u64, column: u64) -> Self {
        // Line 0 is how parsers say that they do not know.
        if line > 0 {
            self.line = Some(line);
            self.column = (column > 0).then_some(column);
        }
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names and messages quote what is in the files, and this goes to terminals.
        write!(f, "{}:", escape(&self.file.display().to_string()))?;
        for place in [self.line, self.column].into_iter().flatten() {
            write!(f, "{place}:")?;
        }
        write!(
            f,
            " {}: {}\n  fix: {}",
            self.severity,
            escape(&self.message),
            escape(&self.fix)
        )
    }
}

/// A configuration that was refused: everything that is wrong with it, warnings included.
#[derive(Debug, Clone, thiserror::Error)]
pub struct ConfigError {
    /// In the order of the file; `routing.yaml` first, schema files after it.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "{problem}")?;
        }
        let errors = self
            .problems
            .iter()
            .filter(|p| p.severity == Severity::Error)
            .count();
        let warnings = self.problems.len() - errors;
        write!(
            f,
            "the configuration was refused: {errors} error{}",
            plural(errors)
        )?;
        if warnings > 0 {
            write!(f, ", {warnings} warning{}", plural(warnings))?;
        }
        Ok(())
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// Reads a configuration file of at most `max` bytes.
pub(crate) fn read_bounded(path: &Path, max: u64) -> Result<Vec<u8>, Problem> {
    let unreadable = |error: std::io::Error| {
        Problem::error(
            path,
            format!("cannot read the file: {error}"),
            "check the path and its permissions",
        )
    };
    // Opening a pipe would wait for a writer.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(Problem::error(
            path,
            "this is not a regular file",
            "name a file",
        ));
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(max + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > max {
        return Err(Problem::error(
            path,
            format!("the file is larger than {} KiB", max / 1024),
            "split it, or remove what does not belong there",
        ));
    }
    Ok(bytes)
}

/// The candidate that `word` was probably meant to be.
pub(crate) fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // Nothing that we know is this long, and distances are quadratic.
    if word.len() > 256 {
        return None;
    }
    let close = (word.chars().count() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .map(|candidate| {
            (
                edit_distance(&word.to_lowercase(), &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, _)| *distance <= close)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance in characters.
fn edit_distance(one: &str, two: &str) -> usize {
    let two: Vec<char> = two.chars().collect();
    let mut row: Vec<usize> = (0..=two.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in two.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[two.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_says_where_what_and_how() {
        let problem = Problem::error(Path::new("routing.yaml"), "no such thing", "do this");
        assert_eq!(
            problem.to_string(),
            "routing.yaml: error: no such thing\n  fix: do this"
        );
        assert_eq!(
            problem.at(12, 5).to_string(),
            "routing.yaml:12:5: error: no such thing\n  fix: do this"
        );
        let nasty = Problem::error(Path::new("\u{1b}[2J"), "a\u{202e}\nb", "c\r");
        assert_eq!(
            nasty.to_string(),
            "\\u{1b}[2J: error: a\\u{202e}\\nb\n  fix: c\\r"
        );
    }

    #[test]
    fn guesses_are_close() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(
            did_you_mean("retension", ["retention", "maxlen"]),
            Some("retention")
        );
        assert_eq!(
            did_you_mean("order.created", ["Order.Created"]),
            Some("Order.Created")
        );
        assert_eq!(did_you_mean("colour", ["retention", "maxlen"]), None);
    }
}
