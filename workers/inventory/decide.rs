//! What the inventory service decides, apart from Redis and events: pure functions.

use serde::{Deserialize, Serialize};

/// Units of one SKU. Every stock event carries the balance after it, so the newest event alone
/// tells the state and loading it takes one read, however long the history is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Balance {
    /// Free to be ordered; never below zero.
    pub(crate) available: i64,
    /// Set aside for orders that are neither shipped nor cancelled.
    pub(crate) reserved: i64,
}

/// Units of one SKU in an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) sku_id: i64,
    pub(crate) quantity: i64,
}

/// How an order stands with the inventory; the newest event of `es:Reservation:<order_id>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reservation {
    /// Never heard of.
    None,
    /// Units are set aside.
    Reserved(Vec<Line>),
    /// Rejected, released, or cancelled before it arrived: nothing will happen any more.
    Closed,
}

/// What a cancellation asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cancellation {
    /// Remember it, so that the order, when it arrives late, sets nothing aside.
    Remember,
    /// Free these units.
    Release(Vec<Line>),
    /// Nothing is set aside, or no longer.
    Nothing,
}

/// Why an order cannot be served: the first of its SKUs that stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// The SKU was never received.
    UnknownSku { sku_id: i64, requested: i64 },
    /// Fewer units are free than the order asks for.
    Insufficient {
        sku_id: i64,
        requested: i64,
        available: i64,
    },
}

/// A quantity that cannot be counted. No retry will help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QuantityError {
    #[error("SKU {sku_id}: the quantity {quantity} is not positive")]
    NotPositive { sku_id: i64, quantity: i64 },
    #[error("SKU {sku_id}: the units add up to more than can be counted")]
    TooMany { sku_id: i64 },
    #[error("SKU {sku_id}: {quantity} units are to be released, but only {reserved} are set aside")]
    NotReserved {
        sku_id: i64,
        quantity: i64,
        reserved: i64,
    },
}

/// One line per SKU, in the order in which the SKUs first appear.
pub(crate) fn sum_lines(lines: &[Line]) -> Result<Vec<Line>, QuantityError> {
    let mut sums: Vec<Line> = Vec::with_capacity(lines.len());
    let mut position = std::collections::HashMap::with_capacity(lines.len());
    for line in lines {
        check_positive(line)?;
        let at = *position.entry(line.sku_id).or_insert(sums.len());
        match sums.get_mut(at) {
            Some(sum) => sum.quantity = add(line.sku_id, sum.quantity, line.quantity)?,
            None => sums.push(*line),
        }
    }
    Ok(sums)
}

/// Sets one line aside; `stock` is `None` for a SKU that was never received.
pub(crate) fn reserve(line: &Line, stock: Option<Balance>) -> Result<Balance, Shortage> {
    let Line {
        sku_id,
        quantity: requested,
    } = *line;
    let Some(Balance {
        available,
        reserved,
    }) = stock
    else {
        return Err(Shortage::UnknownSku { sku_id, requested });
    };
    // What is set aside was once received, so it fits the same integer; the check costs nothing.
    match (
        available.checked_sub(requested),
        reserved.checked_add(requested),
    ) {
        (Some(left), Some(reserved)) if left >= 0 => Ok(Balance {
            available: left,
            reserved,
        }),
        _ => Err(Shortage::Insufficient {
            sku_id,
            requested,
            available,
        }),
    }
}

/// Frees one line again.
pub(crate) fn release(line: &Line, stock: Option<Balance>) -> Result<Balance, QuantityError> {
    let Line { sku_id, quantity } = *line;
    let Balance {
        available,
        reserved,
    } = stock.unwrap_or_default();
    if quantity > reserved {
        return Err(QuantityError::NotReserved {
            sku_id,
            quantity,
            reserved,
        });
    }
    Ok(Balance {
        available: add(sku_id, available, quantity)?,
        reserved: reserved - quantity,
    })
}

/// Adds units that arrived.
pub(crate) fn receive(line: &Line, stock: Option<Balance>) -> Result<Balance, QuantityError> {
    check_positive(line)?;
    let before = stock.unwrap_or_default();
    // Everything ever received must fit, also when all of it is released again.
    add(
        line.sku_id,
        add(line.sku_id, before.available, before.reserved)?,
        line.quantity,
    )?;
    Ok(Balance {
        available: before.available + line.quantity,
        ..before
    })
}

/// Whether an order is to be answered: only the first time, and not once it was cancelled.
pub(crate) fn is_to_be_answered(reservation: &Reservation) -> bool {
    *reservation == Reservation::None
}

