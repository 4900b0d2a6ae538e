//! Whether a Redis server is one that the fleet may trust with its events: what its facts mean.
//! Pure; who asks the server, and what becomes of a finding, is elsewhere.

use super::server::{ClockOffset, Info, ServerFacts};

/// Clocks further apart than this are worth a word, ms.
const SKEW_MS: u64 = 1_000;

/// What to do about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Not to start: only a changed setting, or another server, helps.
    Refuse,
    /// Not to start now: it may heal by itself.
    Wait,
    /// To start, and to tell the operator what is at stake.
    Warn,
    /// To start; something is not known.
    Note,
}

/// Something about a server that the fleet's operator should know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// Older than 7.0.
    #[error("Redis {0} is too old: 7.0 or newer is needed (or Valkey 8)")]
    TooOld(String),
    /// It may throw keys away when memory is short, and with them events that it accepted.
    #[error(
        "maxmemory-policy is {0}: Redis may evict accepted events. Set it to noeviction: redis-cli CONFIG SET maxmemory-policy noeviction (and in redis.conf)"
    )]
    Evicts(String),
    /// Redis Cluster, whose slots our scripts would cross.
    #[error(
        "this Redis runs in cluster mode, which is not supported yet: use one that does not (cluster-enabled no)"
    )]
    Cluster,
    /// Redis Sentinel, which holds no data.
    #[error(
        "this is a Redis Sentinel, which holds no data: use the URL of the Redis that it watches"
    )]
    Sentinel,
    /// A replica: it refuses writes, or would lose them at its next synchronisation.
    ///
    /// To wait and not to refuse: during a failover the address of the fleet's Redis may for a
    /// while lead to a replica (the old master come back, or the new one before its promotion).
    /// A refusal (78) would keep systemd from ever starting the process again, over something
    /// that passes without anybody's doing. If it is the URL that is wrong, the same line in
    /// the log of each attempt says so.
    #[error(
        "this is a replica of {0}, which takes no writes that last: use the URL of the master. If a failover is under way, this passes"
    )]
    Replica(String),
    /// Neither append-only file nor snapshots.
    #[error(
        "nothing is written to disk: when Redis stops, every accepted event is gone. Turn the append-only file on: redis-cli CONFIG SET appendonly yes (and in redis.conf)"
    )]
    NotPersistent,
    /// Snapshots without the append-only file. What it holds: when they are taken.
    #[error(
        "only snapshots are written to disk ({0}): when Redis crashes, the accepted events since the last one, maybe of many minutes, are gone, and what was handled since is handled again. Turn the append-only file on: redis-cli CONFIG SET appendonly yes (and in redis.conf)"
    )]
    SnapshotsOnly(String),
    /// The append-only file cannot be written, and Redis refuses writes for it. (To wait, since a
    /// process could not even announce itself; there may be room on the disk in a moment.)
    #[error(
        "Redis cannot write its append-only file (aof_last_write_status:err) and refuses writes until it can: look at the disk (full?) and at the log of Redis"
    )]
    AofFails,
    /// Snapshots fail, and Redis refuses writes for it. To wait, as above.
    #[error(
        "the last snapshot failed (rdb_last_bgsave_status:err) and stop-writes-on-bgsave-error is yes: Redis refuses writes until one succeeds. Look at the disk (full?), the memory (fork) and the log of Redis, then: redis-cli BGSAVE"
    )]
    SnapshotFailsAndStopsWrites,
    /// Snapshots fail.
    #[error(
        "the last snapshot failed (rdb_last_bgsave_status:err): look at the disk (full?), the memory (fork) and the log of Redis, then: redis-cli BGSAVE"
    )]
    SnapshotFails,
    /// TIME is denied, which the scripts ask for.
    #[error("this user may not ask TIME, by which leases and retries go: ACL SETUSER <user> +time")]
    NoTime,
    /// The clocks are apart.
    #[error(
        "the clock of Redis is {} this machine's: entry IDs, leases, retries and retention go by the clock of Redis; the router's dedupe_window, and the times in dead letters and logs, by this one. Let both follow the same time server (NTP)",
        apart(.0)
    )]
    Skew(ClockOffset),
    /// A question that this user may not ask.
    #[error(
        "this user may not ask {question}: {consequence}. To allow it: ACL SETUSER <user> {allow}"
    )]
    Unknown {
        /// The command.
        question: &'static str,
        /// What is not known without it.
        consequence: &'static str,
        /// The ACL rule that allows it.
        allow: &'static str,
    },
}

