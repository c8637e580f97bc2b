//! SIGHUP: the files were moved away, open them anew.

use std::io;
use std::sync::Arc;

use super::{LogSettings, Logs};

/// Reopens the files of `logs` at each SIGHUP from now on. Without files the signal keeps its usual meaning: it ends a
/// process whose terminal is gone.
///
/// # Errors
///
/// If the system refuses the handler.
///
/// # Panics
///
/// If called outside a tokio runtime with its I/O driver.
#[cfg(unix)]
pub(crate) fn reopen_on_hangup(logs: &Arc<Logs>, settings: &LogSettings) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    if !settings.has_files() {
        return Ok(());
    }
    let mut hangups = signal(SignalKind::hangup())?;
    let logs = Arc::downgrade(logs);
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            let Some(logs) = logs.upgrade() else { return };
            logs.reopen();
        }
    });
    Ok(())
}

/// There is no such signal here: a file is moved while the service is stopped.
#[cfg(not(unix))]
pub(crate) fn reopen_on_hangup(_logs: &Arc<Logs>, _settings: &LogSettings) -> io::Result<()> {
    Ok(())
}
