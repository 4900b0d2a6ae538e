//! Semantic checks of the settings: each by itself, against each other, and against the routes.

use std::collections::{BTreeSet, HashSet};

use super::{Checked, Checker, DAY, HOUR, MILLISECOND, SECOND, in_file_order};
use crate::routing::duration::show;
use crate::routing::model::SettingsModel;
use crate::routing::names::NameKind;
use crate::routing::problem::{Severity, did_you_mean};
use crate::routing::structure::cut;
use crate::routing::table::{parse_start, settle};

impl Checker<'_> {
    pub(super) fn settings(&mut self, checked: &Checked<'_>) {
        let model = self.input.model;
        let defaults = model.defaults.as_ref();
        if let Some(defaults) = defaults {
            self.own_settings(&["defaults"], defaults);
            self.combined_settings(&["defaults"], "", Some(defaults), None);
            if defaults.worker.is_some() {
                self.error(
                    &["defaults", "worker"],
                    "`worker` cannot have a default: each subscriber has its own binary",
                    "move it below the subscriber that it serves",
                );
            }
        }
        let named: HashSet<&str> = checked.subscribers().collect();
        for (name, own) in in_file_order(self.input.tree, "subscribers", &model.subscribers) {
            let path = ["subscribers", name];
            // Names in routes have been checked there.
            if !named.contains(name) {
                self.name(
                    NameKind::Subscriber,
                    self.input.tree.key_place_of(&path),
                    name,
                );
            }
            self.own_settings(&path, own);
            self.combined_settings(&path, name, Some(own), defaults);
            if let Some(worker) = &own.worker {
                let place = self.input.tree.place_of(&["subscribers", name, "worker"]);
                self.name(NameKind::Worker, place, worker);
            }
        }
    }

    fn own_settings(&mut self, path: &[&str], own: &SettingsModel) {
        let at = |rest: &[&'static str]| [path, rest].concat();
        self.range(&at(&["timeout"]), own.timeout, MILLISECOND, 24 * HOUR);
        self.range(&at(&["lease"]), own.lease, 100 * MILLISECOND, HOUR);
        if let Some(backoff) = &own.backoff {
            self.range(
                &at(&["backoff", "initial"]),
                backoff.initial,
                MILLISECOND,
                30 * DAY,
            );
            self.range(&at(&["backoff", "max"]), backoff.max, MILLISECOND, 30 * DAY);
        }
        if let Some(breaker) = &own.breaker {
            let at = |field| at(&["breaker", field]);
            self.range(&at("window"), breaker.window, SECOND, 600 * SECOND);
            let least = 100 * MILLISECOND;
            self.range(&at("open"), breaker.open, least, HOUR);
            self.range(&at("max_open"), breaker.max_open, least, DAY);
        }
        if let Some(health) = &own.health {
            let at = |field| at(&["health", field]);
            self.range(&at("no_worker"), health.no_worker, SECOND, DAY);
            self.range(&at("behind"), health.behind, SECOND, 30 * DAY);
            self.range(&at("again"), health.again, 60 * SECOND, 30 * DAY);
        }
        if let Some(start) = &own.start
            && parse_start(start).is_none()
        {
            self.error(
                &at(&["start"]),
                format!(
                    "`start` must be new, beginning or a time, found `{}`",
                    cut(start)
                ),
                "write `new`, `beginning`, or an RFC 3339 time like `2026-01-31T00:00:00Z`",
            );
        }
    }

    /// Checks of settings against each other, where this layer sets one of them.
    fn combined_settings(
        &mut self,
        path: &[&str],
        name: &str,
        own: Option<&SettingsModel>,
        defaults: Option<&SettingsModel>,
    ) {
        let backoff = own.and_then(|own| own.backoff.as_ref());
        let sets_initial = backoff.is_some_and(|backoff| backoff.initial.is_some());
        let sets_max = backoff.is_some_and(|backoff| backoff.max.is_some());
        let sets_lease = own.is_some_and(|own| own.lease.is_some());
        let settings = settle(name, own, defaults);
        let breaker = own.and_then(|own| own.breaker.as_ref());
        let sets_open = breaker.is_some_and(|breaker| breaker.open.is_some());
        let sets_max_open = breaker.is_some_and(|breaker| breaker.max_open.is_some());
        let (open, max_open) = (settings.breaker.open, settings.breaker.max_open);
        if (sets_open || sets_max_open) && open > max_open {
            let field = if sets_open { "open" } else { "max_open" };
            self.error(
                &[path, &["breaker", field]].concat(),
                format!("the first time open ({}) is longer than the longest ({})", show(open), show(max_open)),
                "make `open` at most `max_open`; a value that is not set here comes from the defaults",
            );
        }
        let (initial, max, lease) = (
            settings.backoff.initial,
            settings.backoff.max,
            settings.lease,
        );
        if (sets_initial || sets_max) && initial > max {
            let field = if sets_initial { "initial" } else { "max" };
            self.error(
                &[path, &["backoff", field]].concat(),
                format!("the first wait ({}) is longer than the longest ({})", show(initial), show(max)),
                "make `initial` at most `max`; a value that is not set here comes from the defaults",
            );
        } else if (sets_max || sets_lease) && max > lease {
            let place = if sets_max {
                self.input
                    .tree
                    .place_of(&[path, &["backoff", "max"]].concat())
            } else {
                self.input.tree.place_of(&[path, &["lease"]].concat())
            };
            self.push(
                Severity::Warning,
                place,
                format!(
                    "the longest wait ({}) exceeds the lease ({}): a waiting retry surfaces early \
                     and is parked again",
                    show(max),
                    show(lease)
                ),
                "make `backoff.max` at most `lease`",
            );
        }
    }

    pub(super) fn idle_settings(&mut self, checked: &Checked<'_>) {
        let retired = checked.retired.iter().copied();
        let named: BTreeSet<&str> = checked.subscribers().chain(retired).collect();
        for (name, _) in in_file_order(
            self.input.tree,
            "subscribers",
            &self.input.model.subscribers,
        ) {
            if !named.contains(name) {
                let fix = match did_you_mean(name, named.iter().copied()) {
                    Some(guess) => format!("did you mean `{guess}`?"),
                    None => "add it to a route, or remove its settings".to_owned(),
                };
                self.warn_key(
                    &["subscribers", name],
                    format!("`{}` has settings but is in no route", cut(name)),
                    fix,
                );
            }
        }
    }
}
