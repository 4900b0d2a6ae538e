//! The ledger: what must be true at the end for each event and subscriber, drawn up against what
//! is true, in Redis and outside of it. No I/O: see `tests/it/ledger.rs` for what it catches.
//!
//! Each promise must be kept exactly once: handled, or dead, never both, never neither. An event
//! whose publisher got no answer is promised nothing, but must not be half there either.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};

/// What an event asks its handler to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    Succeed,
    /// The first two attempts fail.
    FailTwice,
    Fail,
    Reject,
    /// Publishes a follow-up event, for another subscriber.
    Follow,
    /// Succeeds, and holds its thread up while it does.
    Block,
    /// Kills the process that handles it.
    Poison,
}

/// An event that was published.
#[derive(Clone, Debug)]
pub struct Published {
    pub id: String,
    pub plan: Plan,
    /// Who must handle it.
    pub subscribers: Vec<String>,
    /// When its XADD was answered (Unix milliseconds); `None`: never, so nothing was promised.
    pub accepted_ms: Option<u64>,
}

/// A handler's effect, found in Redis.
#[derive(Clone, Debug)]
pub struct Handled {
    pub subscriber: String,
    pub id: String,
    /// When it was committed, by the server's clock.
    pub at_ms: u64,
    pub attempt: u32,
    /// The event of which this one is the follow-up; else empty.
    pub parent: String,
}

/// A dead letter.
#[derive(Clone, Debug)]
pub struct Dead {
    /// `router`: refused at the door.
    pub subscriber: String,
    pub id: String,
    pub at_ms: u64,
    pub reason: String,
    /// Recorded failures.
    pub charged: u32,
    /// As for [`Handled`].
    pub parent: String,
}

/// What a process outside of Redis saw of the handlers.
#[derive(Clone, Debug)]
pub struct Witnessed {
    pub subscriber: String,
    pub id: String,
    pub attempt: u32,
    pub key: String,
    /// It came to its end (which is not yet a commit).
    pub ended: bool,
}

/// Everything found at the end.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub handled: Vec<Handled>,
    /// A second effect of the same commits: how often, by subscriber and event.
    pub counted: BTreeMap<(String, String), u64>,
    pub dead: Vec<Dead>,
    /// Events still in the inbox, undelivered or pending.
    pub owed: BTreeSet<String>,
    pub witnessed: Vec<Witnessed>,
    /// Accepted events that the server is known to have forgotten, as its durability mode allows.
    pub forgotten: BTreeSet<String>,
}

/// What the ledger comes to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Account {
    pub published: usize,
    /// Promises: accepted events, once per subscriber.
    pub promised: usize,
    pub handled: usize,
    pub dead: usize,
    pub dead_by_reason: BTreeMap<String, usize>,
    pub lost: usize,
    /// Promises that the server accepted and then forgot, as its durability mode allows: not
    /// counted as lost.
    #[serde(default)]
    pub forgotten: usize,
    /// Handled more than once, or handled and dead.
    pub duplicated: usize,
    pub stuck: usize,
    /// Recorded failures, of events handled in the end as well.
    pub charged: u32,
    /// Runs of a handler that the witness saw beyond those that failures explain: calls to the
    /// outside that were repeated.
    pub repeated_runs: usize,
    /// Milliseconds from the end of each strike until all that was owed then was settled.
    pub recovery_ms: Vec<u64>,
    /// What is wrong, in words.
    pub violations: Vec<String>,
}

impl Account {
    /// Compares promises with facts. `strikes`: when each was over (Unix milliseconds). `may_die` names the reasons besides the plans' own for
    /// which an event may be dead here.
    pub fn draw_up(
        published: &[Published],
        facts: &Facts,
        strikes: &[u64],
        may_die: &[&str],
    ) -> Self {
        let mut account = Self {
            published: published.len(),
            ..Self::default()
        };
        let settled = Settled::index(facts);
        for event in published {
            for subscriber in &event.subscribers {
                account.check(event, subscriber, &settled, facts, may_die);
            }
        }
        account.check_follow_ups(published, &settled);
        account.check_commits_whole(facts);
        account.check_witness(facts);
        account.check_unknown(published, facts);
        let recovery = |over_ms: &u64| recovery(published, &settled, *over_ms);
        account.recovery_ms = strikes.iter().map(recovery).collect();
        account
    }