fn apart(clock: &ClockOffset) -> String {
    let seconds = clock.ahead_ms.unsigned_abs() as f64 / 1_000.0;
    let direction = if clock.ahead_ms > 0 {
        "ahead of"
    } else {
        "behind"
    };
    format!("{seconds:.1} s {direction}")
}

impl Finding {
    /// What to do about it.
    pub fn severity(&self) -> Severity {
        match self {
            Self::TooOld(_) | Self::Evicts(_) | Self::Cluster | Self::Sentinel | Self::NoTime => {
                Severity::Refuse
            }
            Self::Replica(_) | Self::AofFails | Self::SnapshotFailsAndStopsWrites => Severity::Wait,
            Self::NotPersistent | Self::SnapshotsOnly(_) | Self::SnapshotFails | Self::Skew(_) => {
                Severity::Warn
            }
            Self::Unknown { .. } => Severity::Note,
        }
    }
}

/// All that is to be said about a server, what matters most first.
pub fn findings(facts: &ServerFacts) -> Vec<Finding> {
    let mut found = Vec::new();
    match &facts.info {
        // It has nothing of what else is asked for.
        Some(info) if mode(info) == Some("sentinel") => return vec![Finding::Sentinel],
        Some(info) => {
            found.extend(fitness(info));
            found.extend(persistence(info, facts));
        }
        None => found.push(Finding::Unknown {
            question: "INFO",
            consequence: "version, eviction, persistence and role of Redis are not checked, and the router does not pause before the memory is full",
            allow: "+info",
        }),
    }
    if facts.settings.is_none() {
        found.push(Finding::Unknown {
            question: "CONFIG GET",
            consequence: "whether and when Redis takes snapshots is not known",
            allow: "+config|get",
        });
    }
    match facts.clock {
        Some(clock) if clock.ahead_ms.unsigned_abs() > SKEW_MS + clock.within_ms => {
            found.push(Finding::Skew(clock));
        }
        Some(_) => {}
        None => found.push(Finding::NoTime),
    }
    found
}

/// Valkey calls it otherwise.
fn mode(info: &Info) -> Option<&str> {
    info.field("redis_mode")
        .or_else(|| info.field("server_mode"))
}

/// Whether it is a server to start on at all.
fn fitness(info: &Info) -> Vec<Finding> {
    let mut found = Vec::new();
    // Valkey answers redis_version 7.2.4 for compatibility.
    let version = info.field("redis_version").unwrap_or("unknown");
    let major = version.split('.').next().and_then(|text| text.parse().ok());
    if major.unwrap_or(0) < 7 {
        found.push(Finding::TooOld(version.to_owned()));
    }
    match info.field("maxmemory_policy") {
        Some("noeviction") | None => {}
        Some(policy) => found.push(Finding::Evicts(policy.to_owned())),
    }
    if info.field("cluster_enabled") == Some("1") {
        found.push(Finding::Cluster);
    }
    if info.field("role") == Some("slave") {
        let of = |name| info.field(name).unwrap_or("?");
        let master = format!("{}:{}", of("master_host"), of("master_port"));
        found.push(Finding::Replica(master));
    }
    found
}

