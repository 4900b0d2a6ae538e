//! What Redis says that a piece of work cost it: INFO before and after.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::CommandError;
use crate::store::{Info, Link};

/// Calls of one command, and how long they took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Calls {
    pub(super) calls: u64,
    pub(super) usec: u64,
}

/// What Redis has counted so far.
#[derive(Clone, Debug, Default)]
pub(super) struct RedisFigures {
    cpu_seconds: f64,
    pub(super) memory: u64,
    commands: BTreeMap<String, Calls>,
}

/// What it counted in between.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct RedisCost {
    pub(super) cpu_seconds: f64,
    pub(super) memory_bytes: i64,
    pub(super) commands: BTreeMap<String, Calls>,
    /// What scripts took without the commands in them: the interpreter. An estimate: which calls
    /// of a command came from a script, INFO does not tell.
    pub(super) script_own_usec: u64,
}

/// What runs a script.
const SCRIPTS: [&str; 3] = ["evalsha", "eval", "fcall"];
/// Commands that no script of ours spends time in: they count for themselves alone.
const OUTSIDE: [&str; 11] = [
    "xreadgroup",
    "info",
    "xinfo|groups",
    "xinfo|stream",
    "ping",
    "multi",
    "exec",
    "client|id",
    "client|setinfo",
    "client|unblock",
    "script|load",
];

impl RedisFigures {
    pub(super) async fn read(link: &Link) -> Result<Self, CommandError> {
        let mut all = Self::default();
        for section in ["cpu", "memory", "commandstats"] {
            let info = link
                .run(|mut c| async move { crate::store::info(&mut c, section).await })
                .await?;
            let info = info.ok_or_else(|| {
                CommandError::Refused(
                    "this Redis does not answer INFO, without which nothing can be measured".into(),
                )
            })?;
            match section {
                "cpu" => {
                    let seconds = |name| info.field(name).and_then(|f| f.parse::<f64>().ok());
                    let parts = ["used_cpu_user", "used_cpu_sys"].map(seconds);
                    all.cpu_seconds = parts.into_iter().flatten().sum();
                }
                "memory" => all.memory = info.number("used_memory").unwrap_or(0),
                _ => all.commands = commands(&info),
            }
        }
        Ok(all)
    }

    /// What was added since. `outside`: how many XADD came from a client and not from a script.
    pub(super) fn since(&self, before: &Self, outside: u64) -> RedisCost {
        let mut commands = BTreeMap::new();
        for (name, now) in &self.commands {
            let then = before.commands.get(name).copied().unwrap_or_default();
            let calls = now.calls.saturating_sub(then.calls);
            if calls > 0 {
                let usec = now.usec.saturating_sub(then.usec);
                commands.insert(name.clone(), Calls { calls, usec });
            }
        }
        RedisCost {
            cpu_seconds: self.cpu_seconds - before.cpu_seconds,
            memory_bytes: self.memory as i64 - before.memory as i64,
            script_own_usec: script_own(&commands, outside),
            commands,
        }
    }
}

/// The commands of a script count for themselves, and in what runs it.
fn script_own(commands: &BTreeMap<String, Calls>, outside: u64) -> u64 {
    let whole: u64 = SCRIPTS
        .iter()
        .filter_map(|name| commands.get(*name))
        .map(|c| c.usec)
        .sum();
    let inner = commands
        .iter()
        .filter(|(name, _)| !SCRIPTS.contains(&name.as_str()) && !OUTSIDE.contains(&name.as_str()))
        .map(|(name, c)| match name.as_str() {
            "xadd" => c.usec * c.calls.saturating_sub(outside) / c.calls.max(1),
            _ => c.usec,
        });
    whole.saturating_sub(inner.sum())
}

fn commands(info: &Info) -> BTreeMap<String, Calls> {
    let line = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(':')?;
        let number = |field: &str| {
            let mut fields = rest.split(',');
            fields.find_map(|f| {
                f.trim()
                    .strip_prefix(field)?
                    .strip_prefix('=')?
                    .parse()
                    .ok()
            })
        };
        Some((
            name.to_owned(),
            Calls {
                calls: number("calls")?,
                usec: number("usec")?,
            },
        ))
    };
    info.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_is_what_it_cost() {
        let read = |text: &str| RedisFigures {
            commands: commands(&Info::from(text)),
            ..RedisFigures::default()
        };
        let before = read(
            "# Commandstats\r\ncmdstat_xadd:calls=10,usec=20,usec_per_call=2.00,rejected_calls=0\r\ncmdstat_get:calls=1,usec=5\r\n",
        );
        let after = read(
            "cmdstat_xadd:calls=30,usec=60\r\ncmdstat_evalsha:calls=1,usec=100\r\ncmdstat_get:calls=1,usec=5\r\ncmdstat_client|id:calls=1,usec=2\r\n",
        );
        let cost = after.since(&before, 10);
        assert_eq!(
            cost.commands["xadd"],
            Calls {
                calls: 20,
                usec: 40
            }
        );
        assert!(!cost.commands.contains_key("get"), "it was not called");
        assert_eq!(
            cost.script_own_usec, 80,
            "half of the XADD were the script's"
        );
    }
}
