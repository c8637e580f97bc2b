//! E1 to E9: child processes.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use bequest::process::{self, Ending};
use bequest::{Context, Kind, Reason, Signal};
use tokio::io::BufReader;

use crate::children::{PATIENT, WITH_GRANDCHILD, guard, kill, line, ready, rest, shell};

/// `SIGUSR1`, whose number is the system's.
const USER_1: Signal = Signal::from_raw(if cfg!(target_os = "linux") { 10 } else { 30 });

#[tokio::test]
async fn e1_a_context_that_has_ended_starts_nothing() {
    let ctx = Context::background().with_cancel();
    ctx.cancel_with("too late");
    let missing = Command::new("/there/is/no/such/program");
    let error = process::spawn(&ctx, missing, PATIENT).unwrap_err();
    assert_eq!(
        error.canceled().expect("an end").cause().unwrap().to_string(),
        "too late"
    );
    assert!(error.status().is_none() && error.io().is_none());

    let missing = Command::new("/there/is/no/such/program");
    let error = process::spawn(&Context::background(), missing, PATIENT).unwrap_err();
    assert_eq!(error.io().expect("none").kind(), std::io::ErrorKind::NotFound);
    assert!(
        error
            .to_string()
            .starts_with("starting /there/is/no/such/program: "),
        "{error}"
    );
}

#[tokio::test]
async fn e2_e3_a_child_is_told_and_the_error_is_the_contexts() {
    let ctx = Context::background().with_cancel();
    let (mut child, _said) = ready(&ctx, "echo ready; exec sleep 1000", PATIENT).await;
    ctx.cancel_with("not needed");
    let error = guard("the end", child.wait()).await.unwrap_err();
    let end = error.canceled().expect("an end");
    assert_eq!(
        (end.kind(), end.cause().unwrap().to_string()),
        (Kind::Canceled, "not needed".to_owned())
    );
    assert_eq!(error.status().expect("reaped").signal(), Some(15));
}

#[tokio::test]
async fn e2_at_a_deadline_too() {
    let ctx = Context::background().with_timeout(Duration::from_millis(50));
    let error = guard(
        "the end",
        process::output(&ctx, shell("exec sleep 1000"), PATIENT),
    )
    .await
    .unwrap_err();
    assert!(error.canceled().expect("an end").is_from(&ctx));
}

#[tokio::test]
async fn e4_a_signal_that_is_handled_ends_as_the_context_does() {
    let ctx = Context::background().with_cancel();
    // Not SIGINT: a shell cannot trap what was ignored when it began, as that is below a script's background job.
    let ending = Ending {
        signal: USER_1,
        ..PATIENT
    };
    let script = "trap 'echo tidied; exit 0' USR1; echo ready; while :; do sleep 0.01; done";
    let (mut child, mut said) = ready(&ctx, script, ending).await;
    ctx.cancel_for(Reason::ClientGone);
    let error = guard("the end", child.wait()).await.unwrap_err();
    assert_eq!(error.canceled().expect("an end").reason(), Reason::ClientGone);
    assert!(
        error.status().expect("reaped").success(),
        "it ended by itself, in its grace"
    );
    assert_eq!(rest(&mut said).await, "tidied\n");
}

#[tokio::test]
async fn e5_what_ignores_the_signal_is_killed_after_its_grace() {
    let ctx = Context::background().with_cancel();
    let ending = Ending {
        grace: Duration::from_millis(50),
        ..PATIENT
    };
    let script = "trap '' TERM; echo ready; while :; do sleep 1000; done";
    let (mut child, _said) = ready(&ctx, script, ending).await;
    ctx.cancel();
    let error = guard("the end", child.wait()).await.unwrap_err();
    assert_eq!(error.status().expect("reaped").signal(), Some(9));
}

#[tokio::test]
async fn e6_a_pipe_that_a_grandchild_holds_is_not_waited_for_for_ever() {
    let ending = Ending {
        pipes: Duration::from_millis(50),
        ..PATIENT
    };
    let script = "sleep 30 & echo said; exit 0";
    let output = guard(
        "the output",
        process::output(&Context::background(), shell(script), ending),
    )
    .await;
    let output = output.expect("it exited");
    assert!(output.is_held_open && output.status.success());
    assert_eq!(output.stdout, b"said\n");
}

#[tokio::test]
async fn e7_an_exit_before_the_end_wins() {
    let ctx = Context::background().with_cancel();
    let (mut child, mut said) = ready(&ctx, "echo ready; exit 7", PATIENT).await;
    rest(&mut said).await;
    let status = guard("the exit", child.wait())
        .await
        .expect("it exited by itself");
    ctx.cancel();
    assert_eq!(status.code(), Some(7));
}

#[tokio::test]
async fn e9_grandchildren_end_too() {
    for grace in [Duration::ZERO, PATIENT.grace] {
        let ctx = Context::background().with_cancel();
        let ending = Ending { grace, ..PATIENT };
        let (mut child, mut said) = ready(&ctx, WITH_GRANDCHILD, ending).await;
        ctx.cancel();
        guard("the end", child.wait()).await.unwrap_err();
        rest(&mut said).await;
    }
}

#[tokio::test]
async fn e9_control_kill_on_drop_leaves_grandchildren_behind() {
    let mut command = tokio::process::Command::from(shell("sleep 1000 & echo ready $!; wait"));
    let mut child = command.kill_on_drop(true).spawn().expect("a shell");
    let mut said = BufReader::new(child.stdout.take().expect("it is piped"));
    let said = line(&mut said).await;
    let grandchild = said.trim_start_matches("ready ");
    child.kill().await.expect("the leader is killed and reaped");
    kill("TERM", grandchild); // which asserts that there is one
}