/// Whether what it accepted would survive it.
fn persistence(info: &Info, facts: &ServerFacts) -> Vec<Finding> {
    let setting = |name: &str| facts.settings.as_ref()?.get(name).map(String::as_str);
    let mut found = Vec::new();
    // "" is no snapshots; not told, they may be taken.
    let save = setting("save");
    match (info.field("aof_enabled"), save) {
        (Some("0"), Some("")) => found.push(Finding::NotPersistent),
        (Some("0"), Some(save)) => found.push(Finding::SnapshotsOnly(format!("save {save}"))),
        (Some("0"), None) => found.push(Finding::SnapshotsOnly("if at all".to_owned())),
        (Some("1"), _) if info.field("aof_last_write_status") == Some("err") => {
            found.push(Finding::AofFails);
        }
        _ => {}
    }
    if info.field("rdb_last_bgsave_status") == Some("err") {
        // Redis stops writes only while it is to take snapshots by itself.
        let stops = setting("stop-writes-on-bgsave-error") == Some("yes");
        found.push(match stops && save.is_some_and(|save| !save.is_empty()) {
            true => Finding::SnapshotFailsAndStopsWrites,
            false => Finding::SnapshotFails,
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: [(&str, &str); 8] = [
        ("redis_version", "7.0.15"),
        ("redis_mode", "standalone"),
        ("role", "master"),
        ("maxmemory_policy", "noeviction"),
        ("cluster_enabled", "0"),
        ("aof_enabled", "1"),
        ("aof_last_write_status", "ok"),
        ("rdb_last_bgsave_status", "ok"),
    ];

    /// A sound server but for these fields and settings.
    fn facts(fields: &[(&str, &str)], settings: &[(&str, &str)]) -> ServerFacts {
        let changed = |name| fields.iter().find(|(n, _)| *n == name);
        let mut info = String::from("# Everything\r\n");
        for sound in &SOUND {
            let (name, value) = changed(sound.0).unwrap_or(sound);
            info.push_str(&format!("{name}:{value}\r\n"));
        }
        let sound = [("save", ""), ("stop-writes-on-bgsave-error", "yes")];
        let settings = sound.iter().chain(settings);
        ServerFacts {
            info: Some(Info::from(info.as_str())),
            settings: Some(
                settings
                    .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                    .collect(),
            ),
            clock: Some(ClockOffset {
                ahead_ms: 0,
                within_ms: 1,
            }),
        }
    }

    fn of(fields: &[(&str, &str)], settings: &[(&str, &str)]) -> Vec<Finding> {
        findings(&facts(fields, settings))
    }

    #[test]
    fn a_sound_server_gives_nothing_to_say() {
        assert_eq!(of(&[], &[]), []);
        assert_eq!(of(&[("redis_version", "8.0.6")], &[("save", "60 1")]), []);
    }

    #[test]
    fn only_a_server_that_keeps_what_it_accepts_is_fit() {
        let refused = |fields| {
            let found = of(fields, &[]);
            assert!(
                found.iter().all(|f| f.severity() == Severity::Refuse),
                "{found:?}"
            );
            found
        };
        let old = || Finding::TooOld("6.2.1".into());
        let evicts = || Finding::Evicts("allkeys-lru".into());
        assert_eq!(refused(&[("redis_version", "6.2.1")]), [old()]);
        assert_eq!(refused(&[("maxmemory_policy", "allkeys-lru")]), [evicts()]);
        assert_eq!(refused(&[("cluster_enabled", "1")]), [Finding::Cluster]);
        assert_eq!(refused(&[("redis_mode", "sentinel")]), [Finding::Sentinel]);
        let valkey = ServerFacts {
            info: Some(Info::from(
                "redis_version:7.2.4\r\nserver_mode:sentinel\r\n",
            )),
            ..ServerFacts::default()
        };
        assert_eq!(findings(&valkey), [Finding::Sentinel]);
        let all = [
            ("redis_version", "6.2.1"),
            ("maxmemory_policy", "allkeys-lru"),
        ];
        assert_eq!(refused(&all), [old(), evicts()], "all at once");
        let silent = ServerFacts {
            info: Some(Info::default()),
            ..facts(&[], &[])
        };
        assert_eq!(findings(&silent), [Finding::TooOld("unknown".into())]);
    }

    #[test]
    fn a_replica_may_be_promoted() {
        let found = of(&[("role", "slave")], &[]);
        assert_eq!(found, [Finding::Replica("?:?".into())]);
        assert_eq!(found[0].severity(), Severity::Wait);
    }

    #[test]
    fn what_a_restart_would_lose_is_said() {
        let off = ("aof_enabled", "0");
        assert_eq!(of(&[off], &[]), [Finding::NotPersistent]);
        let snapshots = Finding::SnapshotsOnly("save 3600 1 300 100".into());
        assert_eq!(of(&[off], &[("save", "3600 1 300 100")]), [snapshots]);
        let untold = ServerFacts {
            settings: None,
            ..facts(&[off], &[])
        };
        let found = findings(&untold);
        assert_eq!(found[0], Finding::SnapshotsOnly("if at all".into()));
        assert_eq!(found[0].severity(), Severity::Warn);
        assert_eq!(found[1].severity(), Severity::Note);
    }

    #[test]
    fn a_disk_that_fails_is_said() {
        let aof = ("aof_last_write_status", "err");
        let rdb = ("rdb_last_bgsave_status", "err");
        assert_eq!(of(&[aof], &[]), [Finding::AofFails]);
        assert_eq!(
            Finding::AofFails.severity(),
            Severity::Wait,
            "it takes no writes"
        );
        let off = of(&[aof, ("aof_enabled", "0")], &[]);
        assert_eq!(
            off,
            [Finding::NotPersistent],
            "of a file that is no longer written"
        );
        let save = ("save", "60 1");
        assert_eq!(of(&[rdb], &[save]), [Finding::SnapshotFailsAndStopsWrites]);
        assert_eq!(of(&[rdb], &[]), [Finding::SnapshotFails]);
        let goes_on = ("stop-writes-on-bgsave-error", "no");
        assert_eq!(of(&[rdb], &[save, goes_on]), [Finding::SnapshotFails]);
    }

    #[test]
    fn clocks_are_apart_when_the_answers_way_cannot_explain_it() {
        let skew = |ahead_ms, within_ms| {
            let clock = ClockOffset {
                ahead_ms,
                within_ms,
            };
            let found = findings(&ServerFacts {
                clock: Some(clock),
                ..facts(&[], &[])
            });
            found.first().map(ToString::to_string)
        };
        assert_eq!(skew(1_000, 0), None);
        assert_eq!(skew(2_500, 1_500), None, "it may be one second");
        let ahead = skew(2_501, 1_500).unwrap();
        assert!(
            ahead.starts_with("the clock of Redis is 2.5 s ahead of this"),
            "{ahead}"
        );
        let behind = skew(-61_000, 1).unwrap();
        assert!(
            behind.starts_with("the clock of Redis is 61.0 s behind this"),
            "{behind}"
        );
    }

    #[test]
    fn what_may_not_be_asked_is_noted() {
        let silent = ServerFacts {
            clock: facts(&[], &[]).clock,
            ..ServerFacts::default()
        };
        let found = findings(&silent);
        let asked = ["INFO", "CONFIG GET"];
        assert_eq!(found.len(), asked.len());
        for (finding, asked) in found.iter().zip(asked) {
            assert_eq!(finding.severity(), Severity::Note);
            assert!(finding.to_string().contains(asked), "{finding}");
        }
        let timeless = ServerFacts {
            clock: None,
            ..facts(&[], &[])
        };
        assert_eq!(findings(&timeless), [Finding::NoTime]);
        assert_eq!(Finding::NoTime.severity(), Severity::Refuse);
    }
}
