//! What cannot be undone is asked about first.

use std::io::{BufRead, IsTerminal, Write, stderr, stdin};

use super::CommandError;

/// The answer to the question, given beforehand.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct YesArgs {
    /// Do not ask. Needed where nobody can answer: in scripts and pipes.
    #[arg(long)]
    yes: bool,
}

impl YesArgs {
    /// Asks whether to go on; `what` says what will be gone. Where nobody can be asked, the
    /// answer is no.
    pub(super) fn confirm(self, what: &str) -> Result<(), CommandError> {
        if self.yes {
            return Ok(());
        }
        if !(stdin().is_terminal() && stderr().is_terminal()) {
            return Err(CommandError::Refused(format!(
                "{what}. This cannot be undone, and there is no terminal to ask on: add --yes if it is meant"
            )));
        }
        eprint!("{what}. This cannot be undone. Go on? [y/N] ");
        stderr().flush()?;
        let mut answer = String::new();
        stdin().lock().read_line(&mut answer)?;
        match is_yes(&answer) {
            true => Ok(()),
            false => Err(CommandError::Refused("nothing was done".into())),
        }
    }
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        assert!(["y\n", "Y", " yes \n"].into_iter().all(is_yes));
        assert!(!["", "\n", "n\n", "yep", "no"].into_iter().any(is_yes));
    }
}
