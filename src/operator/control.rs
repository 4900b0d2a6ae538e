//! `streamfleet pause` and `streamfleet resume`: hold up the workers of one subscriber.

use std::io::{Write, stdout};
use std::time::Duration;

use jiff::Timestamp;

use super::names::Router;
use super::text::{self, escape};
use super::{CommandError, Session};
use crate::fleet::control::{self, BreakerState, Control};
use crate::fleet::{self, ROUTER};
use crate::process::args::CommonArgs;
use crate::process::exit::Exit;
use crate::store;
use crate::time;

/// Pause a subscriber: within a second its workers read nothing new and try nothing again. They
/// finish what they hold; events stay where they are. It outlives restarts of the workers.
#[derive(Debug, clap::Args)]
pub(super) struct PauseArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// The subscriber.
    subscriber: String,
    /// For how long; until it is resumed if absent.
    #[arg(long = "for", value_name = "DURATION", value_parser = super::duration)]
    how_long: Option<Duration>,
    /// What for, as status shows it.
    #[arg(long, value_name = "TEXT", default_value = "")]
    why: String,
}

/// Resume a subscriber that was paused.
#[derive(Debug, clap::Args)]
pub(super) struct ResumeArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// The subscriber.
    subscriber: String,
}

pub(super) async fn pause(args: PauseArgs) -> Result<Exit, CommandError> {
    let session = open(&args.common, &args.subscriber).await?;
    let until = match args.how_long {
        Some(how_long) => Some(end_of(&session, how_long).await?),
        None => None,
    };
    let (link, keys) = (&session.link, &session.keys);
    control::pause(link, keys, &args.subscriber, until, &who(), &args.why).await?;
    let name = escape(&args.subscriber);
    match read(&session, &args.subscriber).await?.paused {
        Some(pause) => writeln!(stdout(), "{name} {}", text::paused(&pause))?,
        None => writeln!(stdout(), "{name} was paused, and is not any more")?,
    }
    Ok(Exit::Clean)
}

pub(super) async fn resume(args: ResumeArgs) -> Result<Exit, CommandError> {
    let session = open(&args.common, &args.subscriber).await?;
    let resumed = control::resume(&session.link, &session.keys, &args.subscriber).await?;
    let name = escape(&args.subscriber);
    match resumed {
        true => writeln!(stdout(), "{name} is resumed")?,
        false => writeln!(stdout(), "{name} was not paused")?,
    }
    let breaker = read(&session, &args.subscriber).await?.breaker;
    if breaker.state == BreakerState::Open {
        let until = text::moment(breaker.until);
        eprintln!(
            "its circuit breaker is open until {until}: {}",
            escape(&breaker.why)
        );
    }
    Ok(Exit::Clean)
}

/// A session, if there is such a subscriber.
async fn open(common: &CommonArgs, subscriber: &str) -> Result<Session, CommandError> {
    let session = Session::open(common).await?;
    if subscriber == ROUTER {
        let message =
            "the router cannot be paused: stop it, and producers go on appending to the inbox";
        return Err(CommandError::Refused(message.into()));
    }
    session
        .expect_subscriber(subscriber, Router::DoesNot)
        .await?;
    Ok(session)
}

async fn read(session: &Session, subscriber: &str) -> Result<Control, CommandError> {
    Ok(control::read(&session.link, &session.keys, subscriber).await?)
}

/// The moment so long from now, by the clock of Redis: workers go by that one.
async fn end_of(session: &Session, how_long: Duration) -> Result<Timestamp, CommandError> {
    let now = session
        .link
        .run(|mut c| async move { store::time(&mut c).await })
        .await?;
    let until = now.checked_add(how_long).map(|at| at.as_millis());
    let until = until.and_then(|ms| time::from_ms(ms.try_into().ok()?));
    match until {
        Some(until) if !how_long.is_zero() => Ok(until),
        _ => Err(CommandError::Refused(
            "--for must be longer than nothing, and end before the year 9999; without it, the pause lasts until resume"
                .into(),
        )),
    }
}

/// Who asks, as others will read it.
fn who() -> String {
    let user = ["USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
    format!(
        "{}@{}",
        user.unwrap_or_else(|| "somebody".to_owned()),
        fleet::host()
    )
}
