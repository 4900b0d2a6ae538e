//! The user as an aggregate: what its events make of it, apart from Redis. Pure.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use streamfleet::{Aggregate, Decide};
use uuid::Uuid;

use super::latest::{Latest, Stamp, offer};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum UserType {
    Customer,
    Vendor,
    Admin,
}

impl UserType {
    fn name(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Vendor => "vendor",
            Self::Admin => "admin",
        }
    }
}

/// `User.Created` or `User.Updated`, as far as the account needs it. A field that is absent is one
/// that the event does not speak of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) user_id: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user_type: Option<UserType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) created_at: Option<Timestamp>,
}

/// An event of `es:User:<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub(crate) enum Happened {
    #[serde(rename = "User.Created")]
    Created(Fact),
    #[serde(rename = "User.Updated")]
    Updated(Fact),
}

/// What was said, when it happened, and which event said it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fact {
    pub(crate) at: Timestamp,
    pub(crate) by: Uuid,
    /// Whether a command appended it: its event is still to come, and then adds nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) commanded: bool,
    pub(crate) change: Change,
}

/// Events of commands that are remembered until they come.
const MOST_COMMANDED: usize = 50;

/// A user: each field as the newest event by event time has it. The history is in the order of
/// arrival, and the user is the same whatever that order was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    username: Option<Latest<String>>,
    email: Option<Latest<String>>,
    user_type: Option<Latest<UserType>>,
    created_at: Option<Latest<Timestamp>>,
    /// The events of the newest commands.
    commanded: Vec<Uuid>,
}

impl Aggregate for Account {
    const ENTITY: &'static str = "User";
    const SHAPE: u32 = 2;
    const SNAPSHOT_EVERY: u64 = 20;
    type Event = Happened;

    fn apply(&mut self, event: &Happened) {
        // A creation is no more than the first update: either may come first.
        let (Happened::Created(fact) | Happened::Updated(fact)) = event;
        let Fact {
            at,
            by,
            commanded,
            change,
        } = fact.clone();
        if commanded {
            self.commanded.push(by);
            let too_many = self.commanded.len().saturating_sub(MOST_COMMANDED);
            self.commanded.drain(..too_many);
        }
        let stamp = Stamp { at, by };
        offer(&mut self.username, change.username, stamp);
        offer(&mut self.email, change.email, stamp);
        offer(&mut self.user_type, change.user_type, stamp);
        offer(&mut self.created_at, change.created_at, stamp);
    }
}

/// What can be asked of a user.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// To exist.
    Create(Fact),
    /// To be called otherwise, to get mail elsewhere, to be of another type.
    Change(Fact),
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("there is a user {0} already")]
    Exists(i64),
    #[error("there is no user {0}")]
    Unknown(i64),
    #[error("user {0}: nothing is to be changed")]
    Nothing(i64),
}

impl Decide for Account {
    type Command = Command;
    type Refusal = Refusal;

    fn decide(&self, command: Command) -> Result<Vec<Happened>, Refusal> {
        let exists = self.created_at.is_some();
        match command {
            Command::Create(fact) if exists => Err(Refusal::Exists(fact.change.user_id)),
            Command::Create(fact) => Ok(vec![Happened::Created(fact)]),
            Command::Change(fact) if !exists => Err(Refusal::Unknown(fact.change.user_id)),
            Command::Change(fact) if fact.change.is_nothing() => {
                Err(Refusal::Nothing(fact.change.user_id))
            }
            Command::Change(fact) => Ok(vec![Happened::Updated(fact)]),
        }
    }
}

impl Change {
    fn is_nothing(&self) -> bool {
        let user_id = self.user_id;
        *self
            == Self {
                user_id,
                ..Self::default()
            }
    }
}

impl Account {
    /// Whether a command has appended what this event says.
    pub(crate) fn has(&self, event: Uuid) -> bool {
        self.commanded.contains(&event)
    }

