//! Who in the group is told, and who is killed.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use bequest::process::Ending;
use bequest::{Context, Kind};

use crate::children::{PATIENT, guard, kill, line, ready, rest, state, until};

#[tokio::test]
async fn a_child_that_exits_in_its_grace_leaves_nobody_behind() {
    let ctx = Context::background().with_cancel();
    // The grandchild ignores what the child is told, and is ready when it does.
    let script = "(trap '' TERM; echo ready; while :; do sleep 0.01; done) & wait";
    let (mut child, mut said) = ready(&ctx, script, PATIENT).await;
    ctx.cancel();
    let error = guard("the end", child.wait()).await.unwrap_err();
    assert_eq!(error.status().expect("reaped").signal(), Some(15));
    rest(&mut said).await;
}

/// It waits in one place: a shell that is just starting something (`vfork`) can not be stopped in the middle of that.
const TIDIES_UP: &str = "trap 'echo tidied; exit 3' TERM; sleep 1000 & echo ready; wait";

#[tokio::test]
async fn a_child_that_was_stopped_is_told() {
    let ctx = Context::background().with_cancel();
    let (mut child, mut said) = ready(&ctx, TIDIES_UP, PATIENT).await;
    let group = format!("-{}", child.id());
    kill("STOP", &group);
    until(child.id(), Some('T')).await;
    ctx.cancel();
    let error = guard("the end", child.wait()).await.unwrap_err();
    assert_eq!(error.status().expect("reaped").code(), Some(3));
    assert_eq!(rest(&mut said).await, "tidied\n");
}

#[tokio::test]
async fn control_what_was_stopped_stays_so_when_it_is_only_sent_the_signal() {
    let ctx = Context::background().with_cancel();
    let (mut child, mut said) = ready(&ctx, TIDIES_UP, PATIENT).await;
    let group = format!("-{}", child.id());
    kill("STOP", &group);
    until(child.id(), Some('T')).await;
    kill("TERM", &group);
    assert_eq!(state(child.id()), Some('T'), "what is not taken changes nothing");
    ctx.cancel();
    guard("the end", child.wait()).await.unwrap_err();
    assert_eq!(rest(&mut said).await, "tidied\n");
}

/// One thread, which has no turn between the exit and the cancel: so nobody can have noticed the exit.
#[tokio::test(flavor = "current_thread")]
async fn an_exit_that_nobody_had_noticed_wins_over_the_end() {
    let ctx = Context::background().with_cancel();
    let (mut child, _said) = ready(&ctx, "echo ready; exit 7", PATIENT).await;
    while state(child.id()) != Some('Z') {
        // Not an await: see above.
        std::thread::yield_now();
    }
    ctx.cancel();
    let status = guard("the exit", child.wait()).await.expect("it was never told");
    assert_eq!(status.code(), Some(7));
}

#[tokio::test]
async fn what_a_child_leaves_behind_at_its_own_exit_is_left_in_peace() {
    let ctx = Context::background().with_cancel();
    let (mut child, mut said) = ready(&ctx, "echo ready; sleep 1000 & echo $!", PATIENT).await;
    let left_behind = line(&mut said).await;
    assert!(
        guard("the exit", child.wait())
            .await
            .expect("by itself")
            .success()
    );
    ctx.cancel();
    drop(child);
    kill("KILL", &left_behind); // which asserts that there is one
    rest(&mut said).await;
}

#[tokio::test]
async fn without_a_grace_nobody_is_told() {
    let ctx = Context::background().with_timeout(Duration::from_secs(60));
    let ending = Ending {
        grace: Duration::ZERO,
        ..PATIENT
    };
    let script = "trap 'echo told' TERM; echo ready; while :; do sleep 0.01; done";
    let (mut child, mut said) = ready(&ctx, script, ending).await;
    ctx.cancel();
    let error = guard("the end", child.wait()).await.unwrap_err();
    assert_eq!(error.canceled().expect("an end").kind(), Kind::Canceled);
    assert_eq!(error.status().expect("reaped").signal(), Some(9));
    assert_eq!(rest(&mut said).await, "");
}
