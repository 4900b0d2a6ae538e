//! How a router takes new configurations over.
//!
//! Redis: the groups of the new configuration, and in `fleet` its generation, the configuration that is
//! routed by and the dedupe windows in use.
//! Guarantee: a configuration is in force only once its groups exist. One that a key of Redis stands
//! against changes nothing, routing goes on by the one before, and while the file says so no event of the
//! inbox is refused for what only the new one knows.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Router, UPKEEP, WINDOW_UPKEEP};
use crate::fleet::{self, Membership};
use crate::router::decide::{Verdict, examine, might_pass_with_newer_config};
use crate::router::dedupe::Window;
use crate::routing::Config;
use crate::store::{Fence, Fields, StoreError, refuses_key};

/// How long events wait that only a refused configuration knows, before they are looked at again.
const AWAITS_REPAIR: Duration = Duration::from_secs(5);

/// A configuration that Redis stands against.
pub(super) struct Refused {
    config: Arc<Config>,
    told: Option<String>,
    tried: Instant,
}

impl Router {
    /// Takes a new configuration over, if there is one. One that Redis stands against is tried again from time to
    /// time. Answers whether another one is in force now.
    pub(super) async fn take_config(&mut self) -> Result<bool, StoreError> {
        if !self.config.has_changed().unwrap_or(false) {
            return Ok(false);
        }
        let new = self.config.borrow_and_update().clone();
        // (The same content handed on again is told again.)
        let is_new = |refused: &Refused| Arc::ptr_eq(&refused.config, &new);
        let mut refused = self.refused.take().filter(is_new);
        if new.fingerprint() == self.active.fingerprint() {
            return Ok(false); // the file has been put back
        }
        if refused.as_ref().is_none_or(|r| r.tried.elapsed() >= UPKEEP) {
            let prepared = self.prepare(&new).await;
            // What the file does not say any more is neither taken nor told.
            if self.config.has_changed().unwrap_or(false) {
                return Ok(false);
            }
            let prepared = match prepared {
                Ok(prepared) => {
                    let said = fleet::route_by(&self.link, &self.keys, &new).await;
                    said.map(|()| prepared)
                }
                failed => failed,
            };
            match prepared {
                Ok((membership, window)) => {
                    self.put_in_force(new, membership, window);
                    return Ok(true);
                }
                Err(error) if error.redis().is_some_and(refuses_key) => {
                    let mut told = refused.and_then(|refused| refused.told);
                    fleet::refused_by_redis(&mut told, &error);
                    let (config, tried) = (new, Instant::now());
                    refused = Some(Refused {
                        config,
                        told,
                        tried,
                    });
                }
                Err(error) => {
                    self.refused = refused;
                    self.config.mark_changed();
                    return Err(error);
                }
            }
        }
        self.refused = refused;
        self.config.mark_changed();
        Ok(false)
    }

    /// Makes in Redis what a configuration needs.
    async fn prepare(&self, new: &Config) -> Result<(Membership, Window), StoreError> {
        self.beat.rest(); // there may be many groups; each exchange ends by its time-out
        let wanted = fleet::wanted_groups(&new.routing, None);
        let lost = fleet::ensure_groups(&self.link, &self.keys, &wanted).await;
        self.beat.touch();
        super::announce_lost(&lost?);
        // The window that ends now matters until its marks have expired.
        self.join_window(&self.active).await?;
        let window = self.join_window(new).await?;
        self.beat.touch();
        let joined = fleet::join(&self.link, &self.keys, new).await?;
        Ok((joined, window))
    }

    fn put_in_force(&mut self, new: Arc<Config>, membership: Membership, window: Window) {
        let generation = membership.generation;
        tracing::info!(generation, "the new routing.yaml is in force");
        self.membership.generation = generation;
        self.window = window;
        self.tracer.set(new.routing.trace());
        self.active = new;
        self.in_force.send_replace(self.active.clone());
        fleet::in_force(&self.active, generation);
    }

    /// Registers the dedupe window anew from time to time.
    pub(super) async fn keep_window(&mut self) -> Result<(), StoreError> {
        if Instant::now() >= self.next_window {
            self.window = self.join_window(&self.active).await?;
            self.next_window = Instant::now() + WINDOW_UPKEEP;
        }
        Ok(())
    }

    async fn join_window(&self, config: &Config) -> Result<Window, StoreError> {
        Window::join(&self.link, &self.keys, config.routing.dedupe_window()).await
    }

    /// Before refusing what a newer configuration might accept: reads the file again, if another
    /// process runs a newer one. Answers whether a newer one is in force now.
    pub(super) async fn look_for_newer_config(&mut self) -> Result<bool, StoreError> {
        const AGAIN_FOR_THE_SAME: Duration = Duration::from_secs(2);
        let newest = fleet::join(&self.link, &self.keys, &self.active)
            .await?
            .newest;
        let known = self.reread.is_some_and(|(generation, at)| {
            generation == newest && at.elapsed() < AGAIN_FOR_THE_SAME
        });
        if newest <= self.membership.generation || known {
            return Ok(false);
        }
        self.reread = Some((newest, Instant::now()));
        (self.read_again)();
        self.take_config().await
    }

    /// Sets aside, until what stands against the refused configuration is repaired, what only that one admits: it is
    /// valid, and others of the fleet may work and publish by it. Answers what is left.
    pub(super) async fn set_aside_what_awaits_repair(
        &self,
        entries: Vec<(Fence, Fields)>,
        verdicts: Vec<Verdict>,
    ) -> Result<(Vec<(Fence, Fields)>, Vec<Verdict>), StoreError> {
        let Some(refused) = &self.refused else {
            return Ok((entries, verdicts));
        };
        let (mut left, mut aside) = ((Vec::new(), Vec::new()), Vec::new());
        for ((fence, fields), verdict) in entries.into_iter().zip(verdicts) {
            if might_pass_with_newer_config(&verdict)
                && !might_pass_with_newer_config(&examine(&fields, &refused.config))
            {
                aside.push(fence);
            } else {
                left.0.push((fence, fields));
                left.1.push(verdict);
            }
        }
        if !aside.is_empty() {
            tracing::warn!(
                events = aside.len(),
                "these wait in the inbox: only the configuration that was refused knows them"
            );
            self.dispatch.set_aside(aside, AWAITS_REPAIR).await?;
        }
        Ok(left)
    }
}
