//! What can be asked of an order, and when it will not do that. Pure.

use jiff::Timestamp;
use streamfleet::Decide;

use super::flow::{Fact, Order, Status};

/// What can be asked of an order.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// To exist; with what it is to be (`order_id`, …).
    Place(Fact),
    /// To end, for a reason.
    Cancel { reason: String, at: Timestamp },
    /// To be on its way.
    Ship {
        carrier: String,
        tracking_number: String,
        at: Timestamp,
    },
    /// To have arrived.
    Deliver { at: Timestamp },
}

/// Why an order will not do that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("there is an order {0} already")]
    Exists(i64),
    #[error("there is no such order")]
    Unknown,
    #[error("order {order_id} is {status}: it cannot be {asked} any more, or not yet")]
    NotNow {
        order_id: i64,
        status: &'static str,
        asked: &'static str,
    },
}

impl Decide for Order {
    type Command = Command;
    type Refusal = Refusal;

    fn decide(&self, command: Command) -> Result<Vec<Fact>, Refusal> {
        let not_now = |asked| {
            Err(Refusal::NotNow {
                order_id: self.order_id,
                status: self.status.as_str(),
                asked,
            })
        };
        match (command, self.status) {
            (Command::Place(placed), Status::Unknown) => Ok(vec![placed]),
            (Command::Place(_), _) => Err(Refusal::Exists(self.order_id)),
            (_, Status::Unknown) => Err(Refusal::Unknown),
            (Command::Cancel { reason, at }, Status::Pending | Status::Confirmed) => {
                Ok(vec![Fact::Cancelled {
                    reason,
                    elsewhere: false,
                    at,
                }])
            }
            (Command::Cancel { .. }, _) => not_now("cancelled"),
            (
                Command::Ship {
                    carrier,
                    tracking_number,
                    at,
                },
                Status::Confirmed,
            ) => Ok(vec![Fact::Shipped {
                carrier,
                tracking_number,
                at,
            }]),
            (Command::Ship { .. }, _) => not_now("shipped"),
            (Command::Deliver { at }, Status::Shipped) => Ok(vec![Fact::Delivered { at }]),
            (Command::Deliver { .. }, _) => not_now("delivered"),
        }
    }
}
