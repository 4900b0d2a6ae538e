//! user-service: who the users are, rebuilt from what happened to them.
//!
//! | key | what |
//! |---|---|
//! | `es:User:<id>` | `User.Created`, `User.Updated`, in the order in which they arrived, each with its event time |
//! | `user-service:user:<id>` | hash for people: `username`, `email`, `user_type`, `created_at`, and `as_of`, the event time of the newest of it |
//!
//! ```text
//! redis-cli HGETALL user-service:user:7
//! redis-cli XRANGE es:User:7 - +
//! ```
//!
//! **Guarantee.** Each event is in the history once. A user is what the newest events by event time
//! say, field by field, whatever order they arrive in: an update that comes late fills what no newer
//! one speaks of and overrides nothing, and may come before the User.Created. Every append names the
//! version that it was decided on, so that two events of one user at a time never lose one.

use std::process::ExitCode;

use streamfleet::{Context, Event, Handler, HandlerError, NewEvent};

#[path = "user/account.rs"]
mod account;
#[path = "shared/latest.rs"]
mod latest;
use account::{Account, Change, Fact};
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
            "User.Created" | "User.Updated" => record(event.data()?, event, cx).await,
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

async fn record(change: Change, event: &Event, cx: &mut Context) -> Result<(), HandlerError> {
    let id = change.user_id.to_string();
    let history = cx.load("User", &id, 1).await?;
    let mut account = Account::default();
    for stored in &history.events {
        account.apply(&stored.data()?);
    }
    let Stamp { at, by } = Stamp::of(event);
    let fact = Fact { at, by, change };
    account.apply(&fact);
    let stored = NewEvent::new(event.event_type(), &fact)?;
    cx.append_events("User", &id, history.version, &[stored])?;
    for (field, value) in account.shown() {
        cx.hash_set(&format!("user:{id}"), field, value)?;
    }
    Ok(())
}
