//! points-service: points for purchases, at the rate of the day.
//!
//! | key | what |
//! |---|---|
//! | `points-service:user:<id>` | hash: `points`, `purchases` |

use std::{convert::Infallible, env, path::PathBuf, process::ExitCode};

use serde::{Deserialize, Serialize};
use streamfleet::{Context, Event, Handler, HandlerError};

struct Points {
    /// A file with the points that one euro earns today. Somebody else writes it.
    rate: PathBuf,
}

impl Points {
    fn from_env() -> Result<Self, Infallible> {
        let rate = env::var_os("POINTS_RATE").unwrap_or_else(|| "rate".into());
        Ok(Self { rate: rate.into() })
    }
}

#[derive(Deserialize)]
struct Purchase {
    user_id: i64,
    cents: i64,
    currency: String,
}

#[derive(Serialize)]
struct Earned {
    user_id: i64,
    points: i64,
}

impl Handler for Points {
    const SUBSCRIBER: &'static str = "points-service"; // its name in routing.yaml

    async fn handle(&self, event: &Event, cx: &mut Context) -> Result<(), HandlerError> {
        if event.event_type() != "Purchase.Made" {
            return Err(HandlerError::reject(
                "correct the route: this is for another service",
            ));
        }
        let Purchase {
            user_id,
            cents,
            currency,
        } = event.data()?; // another shape: rejected

        // It will never work: a dead letter at once.
        if currency != "EUR" {
            return Err(HandlerError::reject(format!("{currency} earns no points")));
        }
        // What it needs is away: it waits, and no attempt is charged.
        let rate = std::fs::read_to_string(&self.rate)
            .map_err(|e| HandlerError::unavailable(format!("{}: {e}", self.rate.display())))?;
        // Any other error: tried again after a while, three times in all.
        let rate: u16 = rate.trim().parse()?;

        // Effects: they happen once, in one step with the acknowledgement.
        let points = cents / 100 * i64::from(rate);
        let user = format!("user:{user_id}");
        cx.hash_increment(&user, "points", points)?;
        cx.hash_increment(&user, "purchases", 1)?;
        // A follow-up: it is published if and only if the effects happen.
        cx.publish("Points.Earned", &Earned { user_id, points })?;
        Ok(())
    }
}

#[global_allocator]
static ALLOCATOR: streamfleet::Allocator = streamfleet::Allocator;

fn main() -> ExitCode {
    streamfleet::worker::main(Points::from_env)
}
