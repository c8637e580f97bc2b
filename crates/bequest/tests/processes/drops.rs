//! Whoever is dropped, and whenever: the group ends, its leader is reaped, and nothing is left over.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use bequest::process;
use bequest::{Context, Reason};
use tokio::runtime::Runtime;

use crate::children::{
    PATIENT, WITH_GRANDCHILD, guard, ready, rest, shell, state, telling_its_number, until,
};

#[tokio::test]
async fn dropping_a_child_ends_its_group_in_the_background() {
    let (child, mut said) = ready(&Context::background(), WITH_GRANDCHILD, PATIENT).await;
    let leader = child.id();
    drop(child);
    rest(&mut said).await;
    until(leader, None).await;
}

#[tokio::test]
async fn control_a_child_that_nobody_waits_for_stays_as_a_zombie() {
    let mut child = shell("exit 0").spawn().unwrap();
    until(child.id(), Some('Z')).await;
    assert_eq!(state(child.id()), Some('Z'));
    child.wait().unwrap();
    assert_eq!(state(child.id()), None);
}

#[tokio::test]
async fn a_child_that_nobody_waits_for_is_ended_and_reaped_too() {
    let ctx = Context::background().with_cancel();
    let (child, mut said) = ready(&ctx, WITH_GRANDCHILD, PATIENT).await;
    ctx.cancel();
    rest(&mut said).await;
    until(child.id(), None).await;
}

#[tokio::test]
async fn dropping_a_call_for_output_ends_its_child() {
    let (command, number) = telling_its_number("exec sleep 1000");
    let ctx = Context::background();
    let leader = tokio::select! {
        output = process::output(&ctx, command, PATIENT) => panic!("it sleeps: {output:?}"),
        leader = number => leader,
    };
    until(leader, None).await;
}

#[tokio::test]
async fn waiting_again_after_giving_a_wait_up_answers() {
    let ctx = Context::background().with_cancel();
    let (mut child, _said) = ready(&ctx, "echo ready; exec sleep 1000", PATIENT).await;
    let waited = tokio::time::timeout(Duration::from_millis(1), child.wait()).await;
    assert!(waited.is_err());
    ctx.cancel_for(Reason::Shutdown);
    let error = guard("the end", child.wait()).await.unwrap_err();
    assert_eq!(error.canceled().expect("an end").reason(), Reason::Shutdown);
}

#[test]
fn a_runtime_that_is_dropped_takes_the_group_along() {
    let runtime = Runtime::new().unwrap();
    let (mut child, said) = runtime.block_on(ready(&Context::background(), WITH_GRANDCHILD, PATIENT));
    let said = {
        let _inside = runtime.enter();
        said.into_inner().into_owned_fd().unwrap()
    };
    drop(runtime);
    let mut rest = String::new();
    std::fs::File::from(said).read_to_string(&mut rest).unwrap();

    let runtime = Runtime::new().unwrap();
    let error = runtime.block_on(child.wait()).unwrap_err();
    assert!(error.io().is_some() && error.canceled().is_none(), "{error}");
}

/// In a process of its own, so that what it has open is this test's.
#[cfg(target_os = "linux")]
#[test]
fn nothing_is_left_over_of_many() {
    const ONCE_MORE: &str = "BEQUEST_TEST_ALONE";
    if std::env::var_os(ONCE_MORE).is_none() {
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "drops::nothing_is_left_over_of_many"]);
        let output = again.env(ONCE_MORE, "1").output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
        return;
    }
    let runtime = Runtime::new().unwrap();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let seen_to = async || {
        let none_left = async {
            while runtime.metrics().num_alive_tasks() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        guard("the last task to end", none_left).await;
    };
    runtime.block_on(async {
        // The first of all leaves what is there once: the pipe of the runtime's signals.
        each_way_to_end().await;
        seen_to().await;
        let before = open();
        let kept = ready(&Context::background(), WITH_GRANDCHILD, PATIENT).await;
        assert!(
            open() > before && runtime.metrics().num_alive_tasks() > 0,
            "control: they count"
        );
        drop(kept);
        for _ in 0..25 {
            each_way_to_end().await;
        }
        seen_to().await;
        assert_eq!(open(), before);
    });
    let children = Command::new("ps")
        .args(["-o", "stat=", "--ppid", &std::process::id().to_string()])
        .output()
        .unwrap();
    let states = String::from_utf8_lossy(&children.stdout).into_owned();
    assert!(!states.contains('Z'), "zombies: {states}");
}

/// An exit, a cancel, a drop, and a limit on a call for output.
#[cfg(target_os = "linux")]
async fn each_way_to_end() {
    let ctx = Context::background().with_cancel();
    let mut quick = process::spawn(&ctx, shell("exit 0"), PATIENT).unwrap();
    let mut slow = process::spawn(&ctx, shell("exec sleep 1000"), PATIENT).unwrap();
    let mut command = shell("exec sleep 1000");
    command.stdin(Stdio::piped()).stderr(Stdio::piped());
    drop(process::spawn(&ctx, command, PATIENT).unwrap());
    guard("an exit", quick.wait()).await.expect("by itself");
    ctx.cancel();
    guard("an end", slow.wait()).await.unwrap_err();
    let short = Context::background().with_timeout(Duration::from_millis(1));
    let output = process::output(&short, shell("exec sleep 1000"), PATIENT);
    guard("a limit", output).await.unwrap_err();
}