/// What a cancellation does to an order that stands like this.
pub(crate) fn cancel(reservation: Reservation) -> Cancellation {
    match reservation {
        Reservation::None => Cancellation::Remember,
        Reservation::Reserved(lines) => Cancellation::Release(lines),
        Reservation::Closed => Cancellation::Nothing,
    }
}

fn check_positive(line: &Line) -> Result<(), QuantityError> {
    let Line { sku_id, quantity } = *line;
    if quantity > 0 {
        Ok(())
    } else {
        Err(QuantityError::NotPositive { sku_id, quantity })
    }
}

fn add(sku_id: i64, a: i64, b: i64) -> Result<i64, QuantityError> {
    a.checked_add(b).ok_or(QuantityError::TooMany { sku_id })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(sku_id: i64, quantity: i64) -> Line {
        Line { sku_id, quantity }
    }

    fn balance(available: i64, reserved: i64) -> Balance {
        Balance {
            available,
            reserved,
        }
    }

    #[test]
    fn lines_of_one_sku_are_summed_in_the_order_of_first_sight() {
        let sums = sum_lines(&[line(7, 2), line(3, 1), line(7, 5)]).unwrap();
        assert_eq!(sums, [line(7, 7), line(3, 1)]);
        assert_eq!(
            sum_lines(&[line(7, 0)]),
            Err(QuantityError::NotPositive {
                sku_id: 7,
                quantity: 0
            })
        );
        assert_eq!(
            sum_lines(&[line(7, i64::MAX), line(7, 1)]),
            Err(QuantityError::TooMany { sku_id: 7 })
        );
    }

    #[test]
    fn the_last_unit_can_be_reserved_and_none_beyond_it() {
        assert_eq!(reserve(&line(7, 3), Some(balance(3, 1))), Ok(balance(0, 4)));
        assert_eq!(
            reserve(&line(7, 4), Some(balance(3, 1))),
            Err(Shortage::Insufficient {
                sku_id: 7,
                requested: 4,
                available: 3
            })
        );
        assert_eq!(
            reserve(&line(7, 1), None),
            Err(Shortage::UnknownSku {
                sku_id: 7,
                requested: 1
            })
        );
    }

    #[test]
    fn a_release_undoes_a_reservation_and_no_more() {
        let reserved = reserve(&line(7, 3), Some(balance(5, 0))).unwrap();
        assert_eq!(release(&line(7, 3), Some(reserved)), Ok(balance(5, 0)));
        assert_eq!(
            release(&line(7, 4), Some(reserved)),
            Err(QuantityError::NotReserved {
                sku_id: 7,
                quantity: 4,
                reserved: 3
            })
        );
    }

    #[test]
    fn receipts_add_up_until_they_cannot_be_counted() {
        assert_eq!(receive(&line(7, 5), None), Ok(balance(5, 0)));
        assert_eq!(receive(&line(7, 5), Some(balance(1, 2))), Ok(balance(6, 2)));
        let full = balance(i64::MAX - 2, 2);
        assert_eq!(
            receive(&line(7, 1), Some(full)),
            Err(QuantityError::TooMany { sku_id: 7 })
        );
    }

    proptest::proptest! {
        /// Whatever happens in whatever order, units neither appear nor vanish.
        #[test]
        fn units_are_conserved(steps in proptest::collection::vec((0..3_u8, 1..20_i64), 0..60)) {
            let (mut stock, mut received) = (None, 0);
            for (step, quantity) in steps {
                let line = line(7, quantity);
                let next = match step {
                    0 => receive(&line, stock).inspect(|_| received += quantity).ok(),
                    1 => reserve(&line, stock).ok(),
                    _ => release(&line, stock).ok(),
                };
                stock = next.or(stock);
                let Balance { available, reserved } = stock.unwrap_or_default();
                assert!(available >= 0 && reserved >= 0);
                assert_eq!(available + reserved, received);
            }
        }
    }

    #[test]
    fn an_order_is_answered_once_and_released_once() {
        let reserved = Reservation::Reserved(vec![line(7, 1)]);
        assert!(is_to_be_answered(&Reservation::None));
        assert!(!is_to_be_answered(&reserved));
        assert!(!is_to_be_answered(&Reservation::Closed));
        assert_eq!(cancel(reserved), Cancellation::Release(vec![line(7, 1)]));
        assert_eq!(cancel(Reservation::None), Cancellation::Remember);
        assert_eq!(cancel(Reservation::Closed), Cancellation::Nothing);
    }
}
