//! `streamfleet check`: is routing.yaml good?

use std::io::{Write, stdout};

use serde_json::json;

use super::CommandError;
use super::answer::{Output, answer};
use super::text::{Paint, Tone, count};
use crate::process::args::ConfigArgs;
use crate::process::exit::Exit;
use crate::routing::{self, Config, Problem, Severity};

/// Check routing.yaml and the schemas it names.
///
/// Reports every problem, with file, line, column and a fix. Exits with 0 if the configuration
/// can be used and with 78 if it cannot; warnings do not count.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    file: ConfigArgs,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    /// Print the JSON Schema of routing.yaml, for editors, and check nothing.
    #[arg(long, conflicts_with = "output")]
    schema: bool,
}

pub(super) fn run(args: &Args) -> Result<Exit, CommandError> {
    if args.schema {
        let schema = serde_json::to_string_pretty(&routing::json_schema())?;
        writeln!(stdout(), "{schema}")?;
        return Ok(Exit::Clean);
    }
    let (config, problems) = match args.file.load() {
        Ok(config) => {
            let warnings = config.warnings.clone();
            (Some(config), warnings)
        }
        Err(error) => (None, error.problems),
    };
    match args.output {
        Output::Table => {
            let mut out = stdout().lock();
            for problem in &problems {
                writeln!(out, "{}", shown(problem, Paint::stdout()))?;
            }
            writeln!(out, "{}", summary(&args.file, config.as_ref(), &problems))?;
        }
        output => {
            let verdict = json!({ "usable": config.is_some(), "problems": problems });
            answer(output, "check", [verdict])?;
        }
    }
    Ok(match config {
        Some(_) => Exit::Clean,
        None => Exit::BadConfig,
    })
}

fn shown(problem: &Problem, paint: Paint) -> String {
    let tone = match problem.severity {
        Severity::Error => Tone::Alarm,
        Severity::Warning => Tone::Notice,
    };
    let text = problem.to_string();
    let mut lines = text.lines().map(str::to_owned);
    let first = paint.tone(&lines.next().unwrap_or_default(), tone);
    lines.fold(first, |all, line| all + "\n" + &line)
}

fn summary(file: &ConfigArgs, config: Option<&Config>, problems: &[Problem]) -> String {
    let of = |severity| problems.iter().filter(|p| p.severity == severity).count() as u64;
    let warnings = match of(Severity::Warning) {
        0 => String::new(),
        n => format!(", {}", count(n, "warning")),
    };
    let file = file.path.display();
    match config {
        None => format!("{file}: {}{warnings}", count(of(Severity::Error), "error")),
        Some(config) => {
            let types = config.schemas.event_types();
            let routed = |t: &&crate::event_type::EventType| {
                let route = config.routing.route(t.as_str());
                route.is_some_and(|route| !route.to.is_empty())
            };
            format!(
                "{file}: ok: {}, {}, {} with subscribers, {}{warnings}",
                count(config.routing.streams().count() as u64, "stream"),
                count(config.schemas.event_types().count() as u64, "event type"),
                types.filter(routed).count(),
                count(config.routing.subscribers().count() as u64, "subscriber"),
            )
        }
    }
}
