//! A command: a child process that ends with its context, with all that it has started, and an error that says why.
//!
//! Run it with `cargo run -p bequest --features tokio --example command`; it says nothing if every assertion holds. Unix only.

#[cfg(not(unix))]
pub(crate) fn main() {}

#[cfg(unix)]
pub(crate) use on_unix::main;

#[cfg(unix)]
mod on_unix {
    use std::path::Path;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use bequest::process::{self, Ending, ProcessError};
    use bequest::{Context, Reason};

    async fn size(ctx: &Context, folder: &Path) -> Result<String, ProcessError> {
        let step = ctx.with_timeout(Duration::from_secs(10)).named("du");
        let mut command = Command::new("du");
        command.arg("-sk").arg(folder).stdin(Stdio::null());
        let output = process::output(&step, command, Ending::default()).await?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    #[tokio::main(flavor = "current_thread")]
    pub(crate) async fn main() {
        let request = Context::background().with_cancel().named("request");
        assert!(size(&request, Path::new(".")).await.unwrap().ends_with("\t.\n"));

        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 1000 & wait"]);
        let mut child = process::spawn(&request, shell, Ending::default()).unwrap();
        request.cancel_for(Reason::ClientGone);
        let error = child.wait().await.unwrap_err();
        let end = error.canceled().expect("not a failure of the system");
        assert_eq!((end.reason(), end.is_from(&request)), (Reason::ClientGone, true));
        assert!(error.to_string().contains("client disconnected (request "));
        assert!(error.status().is_some(), "and it is reaped");
    }
}
