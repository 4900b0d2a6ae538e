//! Sagas: business flows of several services, which either complete or are undone.
//!
//! A saga is an aggregate that reacts to events: what it makes of an event are facts, kept in its
//! history; with a fact goes what the world is told of it, and if it fails, what undoes the steps
//! that had happened. A deadline is an event delivered in the future.
//!
//! Redis: `es:<Entity>:<id>` as for every aggregate; the hash `sagas:<Entity>` tells where each
//! saga stands that is not over (for `streamfleet saga list`); the deadline is in `scheduled`.
//!
//! **Guarantee.** Facts, follow-ups, deadline and acknowledgement are one step, on the version that
//! the reaction was decided on: of two events that race, the second is decided on what the first
//! left. So a saga completes or fails, never both, and its compensation is published once. A
//! deadline that is cancelled while it is delivered reaches `react` all the same, and must mean
//! nothing to a saga that is over.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::aggregate::{Aggregate, Versioned};
use super::context::Context;
use super::effects::EffectError;
use crate::error::HandlerError;
use crate::event::Event;

/// A business flow of several services.
pub trait Saga: Aggregate {
    /// The rules that it goes by, where they are not the same for ever (how long it waits).
    type Policy: Sync;

    /// The saga that an event is about, by the ID of its aggregate.
    ///
    /// # Errors
    /// The event does not say.
    fn instance(event: &Event) -> Result<String, HandlerError>;

    /// What an event means for it: the facts to record, none if it changes nothing. Pure, and it
    /// must expect events in any order, and each of them again.
    ///
    /// # Errors
    /// As a handler's: the event must be tried again (it may have overtaken another), or never.
    fn react(
        &self,
        event: &Event,
        arrival: Arrival,
        policy: &Self::Policy,
    ) -> Result<Vec<Self::Event>, HandlerError>;

    /// What the world is told of a fact; `self` is the state with it.
    ///
    /// # Errors
    /// Something cannot be written as JSON.
    fn announce(&self, fact: &Self::Event) -> Result<Vec<FollowUp>, EffectError>;

    /// What undoes the steps that had happened, published when it fails; `self` is the state then.
    ///
    /// # Errors
    /// Something cannot be written as JSON.
    fn compensate(&self) -> Result<Vec<FollowUp>, EffectError>;

    /// What it is to be told, and when, if it is still in this state by then. Another deadline, or
    /// none, replaces it.
    ///
    /// # Errors
    /// Something cannot be written as JSON.
    fn deadline(&self) -> Result<Option<Deadline>, EffectError>;

    /// Whether it goes on, and how it ended.
    fn outcome(&self) -> Outcome;

    /// Where it stands, in a word or two, for people.
    fn status(&self) -> String;
}

/// How an event comes to a saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// The time of the reaction, which may be long after the event's.
    pub now: Timestamp,
}

impl Arrival {
    /// An event that comes now.
    pub fn now(attempt: u32) -> Self {
        Self {
            attempt,
            now: Timestamp::now(),
        }
    }
}

/// Whether a saga goes on, and how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Something is still to happen.
    Running,
    /// All of it was done.
    Completed,
    /// It was given up, and what had been done is undone.
    Failed,
}

/// An event to publish.
#[derive(Debug, Clone)]
pub struct FollowUp {
    /// Its type, without the version.
    pub event_type: &'static str,
    data: Box<RawValue>,
}

impl FollowUp {
    /// An event with its data.
    ///
    /// # Errors
    /// The data cannot be written as JSON.
    pub fn new(event_type: &'static str, data: &impl Serialize) -> Result<Self, EffectError> {
        let data = serde_json::value::to_raw_value(data);
        Ok(Self {
            event_type,
            data: data.map_err(|e| EffectError::Json(e.to_string()))?,
        })
    }
}

/// An event that comes if nothing else does.
#[derive(Debug, Clone)]
pub struct Deadline {
    /// When.
    pub at: Timestamp,
    /// What.
    pub event: FollowUp,
}