    /// What is known of the user, field by field, as text.
    pub(crate) fn shown(&self) -> impl Iterator<Item = (&'static str, String)> {
        let times = [
            self.username.as_ref().map(|field| field.at),
            self.email.as_ref().map(|field| field.at),
            self.user_type.as_ref().map(|field| field.at),
            self.created_at.as_ref().map(|field| field.at),
        ];
        let as_of = times.into_iter().flatten().max();
        let text = |field: &Option<Latest<String>>| field.as_ref().map(|field| field.value.clone());
        let user_type = self.user_type.as_ref().map(|field| field.value.name());
        [
            ("username", text(&self.username)),
            ("email", text(&self.email)),
            ("user_type", user_type.map(str::to_owned)),
            (
                "created_at",
                self.created_at
                    .as_ref()
                    .map(|field| field.value.to_string()),
            ),
            ("as_of", as_of.map(|at| at.to_string())),
        ]
        .into_iter()
        .filter_map(|(field, value)| Some((field, value?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(second: i64, id: usize, fields: &str) -> Happened {
        let fact = Fact {
            at: Timestamp::from_second(second).unwrap(),
            by: Uuid::from_u128(id as u128),
            commanded: false,
            change: serde_json::from_str(&format!("{{\"user_id\":1{fields}}}")).unwrap(),
        };
        if fields.contains("created_at") {
            Happened::Created(fact)
        } else {
            Happened::Updated(fact)
        }
    }

    fn account(facts: &[Happened]) -> Account {
        let mut account = Account::default();
        facts.iter().for_each(|fact| account.apply(fact));
        account
    }

    #[test]
    fn an_older_update_fills_gaps_and_overrides_nothing() {
        let created = r#","username":"Ann","email":"a@a.org","user_type":"customer","created_at":"2026-01-05T10:00:00Z""#;
        let facts = [
            fact(1, 1, created),
            fact(3, 2, r#","email":"ann@a.org""#),
            fact(2, 3, r#","email":"late@a.org","username":"Anna""#),
        ];
        let shown: Vec<_> = account(&facts)
            .shown()
            .map(|(name, text)| format!("{name}={text}"))
            .collect();
        assert_eq!(
            shown,
            [
                "username=Anna",
                "email=ann@a.org",
                "user_type=customer",
                "created_at=2026-01-05T10:00:00Z",
                "as_of=1970-01-01T00:00:03Z",
            ]
        );
        assert_eq!(Account::default().shown().count(), 0);
    }

    proptest::proptest! {
        /// Whatever order facts come in and however often, and whether the account was stored
        /// in between, it is the same.
        #[test]
        fn an_account_is_the_same_for_every_order(
            events in proptest::collection::vec((0..5_i64, 0..5_usize), 1..9),
            order in proptest::collection::vec(0..9_usize, 0..18),
        ) {
            let said = [
                r#","username":"Ann","email":"a@a.org","user_type":"customer","created_at":"2026-01-05T10:00:00Z""#,
                r#","username":"Anna""#,
                r#","email":"b@a.org","user_type":"vendor""#,
                r#","email":"c@a.org""#,
                "",
            ];
            let facts: Vec<_> = events
                .iter()
                .enumerate()
                .map(|(id, (second, said_as))| fact(*second, id, said[*said_as]))
                .collect();
            let again: Vec<_> = order.iter().map(|i| facts[i % facts.len()].clone()).collect();
            let snapshot = serde_json::to_string(&account(&again)).unwrap();
            let mut any: Account = serde_json::from_str(&snapshot).unwrap();
            facts.iter().rev().for_each(|fact| any.apply(fact));
            assert_eq!(any, account(&facts));
        }
    }

    #[test]
    fn commands_are_decided_on_what_the_user_is() {
        let Happened::Updated(rename) = fact(5, 5, ",\"username\":\"Eve\"") else {
            panic!("no update");
        };
        let Happened::Updated(nothing) = fact(5, 5, "") else {
            panic!("no update");
        };
        let mut user = Account::default();
        let refused = user.decide(Command::Change(rename.clone()));
        assert_eq!(refused, Err(Refusal::Unknown(1)));
        let created = fact(1, 1, ",\"created_at\":\"1970-01-01T00:00:01Z\"");
        let Happened::Created(creation) = &created else {
            panic!("no creation");
        };
        let creation = Fact {
            commanded: true,
            ..creation.clone()
        };
        for event in user.decide(Command::Create(creation.clone())).unwrap() {
            user.apply(&event);
        }
        assert!(user.has(creation.by) && !user.has(rename.by));
        assert_eq!(
            user.decide(Command::Create(creation)),
            Err(Refusal::Exists(1))
        );
        assert_eq!(
            user.decide(Command::Change(nothing)),
            Err(Refusal::Nothing(1))
        );
        assert_eq!(user.decide(Command::Change(rename)).unwrap().len(), 1);
    }
}
