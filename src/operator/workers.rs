//! `streamfleet workers`: who is at work, and who only seems to be.

use std::io::{Write, stdout};

use super::answer::{Output, answer};
use super::names::Router;
use super::text::{Paint, Tone, age, count, escape, table};
use super::{CommandError, Session};
use crate::fleet::ROUTER;
use crate::process::args::CommonArgs;
use crate::process::exit::Exit;
use crate::status::{State, WorkerStatus, alive, workers};

/// Show the processes of the fleet: where they run, what they hold, and which are ghosts: consumers
/// that hold deliveries and give no sign of life.
///
/// Exits with 1 if a subscriber of routing.yaml, or the router, has no process that is alive.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// Only those of this subscriber, or of `router`.
    subscriber: Option<String>,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) async fn run(args: Args) -> Result<Exit, CommandError> {
    let session = Session::open(&args.common).await?;
    let subscriber = args.subscriber.as_deref();
    if let Some(name) = subscriber {
        session.expect_subscriber(name, Router::Counts).await?;
    }
    let found = workers(&session.link, &session.keys, subscriber).await?;
    match args.output {
        Output::Table => stdout().write_all(render(&found, Paint::stdout()).as_bytes())?,
        output => answer(output, "workers", &found)?,
    }
    let routed = session.config.routing.subscribers();
    let wanted = std::iter::once(ROUTER).chain(routed.map(|s| &*s.name));
    let wanted = wanted.filter(|name| subscriber.is_none_or(|only| only == *name));
    let missing = missing(&found, wanted);
    for name in &missing {
        eprintln!("{name} has no process that is alive: start one");
    }
    Ok(match missing.is_empty() {
        true => Exit::Clean,
        false => Exit::Failure,
    })
}

/// Those of whom nobody is alive.
fn missing<'a>(found: &[WorkerStatus], wanted: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    wanted.filter(|name| alive(found, name) == 0).collect()
}

fn render(found: &[WorkerStatus], paint: Paint) -> String {
    let header = [
        "SUBSCRIBER",
        "NAME",
        "STATE",
        "HOST",
        ">PID",
        "VERSION",
        ">CONFIGURATION",
        "STARTED",
        ">HEARTBEAT",
        ">IN FLIGHT",
    ];
    let (mut rows, mut tones) = (table(&header), Vec::new());
    let text = |text: &Option<String>| text.as_deref().map_or("-".to_owned(), escape);
    let number = |n: Option<u64>| n.map_or("-".to_owned(), |n| n.to_string());
    for one in found {
        let (state, tone) = match one.state {
            State::Alive => ("alive", None),
            State::Draining => ("draining", Some(Tone::Notice)),
            State::Ghost => ("GHOST", Some(Tone::Alarm)),
        };
        let started = one.started.as_ref().and_then(|at| at.parse().ok());
        rows.add_row([
            escape(&one.subscriber),
            escape(&one.name),
            state.to_owned(),
            text(&one.host),
            number(one.pid),
            text(&one.version),
            number(one.generation),
            started.map_or("-".to_owned(), |at| super::text::moment(Some(at))),
            age(one.heartbeat_ms),
            one.in_flight.to_string(),
        ]);
        tones.push(tone);
    }
    let mut answer = match found.is_empty() {
        true => "nobody is at work\n".to_owned(),
        false => paint.table(&rows, &tones),
    };
    let ghosts = found.iter().filter(|one| one.state == State::Ghost).count();
    if ghosts > 0 {
        let ghosts = count(ghosts as u64, "ghost");
        answer += &format!(
            "\n{ghosts}: what they hold is claimed by any live worker when its lease is over\n"
        );
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_drains_or_haunts_does_not_count_as_alive() {
        let one = |subscriber: &str, state| WorkerStatus {
            subscriber: subscriber.into(),
            name: "w".into(),
            consumer: "w.1".into(),
            state,
            host: None,
            pid: None,
            version: None,
            generation: None,
            started: None,
            heartbeat_ms: None,
            in_flight: 0,
            streams: Vec::new(),
        };
        let found = [
            one("a", State::Draining),
            one("b", State::Ghost),
            one("c", State::Ghost),
            one("c", State::Alive),
        ];
        let missing = missing(&found, ["a", "b", "c", "d"].into_iter());
        assert_eq!(missing, ["a", "b", "d"]);
    }
}
