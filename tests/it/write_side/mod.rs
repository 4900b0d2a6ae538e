//! The write side: aggregates and their snapshots, commands from outside of any delivery.

mod aggregates;
mod commands;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use streamfleet::commands::{Command, Commands};
use streamfleet::routing::Config;
use streamfleet::{Aggregate, Context, Decide, HandlerError};
use uuid::Uuid;

use crate::support::Fleet;

/// An account that is never overdrawn; a snapshot every four events.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Account {
    pub(super) balance: i64,
    #[serde(default)]
    pub(super) bookings: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub(super) enum Booked {
    #[serde(rename = "Account.Booked")]
    Booked { amount: i64 },
}

impl Aggregate for Account {
    const ENTITY: &'static str = "Account";
    const SHAPE: u32 = 2;
    const SNAPSHOT_EVERY: u64 = 4;
    type Event = Booked;

    fn apply(&mut self, Booked::Booked { amount }: &Booked) {
        self.balance += amount;
        self.bookings += 1;
    }
}

impl Decide for Account {
    type Command = i64;
    type Refusal = String;

    fn decide(&self, amount: i64) -> Result<Vec<Booked>, String> {
        match self.balance + amount {
            0.. => Ok(vec![Booked::Booked { amount }]),
            short => Err(format!("the account would be at {short}")),
        }
    }
}

pub(super) async fn commands(fleet: &Fleet) -> Commands {
    let config = Arc::new(Config::load(&fleet.config()).unwrap());
    Commands::connect(&fleet.url(), config, "teller")
        .await
        .unwrap()
}

pub(super) fn command() -> Command {
    Command::in_flow(Uuid::new_v4())
}

/// Books on the account `7`, and says so.
pub(super) async fn book(cx: &mut Context, amount: i64) -> Result<i64, HandlerError> {
    let account = cx.decide::<Account>("7", amount).await?;
    cx.publish(
        "Test.Happened",
        &serde_json::json!({ "amount": account.state.balance }),
    )?;
    Ok(account.state.balance)
}
