//! Variables of the environment. One that is set and empty is as good as none: `Environment=X=` in a
//! unit, and the line `X=` in a file of variables, set such where nothing is meant.

use std::ffi::{OsStr, OsString};

/// What a variable says, if it says anything.
pub fn variable(name: impl AsRef<OsStr>) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}
