//! A count of handles that overflows would free a node that is in use. It must end the process instead, as `Arc` does,
//! or be too wide ever to overflow.

use bequest::Context;

/// More than 32 bits can count.
const HANDLES: u64 = (1 << 32) + (1 << 20);
const CHILD: &str = "BEQUEST_TEST_OVERFLOW";

/// The one that the test below starts again as a process of its own, whose death is part of the answer.
#[test]
#[ignore = "takes a minute: ci/soak.sh runs it in release"]
fn forgotten_handles_never_free_a_node_that_is_in_use() {
    if std::env::var_os(CHILD).is_some() {
        return forget_handles();
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "overflow::forgotten_handles_never_free_a_node_that_is_in_use",
        ])
        .args(["--ignored", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        !told.contains("was freed"),
        "a node was freed although a handle to it is there"
    );
    let survived = output.status.success() && told.contains("all handles were counted");
    assert!(survived || aborted(&output.status), "{:?}: {told}", output.status);
}

/// By `abort`, and not by a fault of memory.
fn aborted(status: &std::process::ExitStatus) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt;
        const SIGABRT: i32 = 6;
        status.signal() == Some(SIGABRT)
    }
    #[cfg(not(unix))]
    {
        !status.success()
    }
}

#[expect(clippy::mem_forget, reason = "forgotten handles are the matter")]
#[allow(clippy::print_stdout, reason = "the other process reads it")]
fn forget_handles() {
    let scope = Context::background().with_cancel();
    let seen = scope.context();
    for _ in 0..HANDLES {
        std::mem::forget(seen.clone());
    }
    // With a count that has come round, this would free the node.
    drop(seen);
    scope.cancel();
    match scope.is_done() && scope.err().is_some() {
        true => println!("all handles were counted"),
        false => println!("it was freed"),
    }
}
