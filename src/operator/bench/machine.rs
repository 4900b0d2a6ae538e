//! What was measured on: figures mean nothing without it.

use jiff::Timestamp;
use serde::Serialize;

use super::super::CommandError;
use crate::store::{Info, Link};

/// Hardware, system, server and build.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    pub(super) version: &'static str,
    pub(super) debug_build: bool,
    pub(super) date: Timestamp,
    pub(super) cpu: String,
    pub(super) cores: usize,
    pub(super) kernel: String,
    /// Redis or Valkey, and its version.
    pub(super) server: String,
    pub(super) persistence: String,
}

impl Machine {
    pub(super) async fn read(link: &Link) -> Result<Self, CommandError> {
        let info = |section: &'static str| async move {
            let info = link.run(|mut c| async move { crate::store::info(&mut c, section).await });
            info.await.map(Option::unwrap_or_default)
        };
        let file = |path| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = file("/proc/cpuinfo");
        let model = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name"));
        Ok(Self {
            version: env!("CARGO_PKG_VERSION"),
            debug_build: cfg!(debug_assertions),
            date: Timestamp::now(),
            cpu: model
                .map_or("unknown CPU", |m| m.trim_start_matches([' ', '\t', ':']))
                .to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: file("/proc/sys/kernel/osrelease").trim().to_owned(),
            server: server(&info("server").await?),
            persistence: persistence(&info("persistence").await?),
        })
    }
}

/// Valkey tells a version of Redis as well, for programs that look for one.
fn server(info: &Info) -> String {
    match (info.field("valkey_version"), info.field("redis_version")) {
        (Some(version), _) => format!("Valkey {version}"),
        (None, Some(version)) => format!("Redis {version}"),
        (None, None) => "an unknown server".to_owned(),
    }
}

fn persistence(info: &Info) -> String {
    match info.number("aof_enabled") {
        Some(1) => "append-only file",
        Some(_) => "no append-only file",
        None => "persistence unknown",
    }
    .to_owned()
}
