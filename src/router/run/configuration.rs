//! How a router takes new configurations over.
//!
//! Redis: the groups of the new configuration, and in `fleet` its generation, the configuration that is
//! routed by and the dedupe windows in use.
//! Guarantee: a configuration is in force only once its groups exist; one that a key of Redis stands
//! against changes nothing, and routing goes on by the one before.

use std::time::Duration;

use tokio::time::Instant;

use super::{Router, UPKEEP, WINDOW_UPKEEP};
use crate::fleet::{self, Membership, Outcome};
use crate::router::dedupe::Window;
use crate::routing::Config;
use crate::store::{StoreError, refuses_key};

/// What stood against a configuration when it was last tried.
pub(super) struct Refused {
    fingerprint: String,
    why: String,
    at: Instant,
}

impl Router {
    /// Takes a new configuration over, if there is one. What stands against it is looked at again from time to
    /// time. Answers whether another one is in force now.
    pub(super) async fn take_config(&mut self) -> Result<bool, StoreError> {
        let refused = self.refused.as_ref();
        if !self.config.has_changed().unwrap_or(false)
            || refused.is_some_and(|refused| refused.at.elapsed() < UPKEEP)
        {
            return Ok(false);
        }
        let new = self.config.borrow_and_update().clone();
        match self.prepare(&new).await {
            Ok((membership, window)) => {
                tracing::info!(
                    generation = membership.generation,
                    "the new routing.yaml is in force"
                );
                self.membership.generation = membership.generation;
                self.window = window;
                self.tracer.set(new.routing.trace());
                self.refused = None;
                self.active = new;
                fleet::in_force(&self.active, membership.generation);
                self.in_force.send_replace(self.active.clone());
                Ok(true)
            }
            Err(error) => {
                self.config.mark_changed();
                if !error.redis().is_some_and(refuses_key) {
                    return Err(error);
                }
                self.refuse(&new, error.to_string());
                Ok(false)
            }
        }
    }

    /// Makes in Redis what a configuration needs.
    async fn prepare(&self, new: &Config) -> Result<(Membership, Window), StoreError> {
        if let Some(refused) = self.make_groups(new).await? {
            return Err(refused);
        }
        self.beat.touch();
        // The window that ends now matters until its marks have expired.
        self.join_window(&self.active).await?;
        let window = self.join_window(new).await?;
        self.beat.touch();
        let joined = fleet::join(&self.link, &self.keys, new).await?;
        fleet::route_by(&self.link, &self.keys, new).await?;
        Ok((joined, window))
    }

    /// Tells once what stands against a configuration.
    fn refuse(&mut self, new: &Config, why: String) {
        let (fingerprint, at) = (new.fingerprint(), Instant::now());
        let told = self.refused.as_ref();
        if told.is_none_or(|told| (&told.fingerprint, &told.why) != (&fingerprint, &why)) {
            tracing::error!(
                "REFUSED, the running configuration stays: {why}; once that is repaired it is taken"
            );
            fleet::reloaded(Outcome::Refused(why.clone()));
        }
        self.refused = Some(Refused {
            fingerprint,
            why,
            at,
        });
    }

    /// Makes the groups of a configuration that are not there, and says which were lost. Answers the first that
    /// its key alone stands against; the others are made all the same.
    pub(super) async fn make_groups(
        &self,
        config: &Config,
    ) -> Result<Option<StoreError>, StoreError> {
        let mut refused = None;
        for group in fleet::wanted_groups(&config.routing, None) {
            self.beat.touch();
            match fleet::ensure_groups(&self.link, &self.keys, &[group]).await {
                Ok(lost) => super::announce_lost(&lost),
                Err(error) if error.redis().is_some_and(refuses_key) => {
                    refused = refused.or(Some(error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(refused)
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
}
