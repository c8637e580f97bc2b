//! Children for tests: a shell with a script, one that has said it is ready, and what the system knows of it.

#![allow(dead_code)] // each test uses a part of it

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use bequest::process::{self, Ending};
use bequest::{Context, Signal};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::ChildStdout;

/// Waits longer than any test does.
pub(crate) const PATIENT: Ending = Ending {
    signal: Signal::TERMINATE,
    grace: Duration::from_secs(60),
    pipes: Duration::from_secs(60),
};

/// The group's stdout is at its end only when every process that holds it has ended.
pub(crate) const WITH_GRANDCHILD: &str = "sleep 1000 & echo ready; wait";

/// A shell that runs `script`, with its output piped and nothing to read.
pub(crate) fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

/// Fails a test that hangs. Nothing is measured by it.
pub(crate) async fn guard<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(20), work).await {
        Ok(value) => value,
        Err(_) => panic!("gave up waiting for {what}"),
    }
}

/// A child, once it has said that it is ready.
pub(crate) async fn ready(
    ctx: &Context,
    script: &str,
    ending: Ending,
) -> (process::Child, BufReader<ChildStdout>) {
    let mut child = process::spawn(ctx, shell(script), ending).expect("a shell");
    let mut said = BufReader::new(child.stdout.take().expect("it is piped"));
    assert_eq!(line(&mut said).await, "ready");
    (child, said)
}

/// The next line of what a child says.
pub(crate) async fn line(said: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    guard("a line", said.read_line(&mut line)).await.expect("text");
    line.trim_end().to_owned()
}

/// What a child and all who hold its output say until the last of them has ended.
pub(crate) async fn rest(said: &mut BufReader<ChildStdout>) -> String {
    let mut rest = String::new();
    guard("the end of the output", said.read_to_string(&mut rest))
        .await
        .expect("text");
    rest
}

/// Sends `signal` to a process, or to a group by its negative number.
pub(crate) fn kill(signal: &str, process: &str) {
    let status = Command::new("kill").args(["-s", signal, "--", process]).status();
    assert!(status.expect("kill").success(), "kill -s {signal} -- {process}");
}

/// A shell that says its number by a way of its own, for calls that keep what it says. The way is where its input would be.
pub(crate) fn telling_its_number(script: &str) -> (Command, impl Future<Output = u32> + use<>) {
    let (mut said, way) = UnixStream::pair().expect("a pair of sockets");
    let mut command = shell(&format!("echo $$ >&0; exec </dev/null; {script}"));
    command.stdin(Stdio::from(OwnedFd::from(way)));
    let read = tokio::task::spawn_blocking(move || {
        let mut number = String::new();
        said.read_to_string(&mut number).expect("text");
        number.trim().parse().expect("a number")
    });
    (command, async { read.await.expect("no panic") })
}

/// What the system says of a process: `Z`, it has exited and is not reaped; `T`, it is stopped; or that there is none.
pub(crate) fn state(process: u32) -> Option<char> {
    let said = Command::new("ps")
        .args(["-o", "stat=", "-p", &process.to_string()])
        .output()
        .expect("ps");
    String::from_utf8_lossy(&said.stdout).trim().chars().next()
}

/// Waits until the system says that of a process.
pub(crate) async fn until(process: u32, wanted: Option<char>) {
    let reached = async {
        while state(process) != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    guard(&format!("{process} to be {wanted:?}"), reached).await;
}