/// Where a saga stands that is not over; as it is kept in `sagas:<Entity>`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Standing {
    /// In a word or two.
    pub status: String,
    /// The version of its history.
    pub version: u64,
    /// Event time of the newest fact.
    pub since: Timestamp,
    /// When it gets impatient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// The event that it gets then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_event: Option<Uuid>,
}

impl Context {
    /// Lets the saga that an event is about react to it. Answers the saga as it is with what is
    /// recorded now, or nothing if the event changed nothing.
    ///
    /// # Errors
    /// As [`Saga::react`]; Redis is away; an effect that cannot be asked for.
    pub async fn advance<S: Saga>(
        &mut self,
        event: &Event,
        policy: &S::Policy,
    ) -> Result<Option<Versioned<S>>, HandlerError> {
        let id = S::instance(event)?;
        let mut saga = self.aggregate::<S>(&id).await?;
        let arrival = Arrival::now(self.attempt());
        let facts = saga.state.react(event, arrival, policy)?;
        if facts.is_empty() {
            return Ok(None);
        }
        self.record(&id, &mut saga, facts).await?;
        Ok(Some(saga))
    }

    /// Records facts of a saga, with all that follows from them.
    ///
    /// # Errors
    /// Redis is away; an effect that cannot be asked for.
    pub async fn record<S: Saga>(
        &mut self,
        id: &str,
        saga: &mut Versioned<S>,
        facts: Vec<S::Event>,
    ) -> Result<(), HandlerError> {
        if facts.is_empty() {
            return Ok(());
        }
        let (due, outcome) = (saga.state.deadline()?.map(|d| d.at), saga.state.outcome());
        let mut follow_ups = Vec::new();
        for fact in facts {
            self.append_to(id, saga, std::slice::from_ref(&fact))?;
            follow_ups.extend(saga.state.announce(&fact)?);
        }
        if outcome != Outcome::Failed && saga.state.outcome() == Outcome::Failed {
            follow_ups.extend(saga.state.compensate()?);
        }
        for follow_up in follow_ups {
            self.publish(follow_up.event_type, &follow_up.data)?;
        }
        self.keep_standing(id, saga, due).await
    }

    /// Keeps the deadline and `sagas:<Entity>` as the state asks; `due` is what it asked before.
    async fn keep_standing<S: Saga>(
        &mut self,
        id: &str,
        saga: &Versioned<S>,
        due: Option<Timestamp>,
    ) -> Result<(), HandlerError> {
        let key = self.env.keys.sagas(S::ENTITY);
        let deadline = saga.state.deadline()?;
        let mut standing = Standing {
            status: saga.state.status(),
            version: saga.version,
            since: self.event.timestamp(),
            deadline: deadline.as_ref().map(|d| d.at),
            deadline_event: None,
        };
        // Written with each append, so what is read here is as old as the state that was read.
        let known = match due {
            Some(_) => self.standing(&key, id).await?.deadline_event,
            None => None,
        };
        if due == standing.deadline {
            standing.deadline_event = known;
        } else {
            if let Some(event) = known {
                self.cancel_scheduled(event)?;
            }
            if let Some(Deadline { at, event }) = deadline {
                let event = self.publish_at(event.event_type, &event.data, at)?;
                standing.deadline_event = Some(event);
            }
        }
        let field = id.as_bytes().to_vec();
        if saga.state.outcome() == Outcome::Running {
            let standing =
                serde_json::to_vec(&standing).map_err(|e| EffectError::Json(e.to_string()))?;
            let args = vec![field, standing];
            self.effects.effect("HSET", &key, Some("hash"), args)?;
        } else {
            self.effects
                .effect("HDEL", &key, Some("hash"), vec![field])?;
        }
        Ok(())
    }

    async fn standing(&mut self, key: &str, id: &str) -> Result<Standing, HandlerError> {
        let known: Option<Vec<u8>> = self.query(redis::cmd("HGET").arg(key).arg(id)).await?;
        // Only for people, but for the deadline, which is harmless when it is late.
        Ok(known
            .and_then(|json| serde_json::from_slice(&json).ok())
            .unwrap_or_default())
    }
}
