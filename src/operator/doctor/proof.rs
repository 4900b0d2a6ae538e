//! Proofs: lines for a shell that show what is said and change nothing.

use crate::store::{Keys, Redis, quoted};

/// Writes proofs for one server and namespace.
pub(super) struct Proof {
    /// `redis-cli` with what leads to the server.
    program: String,
    keys: Keys,
}

impl Proof {
    pub(super) fn new(redis: &Redis, keys: &Keys) -> Self {
        Self {
            program: redis.redis_cli(),
            keys: keys.clone(),
        }
    }

    /// One command; each word is quoted where a shell would read more into it.
    pub(super) fn of(&self, words: &[&str]) -> String {
        let mut line = self.program.clone();
        for word in words {
            line.push(' ');
            line += &quoted(word);
        }
        line
    }

    pub(super) fn groups(&self, stream: &str) -> String {
        self.of(&["XINFO", "GROUPS", &self.keys.stream(stream)])
    }

    pub(super) fn consumers(&self, stream: &str, group: &str) -> String {
        self.of(&["XINFO", "CONSUMERS", &self.keys.stream(stream), group])
    }

    pub(super) fn pending(&self, stream: &str, group: &str) -> String {
        self.of(&["XPENDING", &self.keys.stream(stream), group, "-", "+", "1"])
    }

    pub(super) fn length(&self, stream: &str) -> String {
        self.of(&["XLEN", &self.keys.stream(stream)])
    }

    pub(super) fn known_group(&self, stream: &str, group: &str) -> String {
        self.of(&[
            "HGET",
            &self.keys.fleet(),
            &Keys::fleet_group(stream, group),
        ])
    }

    pub(super) fn workers(&self, subscriber: &str) -> String {
        self.of(&["--scan", "--pattern", &self.keys.worker(subscriber, "*")])
    }

    pub(super) fn worker(&self, subscriber: &str, name: &str) -> String {
        self.of(&["HGETALL", &self.keys.worker(subscriber, name)])
    }

    pub(super) fn control(&self, subscriber: &str) -> String {
        self.of(&["HGETALL", &self.keys.control(subscriber)])
    }

    pub(super) fn lost(&self, subscriber: &str) -> String {
        self.of(&["HGET", &self.keys.stats(subscriber), "lost"])
    }

    pub(super) fn dead(&self, owner: &str) -> String {
        self.of(&["XLEN", &self.keys.dead(owner)])
    }

    pub(super) fn info(&self, section: &str) -> String {
        self.of(&["INFO", section])
    }
}
