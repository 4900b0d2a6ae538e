//! No core dumps: secrets are in memory, and a core would carry them to the disk.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// From now on this process, and whoever it starts, writes none. (A program that `kernel.core_pattern`
/// pipes to is handed one all the same; systemd-coredump heeds the limit.) To be called before secrets are read;
/// who debugs a living process can still take one (`gcore`).
pub fn forbid() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Core);
    let none = Rlimit {
        current: Some(0),
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "a core dump of this process could hold its secrets");
    }
}
