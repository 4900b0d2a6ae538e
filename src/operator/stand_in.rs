//! Stand-ins for outside services, which `dev` starts for the workers that need them. A table says
//! what stands in for what.
//!
//! A stand-in is a program that takes `--listen ADDRESS` and `--state FILE`, and prints
//! `listening on <URL>` when it can be used.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::CommandError;
use super::child::{self, Child, Listener, Spec};
use crate::environment::variable;

/// How long one may take until it listens.
const PATIENCE: Duration = Duration::from_secs(10);
/// What it says then.
const LISTENING: &str = "listening on ";

/// What stands in for what.
pub(super) struct Need {
    /// The program that calls the service.
    worker: &'static str,
    /// Where that program looks for its address.
    variable: &'static str,
    /// What plays the service, beside us.
    pub(super) program: &'static str,
}

/// The services that workers of the shop call.
const NEEDS: [Need; 1] = [Need {
    worker: "payment-worker",
    variable: "STREAMFLEET_GATEWAY",
    program: "sandbox-gateway",
}];

/// What is to be started for these programs: nothing for a service whose address the environment
/// knows, and nothing that is not there. (The worker itself says what it lacks.)
pub(super) fn needed(programs: &[PathBuf]) -> Vec<(&'static Need, PathBuf)> {
    let known = |name| variable(name).is_some();
    let called = |worker: &str| programs.iter().any(|program| program.ends_with(worker));
    NEEDS
        .iter()
        .filter(|need| called(need.worker) && !known(need.variable))
        .filter_map(|need| Some((need, child::programs(&[need.program]).ok()?.pop()?)))
        .collect()
}

/// A stand-in that listens.
pub(super) struct StandIn {
    pub(super) variable: &'static str,
    pub(super) address: String,
    pub(super) child: Child,
}

impl StandIn {
    /// Starts a stand-in, which keeps what it must remember in `dir`.
    pub(super) async fn start(
        need: &Need,
        program: &Path,
        dir: &Path,
        listener: Listener,
    ) -> Result<Self, CommandError> {
        let (found, mut address) = watch::channel(None);
        let listener: Listener = Arc::new(move |line| {
            if let Some(address) = line.strip_prefix(LISTENING) {
                found.send_replace(Some(address.to_owned()));
            }
            listener(line);
        });
        let state = dir.join(format!("{}.jsonl", need.program));
        let mut child = Spec::new(program, listener)
            .arg("--listen")
            .arg("127.0.0.1:0")
            .arg("--state")
            .arg(state)
            .spawn()?;
        let failed = |how: String| CommandError::Refused(format!("{}: {how}", need.program));
        tokio::select! {
            biased;
            told = timeout(PATIENCE, address.wait_for(Option::is_some)) => match told {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return Err(failed("ended before it listened".into())),
                Err(_) => return Err(failed(format!("not listening after {PATIENCE:?}"))),
            },
            status = child.exited() => return Err(failed(format!("ended by itself ({status})"))),
        }
        let address = address.borrow().clone().unwrap_or_default();
        Ok(Self {
            variable: need.variable,
            address,
            child,
        })
    }
}
