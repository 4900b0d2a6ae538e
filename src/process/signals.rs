//! Signals that end a process.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Waits for SIGTERM or SIGINT.
pub async fn interrupted() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        tracing::warn!("signals cannot be received; only SIGKILL ends this process");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// The first SIGTERM or SIGINT asks to finish, the second to end at once.
pub async fn stop_on_signal(finish: CancellationToken, end: CancellationToken) {
    interrupted().await;
    tracing::info!("stopping: finishing what was started");
    crate::fleet::figures::drain();
    finish.cancel();
    interrupted().await;
    tracing::warn!("stopping at once");
    end.cancel();
}
