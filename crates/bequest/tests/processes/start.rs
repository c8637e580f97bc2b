//! What is refused before there is a process, and where processes are started.

use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};

use bequest::process::{self, Ending};
use bequest::{Context, Signal};

use crate::children::{PATIENT, shell};

#[tokio::test]
async fn a_signal_that_could_not_be_sent_is_refused_at_the_start() {
    for number in [-1, 0, 64, 1000] {
        let ending = Ending {
            signal: Signal::from_raw(number),
            ..PATIENT
        };
        let error = process::spawn(&Context::background(), shell("exit 0"), ending).unwrap_err();
        assert_eq!(error.io().expect("none").kind(), ErrorKind::InvalidInput);
        assert_eq!(
            error.to_string(),
            format!("no process was started: a process group cannot be told by signal {number}")
        );
    }
}

/// A command, and what it says by the time that nobody holds its output any more.
fn with_a_witness() -> (Command, impl FnOnce() -> String) {
    let (mut said, out) = UnixStream::pair().unwrap();
    let mut command = shell("echo started");
    command.stdout(Stdio::from(OwnedFd::from(out)));
    (command, move || {
        let mut all = String::new();
        said.read_to_string(&mut all).unwrap();
        all
    })
}

#[test]
fn without_a_runtime_no_process_is_started() {
    let (command, said) = with_a_witness();
    let spawned = catch_unwind(AssertUnwindSafe(|| {
        process::spawn(&Context::background(), command, PATIENT)
    }));
    assert!(spawned.is_err(), "it panics");
    assert_eq!(said(), "");
}

#[test]
fn control_the_runtimes_own_way_starts_it_and_panics() {
    let (command, said) = with_a_witness();
    let spawned = catch_unwind(AssertUnwindSafe(|| {
        tokio::process::Command::from(command).spawn()
    }));
    assert!(spawned.is_err(), "it panics");
    assert_eq!(said(), "started\n");
}

/// In a process of its own, which is started with that signal ignored.
#[cfg(target_os = "linux")]
#[test]
fn a_status_is_not_lost_where_exits_were_ignored() {
    const ONCE_MORE: &str = "BEQUEST_TEST_EXITS_ARE_IGNORED";
    if std::env::var_os(ONCE_MORE).is_none() {
        let ignoring = || {
            let mut command = Command::new("env");
            command.arg("--ignore-signal=CHLD");
            command
        };
        if !ignoring()
            .arg("true")
            .status()
            .is_ok_and(|status| status.success())
        {
            eprintln!("left out: this system's env cannot ignore a signal");
            return;
        }
        let mut again = ignoring();
        again.arg(std::env::current_exe().unwrap()).env(ONCE_MORE, "1");
        again.args(["--exact", "start::a_status_is_not_lost_where_exits_were_ignored"]);
        let output = again.output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
        return;
    }
    let lost = shell("exit 7").status();
    assert!(lost.is_err(), "control: std has no status: {lost:?}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let output = runtime.block_on(process::output(&Context::background(), shell("exit 7"), PATIENT));
    assert_eq!(output.expect("it is waited for").status.code(), Some(7));
}
