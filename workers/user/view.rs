//! The user as people and pages see it: `user-service:user:<id>`.

use streamfleet::{Context, EffectError};

use super::account::Account;

/// Shows a user as it is with what is recorded now.
pub(crate) fn show(id: &str, user: &Account, cx: &mut Context) -> Result<(), EffectError> {
    for (field, value) in user.shown() {
        cx.hash_set(&format!("user:{id}"), field, value)?;
    }
    Ok(())
}
