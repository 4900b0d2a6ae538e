//! The write side of the shop, as a program: what a web shop would call.
//!
//! ```sh
//! cargo run --example shop -- receive 7 100
//! cargo run --example shop -- place 1 --user 42 --line 7:2:19.99
//! cargo run --example shop -- ship 1 --carrier "Parcel Post"
//! cargo run --example shop -- cancel 1
//! cargo run --example shop -- user 42 --create --username Ann --email ann@example.org
//! ```
//!
//! A command that does not fit what is there is refused with a reason, and exits with 1.

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;
use streamfleet::HandlerError;
use streamfleet::commands::{Command as Given, CommandError, Commands};
use streamfleet::process::args::{ConfigArgs, RedisArgs, parse};
use streamfleet::process::core_dump;
use uuid::Uuid;

#[path = "../workers/user/account.rs"]
#[allow(dead_code, reason = "the rest is for user-service")]
mod account;
#[path = "../workers/order/command.rs"]
mod command;
#[path = "../workers/order/flow.rs"]
#[allow(dead_code, reason = "the rest is for order-service")]
mod flow;
#[path = "../workers/shared/latest.rs"]
#[allow(dead_code, reason = "the rest is for services")]
mod latest;
#[path = "shop/orders.rs"]
mod orders;
#[path = "../workers/user/view.rs"]
mod user_view;
#[path = "shop/users.rs"]
mod users;
#[path = "../workers/order/view.rs"]
mod view;

use account::{Change, UserType};
use command::Command;
use flow::Policy;
use orders::{Address, Item, NewOrder};

/// Give the shop a command.
#[derive(Debug, Parser)]
#[command(name = "shop")]
struct Args {
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    command: Asked,
}

#[derive(Debug, Subcommand)]
enum Asked {
    /// Place an order.
    Place {
        /// Its ID; no other order may have it.
        order_id: i64,
        /// Who orders; 0 is a guest.
        #[arg(long, default_value_t = 0)]
        user: i64,
        /// What is ordered: SKU:QUANTITY:UNIT-PRICE; may be repeated.
        #[arg(long = "line", required = true, value_parser = line)]
        lines: Vec<Line>,
        /// How many seconds it waits for its stock and its payment.
        #[arg(long, default_value_t = 900, value_parser = clap::value_parser!(i64).range(1..31_536_000))]
        patience: i64,
    },
    /// Cancel an order that was not shipped.
    Cancel {
        order_id: i64,
        #[arg(long, default_value = "customer")]
        reason: String,
    },
    /// Send a confirmed order on its way.
    Ship {
        order_id: i64,
        #[arg(long, default_value = "")]
        carrier: String,
        #[arg(long, default_value = "")]
        tracking_number: String,
    },
    /// Note that an order arrived.
    Deliver { order_id: i64 },
    /// Change a user, or create one.
    User {
        user_id: i64,
        /// The user must not exist yet; name and e-mail are needed then.
        #[arg(long, requires = "username", requires = "email")]
        create: bool,
        #[arg(long)]
        username: Option<String>,
        #[arg(long)]
        email: Option<String>,
        #[arg(long, value_enum)]
        user_type: Option<UserType>,
    },
    /// Receive units of a SKU.
    Receive {
        sku_id: i64,
        #[arg(value_parser = clap::value_parser!(i64).range(1..))]
        quantity: i64,
    },
}

/// A line as it is given.
#[derive(Clone, Debug)]
struct Line {
    sku_id: i64,
    quantity: i64,
    unit_price: Decimal,
}

fn line(text: &str) -> Result<Line, String> {
    let expected = || format!("{text:?} is not SKU:QUANTITY:UNIT-PRICE, such as 7:2:19.99");
    let mut parts = text.split(':');
    let (Some(sku), Some(quantity), Some(price), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(expected());
    };
    let line = Line {
        sku_id: sku.parse().map_err(|_| expected())?,
        quantity: quantity.parse().map_err(|_| expected())?,
        unit_price: Decimal::from_str_exact(price).map_err(|_| expected())?,
    };
    if line.quantity < 1 || line.unit_price.is_sign_negative() {
        return Err(format!("{text:?}: a quantity from 1 and a price from 0"));
    }
    Ok(line)
}

