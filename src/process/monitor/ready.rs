//! Whether a process does its work: it has begun, Redis answers, and its groups exist.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout};

use super::{PATIENCE, Role};
use crate::fleet::{self, INBOX, WantedGroup};
use crate::progress::Progress;
use crate::routing::Config;
use crate::store::{self, Ensure, GroupState, Keys, Link};

/// For so long an answer is as good as another look.
const FRESH: Duration = Duration::from_secs(1);

type Told = Result<String, String>;

pub(super) struct Readiness {
    link: Link,
    keys: Keys,
    config: watch::Receiver<Arc<Config>>,
    role: Role,
    progress: Progress,
    /// Held while it is looked: who asks meanwhile gets the same answer.
    last: Mutex<Option<(Instant, Told)>>,
}

impl Readiness {
    pub(super) fn new(
        link: Link,
        keys: Keys,
        config: watch::Receiver<Arc<Config>>,
        role: Role,
        progress: Progress,
    ) -> Self {
        Self {
            link,
            keys,
            config,
            role,
            progress,
            last: Mutex::default(),
        }
    }

    pub(super) async fn ask(&self) -> Told {
        let mut last = self.last.lock().await;
        if let Some((at, told)) = &*last
            && at.elapsed() < FRESH
        {
            return told.clone();
        }
        let told = match timeout(PATIENCE, self.look()).await {
            Ok(told) => told,
            Err(_) => Err(format!(
                "Redis at {} did not answer within {PATIENCE:?}\n",
                self.link.redis().server()
            )),
        };
        *last = Some((Instant::now(), told.clone()));
        told
    }

    async fn look(&self) -> Told {
        if !self.progress.has_begun() {
            return Err("it has not begun to read yet\n".to_owned());
        }
        let (link, keys) = (&self.link, &self.keys);
        let asked = link.run(|mut c| async move { store::time(&mut c).await });
        asked.await.map_err(|error| format!("{error}\n"))?;
        for group in self.groups() {
            match fleet::ensure_group(link, keys, &group, Ensure::Look).await {
                Ok(GroupState::Exists | GroupState::Created) => {}
                Ok(GroupState::Lost) => {
                    return Err(format!("{}\n", fleet::lost_group_advice(&group)));
                }
                Ok(GroupState::Retired) => {
                    let WantedGroup {
                        stream, subscriber, ..
                    } = group;
                    return Err(format!(
                        "there is no group {subscriber} on {stream} (yet): see streamfleet group list\n"
                    ));
                }
                Err(error) => return Err(format!("{error}\n")),
            }
        }
        Ok("ready\n".to_owned())
    }

    /// Those that it reads for. (Those of a rebuild end with it.)
    fn groups(&self) -> Vec<WantedGroup> {
        let config = self.config.borrow().clone();
        match &self.role {
            Role::Router => {
                let mut all = fleet::wanted_groups(&config.routing, None);
                all.retain(|group| group.stream == INBOX);
                all
            }
            Role::Worker(subscriber) => fleet::wanted_groups(&config.routing, Some(subscriber)),
            Role::Rebuild(_) => Vec::new(),
        }
    }
}
