//! user-service: who the users are, rebuilt from what happened to them.
//!
//! | key | what |
//! |---|---|
//! | `es:User:<id>` | `User.Created`, `User.Updated`, in the order in which they arrived, each with its event time |
//! | `snapshot:User:<id>` | hash: the user as it was every 20 versions, so that not all of the history is read |
//! | `user-service:user:<id>` | hash for people: `username`, `email`, `user_type`, `created_at`, and `as_of`, the event time of the newest of it |
//!
//! ```text
//! redis-cli HGETALL user-service:user:7
//! redis-cli XRANGE es:User:7 - +
//! ```
//!
//! **Guarantee.** Each event is in the history once (one of a command twice, if fifty newer commands for
//! the same user come before it: that changes nothing). A user is what the newest events by event time
//! say, field by field, whatever order they arrive in: an update that comes late fills what no newer
//! one speaks of and overrides nothing, and may come before the User.Created. Every append names the
//! version that it was decided on, so that two events of one user at a time never lose one.

use std::process::ExitCode;

use streamfleet::{Context, Event, Handler, HandlerError};

#[path = "user/account.rs"]
#[allow(dead_code, reason = "commands are for examples/shop")]
mod account;
#[path = "shared/latest.rs"]
mod latest;
#[path = "user/view.rs"]
mod view;
use account::{Account, Change, Fact, Happened};
use latest::Stamp;

struct User;

impl User {
    fn from_env() -> Result<Self, std::convert::Infallible> {
        Ok(Self)
    }
}

impl Handler for User {
    const SUBSCRIBER: &'static str = "user-service";

    async fn handle(&self, event: &Event, cx: &mut Context) -> Result<(), HandlerError> {
        match event.event_type() {
            "User.Created" => record(Happened::Created, event, cx).await,
            "User.Updated" => record(Happened::Updated, event, cx).await,
            other => Err(HandlerError::reject(format!(
                "user-service does not handle {other}: remove it from that route in routing.yaml"
            ))),
        }
    }
}

#[global_allocator]
static ALLOCATOR: streamfleet::Allocator = streamfleet::Allocator;

fn main() -> ExitCode {
    streamfleet::worker::main(User::from_env)
}

async fn record(
    happened: impl Fn(Fact) -> Happened,
    event: &Event,
    cx: &mut Context,
) -> Result<(), HandlerError> {
    let change: Change = event.data()?;
    let id = change.user_id.to_string();
    let Stamp { at, by } = Stamp::of(event);
    let mut user = cx.aggregate::<Account>(&id).await?;
    if user.state.has(by) {
        return Ok(()); // the command that published it has appended it
    }
    let fact = Fact {
        at,
        by,
        commanded: false,
        change,
    };
    cx.append_to(&id, &mut user, &[happened(fact)])?;
    view::show(&id, &user.state, cx)?;
    Ok(())
}
