//! The same handler on Go's `net/http`, where a Go toolchain is found: a process that says when its handlers begin and when
//! their contexts end.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::{mpsc, oneshot};

use super::servers::{Notice, Running};
use super::stream::certificate_files;

/// The program, built once; `None` where there is no `go`.
pub(crate) fn program() -> Option<&'static PathBuf> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let source = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/disconnect_matrix/go");
            let program = std::env::temp_dir().join(format!("disconnect-matrix-go-{}", std::process::id()));
            let built = Command::new("go")
                .args(["build", "-o"])
                .arg(&program)
                .arg(".")
                .current_dir(source)
                .env("GOTOOLCHAIN", "local")
                .status();
            built.is_ok_and(|status| status.success()).then_some(program)
        })
        .as_ref()
}

/// Starts it. Its handlers are told to `tell`; it ends with the child.
pub(crate) async fn start(
    tls: bool,
    tell: mpsc::UnboundedSender<Running>,
) -> io::Result<(SocketAddr, String, std::process::Child)> {
    let program = program().ok_or_else(|| io::Error::other("there is no Go toolchain"))?;
    let mut command = Command::new(program);
    if tls {
        let (certificate, key) = certificate_files()?;
        command.args([certificate, key]);
    }
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().ok_or_else(|| io::Error::other("not piped"))?;
    let stdout = tokio::net::unix::pipe::Receiver::from_owned_fd(stdout.into())?;
    let mut lines = BufReader::new(stdout).lines();
    let first = lines.next_line().await?.unwrap_or_default();
    let (addr, version) = first
        .split_once(' ')
        .ok_or_else(|| io::Error::other(first.clone()))?;
    let addr = addr.parse().map_err(io::Error::other)?;
    let version = version.to_owned();
    // Ends with the process.
    tokio::spawn(async move {
        let mut running = HashMap::new();
        while let Ok(Some(line)) = lines.next_line().await {
            let at = Instant::now();
            match line.split_once(' ') {
                Some(("begun", number)) => {
                    let (notice, told) = oneshot::channel();
                    running.insert(number.to_owned(), notice);
                    // Nobody listens any more once a run is over.
                    let _ = tell.send(told);
                }
                Some(("done", number)) => {
                    if let Some(notice) = running.remove(number) {
                        let _ = notice.send(Notice { at, reason: None });
                    }
                }
                _ => {}
            }
        }
    });
    Ok((addr, version, child))
}
