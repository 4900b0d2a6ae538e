//! `streamfleet rebuild`: a read model made anew from history while the live one keeps serving.
//!
//! This command begins a shadow, runs the subscriber's own worker on it, and switches when it has
//! caught up; [`crate::rebuild`] says what that means in Redis. Killed at any point it leaves one
//! complete model, and a shadow that `--abort`, or the next rebuild, removes.

mod drive;
mod pause;
mod show;
mod turn;

use std::io::{Write, stdout};
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use self::drive::{Drive, Settings};
use self::show::Progress;
use self::turn::Turn;
use super::answer::{Output, answer};
use super::child;
use super::names::meant;
use super::text::{count, escape};
use super::{CommandError, Session};
use crate::process::args::CommonArgs;
use crate::process::exit::Exit;
use crate::process::interrupted;
use crate::rebuild::{self, RebuildError, Shadow};

/// Rebuild a read model from history while the live one keeps serving.
///
/// The subscriber's worker runs all retained history again, into keys of their own. When it has
/// caught up, the live subscriber is paused for a moment and the new model takes the place of the
/// old one, keys, position and dead letters together. No event is lost or counted twice. Until
/// then the live model is what it was, and Redis needs room for both.
///
/// Only a handler that is declared a read model can be rebuilt, and only from a history of which
/// nothing is gone: what has left its stream is brought back from the event store, where the
/// handler says how.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// The subscriber, such as analytics-service.
    subscriber: String,
    /// Rebuild from what there is, even if some of the history is gone.
    #[arg(long)]
    allow_incomplete: bool,
    /// Remove what a rebuild that was killed left behind, and do nothing else.
    #[arg(long, conflicts_with_all = ["allow_incomplete", "worker", "pause"])]
    abort: bool,
    /// The program of the worker, if it is not the one beside this program that routing.yaml names.
    #[arg(long, value_name = "PROGRAM")]
    worker: Option<PathBuf>,
    /// How long the live subscriber may be paused for the switch, at most.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = pause_length)]
    pause: Duration,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

fn pause_length(text: &str) -> Result<Duration, String> {
    match super::duration(text)? {
        ok if (Duration::from_secs(1)..=Duration::from_secs(600)).contains(&ok) => Ok(ok),
        _ => Err("a pause may be 1s to 10m".into()),
    }
}

impl From<RebuildError> for CommandError {
    fn from(error: RebuildError) -> Self {
        match error {
            RebuildError::Store(error) => Self::Store(error),
            error => Self::Refused(escape(&error.to_string())),
        }
    }
}

pub(super) async fn run(args: Args) -> Result<Exit, CommandError> {
    let stop = interrupted();
    tokio::pin!(stop);
    let session = Session::open(&args.common).await?;
    let Session { link, keys, config } = &session;
    // Before anything is written, that a slip of the pen leaves no trace.
    let known: Vec<_> = config.routing.subscribers().map(|s| &*s.name).collect();
    if !known.contains(&args.subscriber.as_str())
        && let Some(guess) = meant(&args.subscriber, &known)
    {
        let name = escape(&args.subscriber);
        return Err(CommandError::Refused(format!(
            "there is no subscriber {name}: did you mean {guess}?"
        )));
    }
    if !args.abort {
        rebuild::streams_of(link, keys, &config.routing, &args.subscriber).await?;
    }
    let progress = Progress::new();
    let turn = Turn::take(&session, &args.subscriber, &progress).await?;
    let outcome = tokio::select! {
        biased;
        () = &mut stop => None,
        lost = turn.keep(&session) => Some(Err(lost)),
        outcome = under_turn(&args, &session, &progress) => Some(outcome),
    };
    let outcome = match outcome {
        Some(outcome) => outcome,
        None => stopped(&session, &args.subscriber).await,
    };
    turn.give_back(&session).await;
    progress.finish();
    outcome
}

/// Cleans up after a rebuild that was told to stop; its worker is dead by now.
async fn stopped(session: &Session, subscriber: &str) -> Result<Exit, CommandError> {
    rebuild::remove(&session.link, &session.keys, subscriber).await?;
    pause::end(session, subscriber).await?;
    Err(CommandError::Refused(
        "stopped: what was under way is removed".into(),
    ))
}

/// Everything that only one may do at a time.
async fn under_turn(
    args: &Args,
    session: &Session,
    progress: &Progress,
) -> Result<Exit, CommandError> {
    let (subscriber, link, keys) = (&args.subscriber, &session.link, &session.keys);
    pause::end(session, subscriber).await?;
    let left = rebuild::remove(link, keys, subscriber).await?;
    let left_behind = format!(
        "{} and {}",
        count(left.groups as u64, "group"),
        count(left.keys as u64, "key")
    );
    if args.abort {
        match args.output {
            Output::Table => writeln!(
                stdout(),
                "removed {left_behind} of rebuilds of {subscriber}"
            )?,
            output => {
                let removed = serde_json::json!({"groups": left.groups, "keys": left.keys});
                answer(output, "rebuild-removed", [removed])?;
            }
        }
        return Ok(Exit::Clean);
    }
    if left.groups + left.keys > 0 {
        progress.say(&format!(
            "removed {left_behind} that an earlier rebuild left behind"
        ));
    }
    let routing = &session.config.routing;
    let program = match (&args.worker, routing.subscriber(subscriber)) {
        (Some(program), _) => program.clone(),
        (None, Some(settings)) => child::programs(&[&settings.worker])
            .map_err(|missing| {
                CommandError::Refused(format!("{missing}. Name the program with --worker"))
            })?
            .remove(0),
        (None, None) => return Err(RebuildError::NotSubscribed(subscriber.clone()).into()),
    };
    let began = Instant::now();
    let settings = Settings {
        program,
        allow_incomplete: args.allow_incomplete,
        pause: args.pause,
        config: args.common.config.path.clone(),
        redis: args.common.redis.clone(),
    };
    let rebuilt = async {
        let shadow = Shadow::begin(link, keys, routing, subscriber).await?;
        let drive = Drive::new(session, &shadow, settings, progress);
        let done = drive.run().await?;
        Ok((shadow, done))
    };
    let (shadow, done) = match rebuilt.await {
        Ok(done) => done,
        Err(error) => {
            // Its worker is dead by now, and a pause ends by itself. If this fails as well, the next rebuild removes it.
            let removed = rebuild::remove(link, keys, subscriber).await;
            if removed.is_err() {
                progress.say(&format!(
                    "its shadow is left behind: streamfleet rebuild {subscriber} --abort removes it"
                ));
            }
            return Err(error);
        }
    };
    progress.finish();
    let summary = show::Summary::new(&shadow, &done, args.allow_incomplete, began.elapsed());
    match args.output {
        Output::Table => stdout().write_all(summary.text().as_bytes())?,
        output => answer(output, "rebuild", [summary])?,
    }
    Ok(Exit::Clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_bounded() {
        assert_eq!(pause_length("10s"), Ok(Duration::from_secs(10)));
        for bad in ["0s", "999ms", "11m", "long"] {
            assert!(pause_length(bad).is_err(), "{bad}");
        }
    }
}
