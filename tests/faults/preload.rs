//! Small libraries in C, built when they are needed and preloaded into processes that are to
//! live in a world with faults of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::CannotInject;

/// Builds `tests/faults/<name>.c` into `folder`; answers the library's path.
pub fn build(name: &str, folder: &Path) -> Result<PathBuf, CannotInject> {
    let library = folder.join(format!("{name}.so"));
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults");
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
        Err(error) => Err(CannotInject(format!(
            "cc: {error} (a C compiler is needed: apt-get install gcc)"
        ))),
    }
}
