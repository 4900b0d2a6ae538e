//! `streamfleet trace`: what became of the events of one business flow.

use std::io::{Write, stdout};
use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use super::answer::{Output, answer};
use super::text::{Paint, Tone, count, escape, human, shorten};
use super::{CommandError, Session};
use crate::process::args::CommonArgs;
use crate::process::exit::Exit;
use crate::time;
use crate::trace::{self, MAX_HOPS, Node, Step, Tree, What};

/// Draw a business flow: its events, each below what caused it, and what became of them.
///
/// Times count from the first hop. Traces are kept where `trace: { ttl: 1d }` in routing.yaml asks
/// for them.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// The correlation ID that all events of the flow carry.
    correlation_id: Uuid,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// A flow for programs.
#[derive(Serialize)]
struct Shown<'a> {
    correlation_id: Uuid,
    took_ms: u64,
    events: &'a [Node],
}

pub(super) async fn run(args: Args) -> Result<Exit, CommandError> {
    let session = Session::open(&args.common).await?;
    let correlation_id = args.correlation_id;
    let hops = trace::read(&session.link, &session.keys, correlation_id).await?;
    let cut = hops.len() >= MAX_HOPS;
    let Some(tree) = Tree::build(hops) else {
        let why = match session.config.routing.trace() {
            None => "this routing.yaml traces nothing: add `trace: { ttl: 1d }`, and let the router and the \
                     workers load it; what happens from then on is traced"
                .to_owned(),
            Some(ttl) => format!(
                "nothing was traced under it in the last {}. It is the correlation_id of a flow that is asked \
                 for, not the ID of an event",
                human(ttl)
            ),
        };
        return Err(CommandError::Refused(format!(
            "there is no trace of {correlation_id}: {why}"
        )));
    };
    let took_ms = tree.ended.ms.saturating_sub(tree.began.ms);
    match args.output {
        Output::Table => {
            let text = draw(&tree, correlation_id, took_ms, Paint::stdout());
            stdout().write_all(text.as_bytes())?;
        }
        output => {
            let events = &tree.roots;
            let flow = Shown {
                correlation_id,
                took_ms,
                events,
            };
            answer(output, "flow", [flow])?;
        }
    }
    if cut {
        eprintln!("only the newest {MAX_HOPS} hops or so are kept: what was before is not shown");
    }
    Ok(Exit::Clean)
}

fn draw(tree: &Tree, correlation_id: Uuid, took_ms: u64, paint: Paint) -> String {
    let events = count(tree.events() as u64, "event");
    let mut text = format!(
        "flow {correlation_id}: {events} in {}\n",
        human(Duration::from_millis(took_ms))
    );
    for root in &tree.roots {
        text.push('\n');
        draw_node(root, "", "", paint, &mut text);
    }
    text
}

/// `first` is before the event's own line, `rest` before the lines below it.
fn draw_node(node: &Node, first: &str, rest: &str, paint: Paint, text: &mut String) {
    let name = paint.tone(&escape(&node.event_type), Tone::Strong);
    *text += &format!("{first}{name}  {}\n", node.event_id);
    let bar = if node.caused.is_empty() { ' ' } else { '│' };
    for step in &node.hops {
        let (line, tone) = describe(&step.what);
        let line = tone.map_or(line.clone(), |tone| paint.tone(&line, tone));
        *text += &format!("{rest}{bar} {:>9}  {line}\n", since(step));
    }
    for (n, caused) in node.caused.iter().enumerate() {
        let last = n + 1 == node.caused.len();
        let (branch, below) = if last {
            ("└─ ", "   ")
        } else {
            ("├─ ", "│  ")
        };
        draw_node(
            caused,
            &format!("{rest}{branch}"),
            &format!("{rest}{below}"),
            paint,
            text,
        );
    }
}

/// How long after the first hop, to the millisecond.
fn since(step: &Step) -> String {
    match step.at_ms {
        ms @ 0..1_000 => format!("{ms}ms"),
        ms @ 1_000..60_000 => format!("{}.{:03}s", ms / 1_000, ms % 1_000),
        ms => human(Duration::from_millis(ms)),
    }
}

fn describe(what: &What) -> (String, Option<Tone>) {
    match what {
        What::Routed { stream, to } if to.is_empty() => (
            format!("routed to {}, for nobody", escape(stream)),
            Some(Tone::Quiet),
        ),
        What::Routed { stream, to } => {
            let to = escape(&to.replace(',', ", "));
            (format!("routed to {} for {to}", escape(stream)), None)
        }
        What::Scheduled { due_ms } => {
            let at = time::from_ms(*due_ms).map_or_else(|| "?".to_owned(), |at| at.to_string());
            (format!("scheduled for {at}"), None)
        }
        What::Refused { reason, error } => (
            format!("REFUSED ({}): {}", escape(reason), shorten(error, 200)),
            Some(Tone::Alarm),
        ),
        What::Handled {
            subscriber,
            attempt,
            took_us,
        } => {
            let attempt = match attempt {
                1 => String::new(),
                n => format!(", attempt {n}"),
            };
            let took = match Duration::from_micros(*took_us) {
                short if short.as_millis() == 0 => "<1ms".to_owned(),
                took => human(took),
            };
            let line = format!("{} handled it in {took}{attempt}", escape(subscriber));
            (line, None)
        }
        What::Failed {
            subscriber,
            attempt,
            error,
            again_ms,
        } => (
            format!(
                "{} failed, attempt {attempt}, again in {}: {}",
                escape(subscriber),
                human(Duration::from_millis(*again_ms)),
                shorten(error, 200)
            ),
            Some(Tone::Notice),
        ),
        What::Dead {
            subscriber,
            reason,
            error,
        } => (
            format!(
                "{} GAVE IT UP ({}): {}",
                escape(subscriber),
                escape(reason),
                shorten(error, 200)
            ),
            Some(Tone::Alarm),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short_and_exact_while_they_matter() {
        let since = |at_ms| {
            since(&Step {
                at_ms,
                what: What::Refused {
                    reason: String::new(),
                    error: String::new(),
                },
            })
        };
        assert_eq!([since(0), since(999)], ["0ms", "999ms"]);
        assert_eq!([since(1_007), since(61_000)], ["1.007s", "1m1s"]);
    }
}
