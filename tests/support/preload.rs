//! Small libraries in C, built when they are needed and preloaded into processes that are to
//! live in a world with faults of its own.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::Server;

/// Builds `tests/support/<name>.c` into `folder`; answers the library's path, or why this machine
/// cannot.
pub fn build(name: &str, folder: &Path) -> Result<PathBuf, String> {
    let library = folder.join(format!("{name}.so"));
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support");
    let built = Command::new("cc")
        .args([
            "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o",
        ])
        .arg(&library)
        .arg(sources.join(name).with_extension("c"))
        .arg("-ldl")
        .output();
    match built {
        Ok(output) if output.status.success() => Ok(library),
        Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => Err(format!(
            "cc: {error} (a C compiler is needed: apt-get install gcc)"
        )),
    }
}

/// A clock that can be set while processes run by it.
pub struct Clock {
    folder: TempDir,
    offset: File,
}

impl Clock {
    pub fn build() -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        build("clock", folder.path())?;
        let offset = File::create(folder.path().join("offset")).unwrap();
        let clock = Self { folder, offset };
        clock.set(0);
        Ok(clock)
    }

    /// What a process needs in its environment to go by it.
    pub fn environment(&self) -> [(String, String); 2] {
        let path = |file| self.folder.path().join(file).display().to_string();
        [
            ("LD_PRELOAD".to_owned(), path("clock.so")),
            ("CLOCK_OFFSET".to_owned(), path("offset")),
        ]
    }

    /// Sets it to so many seconds ahead of the right time.
    pub fn set(&self, seconds: i64) {
        let micros = seconds * 1_000_000;
        // Never truncated: processes have it in their memory.
        self.offset.write_all_at(&micros.to_ne_bytes(), 0).unwrap();
    }

    /// A server that goes by it.
    pub fn server(&self) -> Server {
        let [preload, offset] = self.environment().map(|(n, v)| format!("{n}={v}"));
        let server = Server::prepare(&["env", &preload, &offset], &[]);
        server.run();
        server
    }
}
