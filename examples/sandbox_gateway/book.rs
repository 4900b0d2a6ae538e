//! The books of the sandbox gateway: which key was charged, declined or voided, and the exact sums.
//! Pure: what a request comes to is decided here, and changes the books only by an [`Entry`].

use std::collections::HashMap;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// A change of the books, which is also a line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub(crate) enum Entry {
    /// An order was charged under a key.
    Charged {
        key: String,
        order_id: i64,
        amount: Decimal,
        charge_id: String,
    },
    /// A charge was declined.
    Declined {
        key: String,
        order_id: i64,
        amount: Decimal,
        reason: String,
    },
    /// A key was voided, and what had been charged under it paid back.
    Voided {
        key: String,
        refund_id: Option<String>,
    },
}

/// What is asked to be charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    order_id: i64,
    amount: Decimal,
}

impl Asked {
    /// With two decimals, or as many more as the amount needs.
    pub(crate) fn new(order_id: i64, amount: Decimal) -> Self {
        let mut amount = amount.normalize();
        if amount.scale() < 2 {
            amount.rescale(2);
        }
        Self { order_id, amount }
    }
}

/// How a key stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    Charged { asked: Asked, charge_id: String },
    Declined { asked: Asked, reason: String },
    Voided(Option<Refund>),
}

/// What was paid back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refund {
    pub(crate) refund_id: String,
    pub(crate) charge_id: String,
    pub(crate) amount: Decimal,
}

/// What a charge comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Charge {
    Made { charge_id: String, amount: Decimal },
    Declined { reason: String },
    Voided,
    KeyReused,
    Impossible(String),
}

/// Sums and counts of everything that ever happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Ledger {
    pub(crate) charged: Decimal,
    pub(crate) refunded: Decimal,
    pub(crate) net: Decimal,
    pub(crate) charges: u64,
    pub(crate) refunds: u64,
    pub(crate) declines: u64,
}

/// The books.
#[derive(Default)]
pub(crate) struct Book {
    keys: HashMap<String, Key>,
    ledger: Ledger,
}

impl Book {
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What a charge comes to, and how it changes the books. `fresh`: an ID that is not in use.
    pub(crate) fn charge(
        &self,
        key: &str,
        asked: &Asked,
        decline_above: Option<Decimal>,
        fresh: &str,
    ) -> (Charge, Option<Entry>) {
        let Asked { order_id, amount } = *asked;
        match self.keys.get(key) {
            Some(Key::Voided(_)) => return (Charge::Voided, None),
            Some(Key::Charged { asked: held, .. } | Key::Declined { asked: held, .. })
                if held != asked =>
            {
                return (Charge::KeyReused, None);
            }
            Some(Key::Charged { charge_id, .. }) => {
                let charge_id = charge_id.clone();
                return (Charge::Made { charge_id, amount }, None);
            }
            Some(Key::Declined { reason, .. }) => {
                let reason = reason.clone();
                return (Charge::Declined { reason }, None);
            }
            None => {}
        }
        if let Err(message) = self.chargeable(amount) {
            return (Charge::Impossible(message), None);
        }
        let key = key.to_owned();
        if decline_above.is_some_and(|limit| amount > limit) {
            let reason = "limit_exceeded".to_owned();
            let entry = Entry::Declined {
                key,
                order_id,
                amount,
                reason: reason.clone(),
            };
            return (Charge::Declined { reason }, Some(entry));
        }
        let charge_id = format!("charge-{fresh}");
        let entry = Entry::Charged {
            key,
            order_id,
            amount,
            charge_id: charge_id.clone(),
        };
        (Charge::Made { charge_id, amount }, Some(entry))
    }

    /// What voiding a key comes to: the refund, if it was charged.
    pub(crate) fn void(&self, key: &str, fresh: &str) -> (Option<Refund>, Option<Entry>) {
        let refund = match self.keys.get(key) {
            Some(Key::Voided(refund)) => return (refund.clone(), None),
            Some(Key::Charged { asked, charge_id }) => Some(Refund {
                refund_id: format!("refund-{fresh}"),
                charge_id: charge_id.clone(),
                amount: asked.amount,
            }),
            Some(Key::Declined { .. }) | None => None,
        };
        let entry = Entry::Voided {
            key: key.to_owned(),
            refund_id: refund.as_ref().map(|refund| refund.refund_id.clone()),
        };
        (refund, Some(entry))
    }

