//! Signals: a context that ends with the first of them, for a reason that names it. A second one is heard as well.
//!
//! Run it with `cargo run -p bequest --features tokio --example signals`; it says nothing if every assertion holds.

use std::future::pending;
use std::io;
use std::process::Command;

use bequest::signal::{self, Signals};
use bequest::{Context, Reason, Signal};

/// Works until a signal comes, then says goodbye, which a second signal cuts short. Whether it was finished.
async fn work(signals: &Signals, goodbye: impl Future<Output = ()>) -> (Reason, bool) {
    let end = signals.done().await;
    let finished = signals.again().run(goodbye).await.is_ok();
    (end.reason(), finished)
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> io::Result<()> {
    let signals = signal::notify(&Context::background(), &[Signal::HANGUP])?;
    raise("HUP")?;
    let hangup = Reason::Signal(Signal::HANGUP);
    assert_eq!(work(&signals, async {}).await, (hangup, true));
    raise("HUP")?;
    assert_eq!(work(&signals, pending()).await, (hangup, false));
    assert_eq!(hangup.to_string(), "SIGHUP received");
    Ok(())
}

/// Sends this process a signal.
fn raise(name: &str) -> io::Result<()> {
    let process = std::process::id().to_string();
    let status = Command::new("kill").args(["-s", name, &process]).status()?;
    assert!(status.success(), "kill: {status}");
    Ok(())
}