    fn check(
        &mut self,
        event: &Published,
        subscriber: &str,
        settled: &Settled<'_>,
        facts: &Facts,
        may_die: &[&str],
    ) {
        let (handled, dead) = settled.of(subscriber, &event.id);
        let name = format!("{} ({:?}) for {subscriber}", event.id, event.plan);
        self.handled += usize::from(!handled.is_empty());
        self.dead += usize::from(!dead.is_empty());
        self.charged += dead.iter().map(|d| d.charged).sum::<u32>();
        self.charged += handled.first().map_or(0, |h| h.attempt - 1);
        if handled.len() + dead.len() > 1 {
            self.duplicated += 1;
            let (h, d) = (handled.len(), dead.len());
            self.wrong(format!("{name}: handled {h} times and dead {d} times"));
        }
        for letter in &dead {
            *self
                .dead_by_reason
                .entry(letter.reason.clone())
                .or_default() += 1;
            let own = match event.plan {
                Plan::Fail => "exhausted",
                Plan::Reject => "rejected",
                Plan::Poison => "crashed",
                Plan::Succeed | Plan::FailTwice | Plan::Follow | Plan::Block => "",
            };
            if letter.reason != own && !may_die.contains(&letter.reason.as_str()) {
                self.wrong(format!("{name}: dead as {}", letter.reason));
            }
            if letter.charged > 3 {
                self.wrong(format!("{name}: charged {} attempts", letter.charged));
            }
        }
        if !handled.is_empty() && matches!(event.plan, Plan::Fail | Plan::Reject | Plan::Poison) {
            self.wrong(format!(
                "{name}: handled, although its handler never succeeds"
            ));
        }
        if event.accepted_ms.is_none() {
            return;
        }
        self.promised += 1;
        if handled.is_empty() && dead.is_empty() {
            if facts.owed.contains(&event.id) {
                self.stuck += 1;
                self.wrong(format!("{name}: stuck"));
            } else if facts.forgotten.contains(&event.id) && !settled.by_any(event) {
                self.forgotten += 1;
            } else {
                self.lost += 1;
                self.wrong(format!("{name}: lost"));
            }
        }
    }

    /// A follow-up exists exactly if its parent was committed.
    fn check_follow_ups(&mut self, published: &[Published], settled: &Settled<'_>) {
        for event in published.iter().filter(|e| e.plan == Plan::Follow) {
            let parents = event.subscribers.iter();
            let committed: usize = parents.map(|s| settled.of(s, &event.id).0.len()).sum();
            let followed = settled
                .children
                .get(event.id.as_str())
                .copied()
                .unwrap_or(0);
            if committed != followed {
                let id = &event.id;
                self.wrong(format!(
                    "{id}: committed {committed} times, {followed} follow-ups"
                ));
            }
        }
    }

    /// Both effects of a commit are there, or neither.
    fn check_commits_whole(&mut self, facts: &Facts) {
        let mut logged: BTreeMap<(String, String), u64> = BTreeMap::new();
        for one in &facts.handled {
            *logged
                .entry((one.subscriber.clone(), one.id.clone()))
                .or_default() += 1;
        }
        if logged != facts.counted {
            let differ = logged
                .iter()
                .filter(|(k, n)| facts.counted.get(k) != Some(n));
            let differ = differ.count()
                + facts
                    .counted
                    .keys()
                    .filter(|k| !logged.contains_key(k))
                    .count();
            self.wrong(format!(
                "{differ} commits had one of their effects without the other"
            ));
        }
    }