    /// Changes the books. Entries come from the two functions above, now or in an earlier life.
    pub(crate) fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Charged {
                key,
                order_id,
                amount,
                charge_id,
            } => {
                // They were checked to fit before the entry was made.
                self.ledger.charged += amount;
                self.ledger.charges += 1;
                let asked = Asked::new(order_id, amount);
                self.keys.insert(key, Key::Charged { asked, charge_id });
            }
            Entry::Declined {
                key,
                order_id,
                amount,
                reason,
            } => {
                self.ledger.declines += 1;
                let asked = Asked::new(order_id, amount);
                self.keys.insert(key, Key::Declined { asked, reason });
            }
            Entry::Voided { key, refund_id } => {
                let refund = match (self.keys.remove(&key), refund_id) {
                    (Some(Key::Charged { asked, charge_id }), Some(refund_id)) => {
                        self.ledger.refunded += asked.amount;
                        self.ledger.refunds += 1;
                        Some(Refund {
                            refund_id,
                            charge_id,
                            amount: asked.amount,
                        })
                    }
                    _ => None,
                };
                self.keys.insert(key, Key::Voided(refund));
            }
        }
        self.ledger.net = self.ledger.charged - self.ledger.refunded;
    }

    fn chargeable(&self, amount: Decimal) -> Result<(), String> {
        if amount <= Decimal::ZERO {
            return Err(format!("{amount} cannot be charged: it is not above zero"));
        }
        if amount.scale() > 2 {
            return Err(format!(
                "{amount} cannot be charged: it is not a whole number of cents"
            ));
        }
        // With the cents of the sum as digits of their own, so that the sum stays exact.
        let cents = |amount: Decimal| amount.checked_mul(Decimal::ONE_HUNDRED);
        let sum = cents(self.ledger.charged).zip(cents(amount));
        match sum.and_then(|(sum, more)| sum.checked_add(more)) {
            Some(_) => Ok(()),
            None => Err(format!(
                "{amount} cannot be charged: the books cannot hold it"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(order_id: i64, amount: &str) -> Asked {
        Asked::new(order_id, amount.parse().unwrap())
    }

    fn charge(book: &mut Book, key: &str, asked: &Asked) -> Charge {
        let limit = Some(Decimal::ONE_HUNDRED);
        let fresh = book.ledger.charges.to_string();
        let (charge, entry) = book.charge(key, asked, limit, &fresh);
        entry.into_iter().for_each(|entry| book.apply(entry));
        charge
    }

    fn void(book: &mut Book, key: &str) -> Option<Refund> {
        let fresh = book.ledger.refunds.to_string();
        let (refund, entry) = book.void(key, &fresh);
        entry.into_iter().for_each(|entry| book.apply(entry));
        refund
    }

    fn sums(book: &Book) -> (String, String, String) {
        let Ledger {
            charged,
            refunded,
            net,
            ..
        } = book.ledger();
        (charged.to_string(), refunded.to_string(), net.to_string())
    }

    #[test]
    fn a_key_is_charged_once_and_refunded_once() {
        let mut book = Book::default();
        let first = charge(&mut book, "a", &asked(1, "10.10"));
        assert!(matches!(&first, Charge::Made { .. }));
        assert_eq!(charge(&mut book, "a", &asked(1, "10.1")), first);
        charge(&mut book, "b", &asked(2, "0.25"));
        assert_eq!(sums(&book), ("10.35".into(), "0".into(), "10.35".into()));

        let refund = void(&mut book, "a").unwrap();
        assert_eq!(refund.amount, "10.10".parse().unwrap());
        assert_eq!(void(&mut book, "a"), Some(refund));
        assert_eq!(charge(&mut book, "a", &asked(1, "10.10")), Charge::Voided);
        assert_eq!(sums(&book), ("10.35".into(), "10.10".into(), "0.25".into()));
        assert_eq!((book.ledger.charges, book.ledger.refunds), (2, 1));
    }

    #[test]
    fn a_voided_key_is_never_charged() {
        let mut book = Book::default();
        assert_eq!(void(&mut book, "a"), None);
        assert_eq!(charge(&mut book, "a", &asked(1, "1")), Charge::Voided);
        assert_eq!(void(&mut book, "a"), None);
        assert_eq!(book.ledger(), &Ledger::default());
    }

    #[test]
    fn a_key_stands_for_one_order_and_amount() {
        let mut book = Book::default();
        charge(&mut book, "a", &asked(1, "1"));
        assert_eq!(charge(&mut book, "a", &asked(1, "2")), Charge::KeyReused);
        assert_eq!(charge(&mut book, "a", &asked(2, "1")), Charge::KeyReused);
    }

    #[test]
    fn what_was_declined_stays_declined_whatever_the_rules_say_later() {
        let mut book = Book::default();
        let large = asked(1, "100.01");
        let declined = charge(&mut book, "a", &large);
        assert!(matches!(&declined, Charge::Declined { reason } if reason == "limit_exceeded"));
        assert_eq!(book.charge("a", &large, None, "x"), (declined, None));
        assert_eq!(void(&mut book, "a"), None);
        assert_eq!((book.ledger.declines, book.ledger.charges), (1, 0));
    }

    #[test]
    fn an_amount_that_is_no_money_or_too_much_is_impossible() {
        let mut book = Book::default();
        for amount in ["0", "-1", "0.001", "79228162514264337593543950335"] {
            let charge = charge(&mut book, "a", &asked(1, amount));
            assert!(matches!(charge, Charge::Impossible(_)), "{amount}");
        }
        assert!(matches!(
            charge(&mut book, "a", &asked(1, "1.500")),
            Charge::Made { .. }
        ));
    }

    #[test]
    fn entries_read_back_are_the_same_books() {
        let mut book = Book::default();
        let (_, charged) = book.charge("a", &asked(1, "10.10"), None, "1");
        let charged = charged.unwrap();
        let text = serde_json::to_string(&charged).unwrap();
        assert!(text.contains(r#""amount":"10.10""#), "{text}");
        assert_eq!(serde_json::from_str::<Entry>(&text).unwrap(), charged);
        book.apply(charged);
        assert!(void(&mut book, "a").is_some());
    }
}
