//! The model's side of each step, and the call for Redis' side of it.

use super::super::scripts::{Answer, Call, Handed, Request, Scripts};
use super::super::store::{Content, Id, Queue, Store};
use super::ops::{Meanwhile, Op};
use super::real::Real;
use super::{Row, SUBSCRIBERS, Said, consumer};

/// The model, and all that was ever handed out.
pub(super) struct Twin {
    scripts: Scripts,
    pub(super) store: Store,
    handed: Vec<Handed>,
}

impl Twin {
    pub(super) fn new(scripts: Scripts) -> Self {
        let (store, handed) = (Store::new(SUBSCRIBERS), Vec::new());
        Self {
            scripts,
            store,
            handed,
        }
    }

    /// The newest that was handed out of a queue is number 0.
    fn claim(&self, queue: Queue, nth: usize) -> Option<Handed> {
        let of_queue = self
            .handed
            .iter()
            .rev()
            .filter(|handed| handed.claim.queue == queue);
        of_queue.cycle().nth(nth).copied()
    }

    fn routing(&self, nth: usize) -> Option<Request> {
        let handed = self.claim(Queue::Inbox, nth)?;
        Some(request(handed, false, Call::Route))
    }

    /// Runs a step on both; `None` if there is nothing for it to act on.
    pub(super) async fn step(&mut self, real: &mut Real, op: &Op) -> Option<(Said, Said)> {
        let (scripts, store) = (self.scripts, &mut self.store);
        Some(match *op {
            Op::Publish(event, content) => {
                store.inbox.add(event, content);
                (Said::Nothing, real.publish(event, content).await)
            }
            Op::Read(queue, by) => {
                if store.undelivered(queue).is_none() && by == 0 {
                    return None; // tried often enough by the other
                }
                let handed = scripts.read(store, queue, consumer(by));
                self.handed.extend(handed);
                let rows = handed.iter().map(row).collect();
                (Said::Handed(rows), real.read(queue, by).await)
            }
            Op::Reclaim {
                queue,
                by,
                parked_only,
                limit,
            } => {
                let mut due = scripts.due(store, queue, parked_only);
                if due.is_empty() && !parked_only {
                    return None;
                }
                due.truncate(limit);
                let lost_before = store.stats.lost;
                let claim = |&id: &Id| scripts.reclaim(store, queue, id, consumer(by));
                let handed: Vec<_> = due.iter().filter_map(claim).collect();
                let lost = usize::from(store.stats.lost - lost_before);
                let parked_again = due.len() - lost - handed.len();
                self.handed.extend(&handed);
                let rows = handed.iter().map(row).collect();
                (
                    Said::Reclaimed(rows, lost, parked_again),
                    real.reclaim(queue, by, parked_only, limit).await,
                )
            }
            Op::Fenced {
                queue,
                claim,
                troubled,
                call,
            } => {
                let request = request(self.claim(queue, claim)?, troubled, call);
                let answer = scripts.run(&mut self.store, &request);
                let said = match call {
                    Call::Route => Said::Fenced(usize::from(answer != Answer::Held)),
                    _ => Said::Settled(answer),
                };
                (said, real.fenced(&[request]).await)
            }
            Op::RouteTwo(a, b) => {
                let mut batch = [self.routing(a)?, self.routing(b)?];
                batch.sort_by_key(|request| request.claim.id);
                let same = batch[0].claim.consumer == batch[1].claim.consumer;
                if !same || batch[0].claim.id == batch[1].claim.id {
                    return None;
                }
                let answers = batch.map(|request| scripts.run(&mut self.store, &request));
                let fenced = answers
                    .iter()
                    .filter(|answer| **answer != Answer::Held)
                    .count();
                (Said::Fenced(fenced), real.fenced(&batch).await)
            }
            Op::Transact(nth, meanwhile) => {
                let handed = self.claim(Queue::Inbox, nth)?;
                let fresh = handed.claim.count == 1 && handed.entry.content != Content::Invalid;
                let request = fresh.then(|| request(handed, false, Call::Write))?;
                let other = match meanwhile {
                    Meanwhile::Route(nth) => Some(self.routing(nth)?),
                    _ => None,
                };
                let (ready, begun) = (real.open(&request).await, self.store.clone());
                let clean = scripts.is_clean(&self.store, &request);
                match (meanwhile, other) {
                    (_, Some(other)) => {
                        scripts.run(&mut self.store, &other);
                        real.fenced(&[other]).await;
                    }
                    (Meanwhile::TakeOver(of), _) => {
                        scripts.take_over(&mut self.store, Queue::Inbox, consumer(of));
                        real.take_over(Queue::Inbox, of).await;
                    }
                    _ => {}
                }
                let written = clean && !scripts.disturbs(&begun, &self.store);
                if written {
                    scripts.run(&mut self.store, &request);
                }
                let executed = match ready {
                    Some(ready) => Some(ready.execute().await.unwrap_or(true)),
                    None => None,
                };
                (
                    Said::Transacted(clean.then_some(written)),
                    Said::Transacted(executed),
                )
            }
            Op::TakeOver(queue, of) => {
                scripts.take_over(store, queue, consumer(of));
                (Said::Nothing, real.take_over(queue, of).await)
            }
            Op::DropConsumer(queue, of) => {
                scripts.drop_consumer(store, queue, consumer(of));
                (Said::Nothing, real.drop_consumer(queue, of).await)
            }
            Op::Freeze(queue, nth) => {
                let pending = store.group(queue).pending.iter();
                let (&id, &pending) = pending.clone().cycle().nth(nth)?;
                store.stream(queue).get(id)?;
                store.group_mut(queue).pending.get_mut(&id)?.idle = true;
                (Said::Nothing, real.freeze(queue, id, pending.owner).await)
            }
            Op::Redrive(nth) => {
                // One that was ever written; perhaps it is no longer there.
                let letter = store
                    .letters_written
                    .checked_sub(nth as u8)
                    .filter(|id| *id > 0)?;
                let event = store
                    .letters
                    .iter()
                    .find(|l| l.id == letter)
                    .map_or(0, |l| l.event);
                let redriven = scripts.redrive(store, letter);
                (Said::Redriven(redriven), real.redrive(letter, event).await)
            }
            Op::Trim { maxlen, oldest } => {
                let oldest = oldest.map(|id| id.min(store.domain.last + 1));
                if store.domain.entries.is_empty() {
                    return None;
                }
                scripts.trim(store, maxlen, oldest);
                (Said::Nothing, real.trim(maxlen, oldest).await)
            }
            Op::Delete(queue, nth) => {
                let pending = store.group(queue).pending.keys();
                let entry = store.stream(queue).get(*pending.cycle().nth(nth)?)?;
                store.stream_mut(queue).delete(entry.id);
                (Said::Nothing, real.delete(queue, entry.id).await)
            }
        })
    }
}

fn row(handed: &Handed) -> Row {
    let claim = &handed.claim;
    (claim.id, claim.count, handed.starts, handed.failures)
}

fn request(handed: Handed, troubled: bool, call: Call) -> Request {
    let (claim, entry) = (handed.claim, handed.entry);
    Request {
        claim,
        entry,
        troubled,
        call,
    }
}