    /// No commit without a run that came to its end; one idempotency key per promise.
    fn check_witness(&mut self, facts: &Facts) {
        if facts.witnessed.is_empty() {
            return;
        }
        type Runs<'a> = (usize, HashSet<u32>, HashSet<&'a str>);
        let mut runs: HashMap<(&str, &str), Runs<'_>> = HashMap::new();
        for one in &facts.witnessed {
            let (ended, attempts, keys) = runs.entry((&one.subscriber, &one.id)).or_default();
            keys.insert(&one.key);
            if one.ended {
                *ended += 1;
            } else if !attempts.insert(one.attempt) {
                self.repeated_runs += 1;
            }
        }
        for one in &facts.handled {
            if runs
                .get(&(one.subscriber.as_str(), one.id.as_str()))
                .is_none_or(|r| r.0 == 0)
            {
                self.wrong(format!(
                    "{}: committed, but no handler came to its end",
                    one.id
                ));
            }
        }
        let mut owner: HashMap<&str, (&str, &str)> = HashMap::new();
        for (promise, (_, attempts, keys)) in &runs {
            if keys.len() != 1
                || keys
                    .iter()
                    .any(|key| *owner.entry(key).or_insert(*promise) != *promise)
            {
                self.wrong(format!(
                    "{promise:?}: its idempotency key is not its own and one: {keys:?}"
                ));
            }
            if attempts.iter().any(|&attempt| attempt > 3) {
                self.wrong(format!("{promise:?}: an attempt beyond the third"));
            }
        }
    }

    /// Nothing is there that nobody sent.
    fn check_unknown(&mut self, published: &[Published], facts: &Facts) {
        let known: HashSet<&str> = published.iter().map(|e| e.id.as_str()).collect();
        for one in facts.handled.iter().filter(|h| h.parent.is_empty()) {
            if !known.contains(one.id.as_str()) {
                self.wrong(format!("{}: handled, and nobody published it", one.id));
            }
        }
    }

    fn wrong(&mut self, what: String) {
        self.violations.push(what);
    }

    /// A percentile of the recovery times, by nearest rank.
    pub fn recovery(&self, percent: usize) -> Option<u64> {
        let mut times = self.recovery_ms.clone();
        times.sort_unstable();
        let rank = (times.len() * percent).div_ceil(100).max(1);
        times.get(rank - 1).copied()
    }
}

/// What was settled, found fast.
struct Settled<'a> {
    handled: HashMap<(&'a str, &'a str), Vec<&'a Handled>>,
    dead: HashMap<(&'a str, &'a str), Vec<&'a Dead>>,
    /// Follow-ups handled or dead, by parent.
    children: HashMap<&'a str, usize>,
}

impl<'a> Settled<'a> {
    fn index(facts: &'a Facts) -> Self {
        let mut settled = Self {
            handled: HashMap::new(),
            dead: HashMap::new(),
            children: HashMap::new(),
        };
        for one in &facts.handled {
            let promise = (one.subscriber.as_str(), one.id.as_str());
            settled.handled.entry(promise).or_default().push(one);
            if !one.parent.is_empty() {
                *settled.children.entry(&one.parent).or_default() += 1;
            }
        }
        for one in &facts.dead {
            let promise = (one.subscriber.as_str(), one.id.as_str());
            settled.dead.entry(promise).or_default().push(one);
            if !one.parent.is_empty() {
                *settled.children.entry(&one.parent).or_default() += 1;
            }
        }
        settled
    }

    /// How often it was handled, and how often it died; refused at the door counts for all.
    fn of<'s>(&'s self, subscriber: &'s str, id: &'s str) -> (&'s [&'s Handled], Vec<&'s Dead>) {
        let handled = self
            .handled
            .get(&(subscriber, id))
            .map_or(&[][..], Vec::as_slice);
        let letters = |who| self.dead.get(&(who, id)).into_iter().flatten().copied();
        (
            handled,
            letters(subscriber).chain(letters("router")).collect(),
        )
    }

    /// Whether anyone settled it. What a server forgets it forgets for all.
    fn by_any(&self, event: &Published) -> bool {
        event.subscribers.iter().any(|subscriber| {
            let (handled, dead) = self.of(subscriber, &event.id);
            !handled.is_empty() || !dead.is_empty()
        })
    }
}

/// How long after the end of a strike everything was settled that was owed then. What fails by
/// plan is left out: its delays are its own.
fn recovery(published: &[Published], settled: &Settled<'_>, over_ms: u64) -> u64 {
    let mut latest = over_ms;
    for event in published {
        let waits_by_plan = matches!(event.plan, Plan::FailTwice | Plan::Fail | Plan::Poison);
        if waits_by_plan || event.accepted_ms.is_none_or(|at| at > over_ms) {
            continue;
        }
        for subscriber in &event.subscribers {
            let (handled, dead) = settled.of(subscriber, &event.id);
            let times = handled.iter().map(|h| h.at_ms);
            latest = times
                .chain(dead.iter().map(|d| d.at_ms))
                .fold(latest, u64::max);
        }
    }
    latest - over_ms
}