impl Line {
    fn item(&self) -> Result<Item, CommandError> {
        let subtotal = Decimal::from(self.quantity).checked_mul(self.unit_price);
        Ok(Item {
            product_id: self.sku_id,
            sku_id: self.sku_id,
            sku_code: format!("SKU-{}", self.sku_id),
            product_name: format!("Product {}", self.sku_id),
            sku_name: format!("SKU {}", self.sku_id),
            quantity: self.quantity,
            unit_price: self.unit_price,
            subtotal: subtotal.ok_or_else(|| {
                CommandError::Refused(format!("SKU {}: the price does not fit", self.sku_id))
            })?,
        })
    }
}

async fn run(args: Args) -> Result<String, Box<dyn std::error::Error>> {
    let config = Arc::new(args.config.load()?);
    // The view of an order is order-service's, whoever changes the order.
    let commands = Commands::connect(args.redis.access(), config.clone(), "order-service").await?;
    let (order_id, command) = match args.command {
        Asked::Place {
            order_id,
            user,
            lines,
            patience,
        } => {
            let items = lines.iter().map(Line::item).collect::<Result<_, _>>()?;
            let order = NewOrder {
                order_id,
                order_number: format!("SO-{order_id}"),
                user_id: user,
                items,
                shipping_address: Address {
                    recipient: format!("User {user}"),
                    phone: "-".to_owned(),
                    address: "-".to_owned(),
                    city: "-".to_owned(),
                    province: "-".to_owned(),
                },
            };
            let policy = Policy {
                patience: SignedDuration::from_secs(patience),
            };
            let total = orders::place(&commands, policy, &order).await?;
            let total = total.unwrap_or_default();
            return Ok(format!("order {order_id} is placed: {total}"));
        }
        Asked::User {
            user_id,
            create,
            username,
            email,
            user_type,
        } => {
            let commands = Commands::connect(args.redis.access(), config, "user-service").await?;
            let change = Change {
                user_id,
                username,
                email,
                user_type: user_type.or(create.then_some(UserType::Customer)),
                created_at: create.then(Timestamp::now),
            };
            users::change(&commands, change).await?;
            let done = if create { "created" } else { "changed" };
            return Ok(format!("user {user_id} is {done}"));
        }
        Asked::Receive { sku_id, quantity } => {
            receive(&commands, sku_id, quantity).await?;
            return Ok(format!("{quantity} units of SKU {sku_id} are received"));
        }
        Asked::Cancel { order_id, reason } => {
            let at = Timestamp::now();
            (order_id, Command::Cancel { reason, at })
        }
        Asked::Ship {
            order_id,
            carrier,
            tracking_number,
        } => {
            let at = Timestamp::now();
            let ship = Command::Ship {
                carrier,
                tracking_number,
                at,
            };
            (order_id, ship)
        }
        Asked::Deliver { order_id } => (
            order_id,
            Command::Deliver {
                at: Timestamp::now(),
            },
        ),
    };
    let status = orders::command(&commands, order_id, command).await?;
    Ok(format!(
        "order {order_id} is {}",
        status.unwrap_or("as it was")
    ))
}

/// Units arrive: inventory-service counts them when it gets the event.
async fn receive(commands: &Commands, sku_id: i64, quantity: i64) -> Result<(), CommandError> {
    let command = Given::in_flow(Uuid::new_v4());
    let received = serde_json::json!({
        "sku_id": sku_id, "quantity": quantity, "reason": "purchase", "received_at": Timestamp::now(),
    });
    let publish = async |cx: &mut streamfleet::Context| {
        cx.publish("Inventory.Stock.Received", &received)?;
        Ok::<_, HandlerError>(())
    };
    commands.execute(command, publish).await.map(drop)
}

fn main() -> ExitCode {
    let args: Args = parse();
    core_dump::forbid();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(args)),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(done) => {
            println!("{done}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("shop: {error}");
            ExitCode::FAILURE
        }
    }
}
