//! A payment gateway to develop, test and demonstrate against: it keeps exact books, moves no money,
//! and is made to decline, to be slow and to fail by rules that can be changed while it runs.
//! `streamfleet dev` starts it for payment-service.
//!
//! | request | answer |
//! |---|---|
//! | `POST /charges` with `Idempotency-Key: <key>` and `{"order_id": 1, "amount": "12.30"}` | 201 `{"charge_id", "amount"}`, however often it is asked under this key; 402 `{"reason"}`, declined; 409 `{"reason": "voided"}`, the key was voided; 409 `{"reason": "key_reused"}`, the key stands for another order or amount; 422 `{"message"}`, the amount is not one that can be charged |
//! | `POST /charges/<key>/void` | 200 `{"refund_id", "charge_id", "amount"}`: what was charged under the key is paid back in full; 200 `{"refund_id": null}`: nothing was charged, and nothing ever will be |
//! | `GET /ledger` | 200 `{"charged", "refunded", "net", "charges", "refunds", "declines", "under_way"}`, the last of these the requests that are not answered yet |
//! | `GET /rules`, `POST /rules` with those that are to change: `{"outage": true}` | 200 with all rules |
//!
//! Amounts are exact decimals; answers have them as strings. Charges and voids under one key happen one after the
//! other, whoever asks: a key is charged at most once, and refunded at most once.
//!
//! | rule | flag | what |
//! |---|---|---|
//! | `outage` | | charges and voids are answered with 503 and change nothing |
//! | `decline_above` | `--decline-above AMOUNT` | a larger charge is declined (`limit_exceeded`), and stays so under its key |
//! | `delay_ms` | `--delay MS` | a request waits so long before it is looked at |
//! | `answer_delay_ms` | `--answer-delay MS` | an answer waits so long after what it says has happened |
//! | `fail_rate` | `--fail-rate SHARE` | this share of charges and voids, from 0 to 1, is answered with 500: every other one before anything happened, the rest after it |
//!
//! With `--state FILE` the books survive a restart: each change is on disk before it is answered. Rules
//! are not kept.

use std::{fmt::Display, io::Write, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Parser;
use rust_decimal::Decimal;
use streamfleet::process::core_dump;
use tokio::net::TcpListener;

#[path = "sandbox_gateway/book.rs"]
mod book;
#[path = "sandbox_gateway/http.rs"]
mod http;
#[path = "sandbox_gateway/journal.rs"]
mod journal;
#[path = "sandbox_gateway/rules.rs"]
mod rules;
use journal::Journal;
use rules::Rules;

/// A payment gateway that moves no money.
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 takes a free one. The address is printed.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8650")]
    listen: SocketAddr,
    /// Keep the books in this file, so that they survive a restart.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Decline charges above this amount.
    #[arg(long, value_name = "AMOUNT")]
    decline_above: Option<Decimal>,
    /// Wait so many milliseconds before a request is looked at.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    delay: u64,
    /// Wait so many milliseconds before an answer is sent.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    answer_delay: u64,
    /// Fail this share of charges and voids: 0 is none, 1 is all.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    fail_rate: f64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    core_dump::forbid();
    let rules = Rules {
        outage: false,
        decline_above: args.decline_above,
        delay_ms: args.delay,
        answer_delay_ms: args.answer_delay,
        fail_rate: args.fail_rate,
    };
    if let Err(error) = rules.check() {
        return failed(&error);
    }
    let journal = match Journal::open(args.state) {
        Ok(journal) => journal,
        Err(error) => return failed(&error),
    };
    let listener = match TcpListener::bind(args.listen).await {
        Ok(listener) => listener,
        Err(error) => return failed(&format_args!("cannot listen on {}: {error}", args.listen)),
    };
    let address = match listener.local_addr() {
        Ok(address) => address,
        Err(error) => return failed(&error),
    };
    // Whoever started it reads this line; nobody needs to.
    let _ = writeln!(std::io::stdout(), "listening on http://{address}");
    http::serve(listener, journal, rules).await;
    ExitCode::SUCCESS
}

fn failed(error: &dyn Display) -> ExitCode {
    eprintln!("sandbox-gateway: {error}");
    ExitCode::FAILURE
}
