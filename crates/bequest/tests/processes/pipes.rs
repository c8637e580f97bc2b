//! What is piped: never waited for in vain, and never longer than the context lives.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::Pin;
use std::process::Stdio;
use std::task::Poll;
use std::time::Duration;

use bequest::process::{self, Child, Ending};
use bequest::{Context, Reason};
use tokio::io::{AsyncWriteExt, BufReader};

use crate::children::{PATIENT, guard, kill, line, ready, rest, shell, telling_its_number, until};

#[tokio::test]
async fn waiting_closes_an_input_that_nobody_took() {
    let mut command = shell("cat");
    command.stdin(Stdio::piped());
    let mut child = process::spawn(&Context::background(), command, PATIENT).unwrap();
    assert!(
        guard("the exit", child.wait())
            .await
            .expect("by itself")
            .success()
    );

    let mut command = shell("cat; echo read to its end");
    command.stdin(Stdio::piped());
    let ctx = Context::background();
    let output = guard("the output", process::output(&ctx, command, PATIENT)).await;
    assert_eq!(output.unwrap().stdout, b"read to its end\n");
}

#[tokio::test]
async fn an_input_that_was_taken_is_its_takers() {
    let mut command = shell("echo ready; cat; echo read to its end");
    command.stdin(Stdio::piped());
    let mut child = process::spawn(&Context::background(), command, PATIENT).unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut input = child.stdin.take().unwrap();
    assert_eq!(line(&mut said).await, "ready");
    let feed = async {
        input.write_all(b"late\n").await.unwrap();
        assert_eq!(line(&mut said).await, "late");
        drop(input);
    };
    let (status, ()) = guard("both", async { tokio::join!(child.wait(), feed) }).await;
    assert!(status.expect("by itself").success());
    assert_eq!(rest(&mut said).await, "read to its end\n");
}

/// A child that reads nothing, and a write of more than a pipe holds.
fn hard_of_hearing(ctx: &Context) -> (Child, impl Future<Output = std::io::Result<()>> + Unpin + use<>) {
    let mut command = shell("exec sleep 1000");
    command.stdin(Stdio::piped());
    let mut child = process::spawn(ctx, command, PATIENT).unwrap();
    let mut input = child.stdin.take().unwrap();
    let write = Box::pin(async move { input.write_all(&vec![b'x'; 1 << 20]).await });
    (child, write)
}

#[tokio::test]
async fn a_write_that_nobody_reads_ends_with_the_child() {
    let ctx = Context::background().with_cancel();
    let (mut child, mut write) = hard_of_hearing(&ctx);
    let waits = poll_fn(|task| Poll::Ready(Pin::new(&mut write).poll(task).is_pending()));
    assert!(waits.await, "it has filled the pipe");
    ctx.cancel_for(Reason::ClientGone);
    let (written, waited) = guard("both", async { tokio::join!(write, child.wait()) }).await;
    assert_eq!(written.unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert_eq!(
        waited.unwrap_err().canceled().expect("an end").reason(),
        Reason::ClientGone
    );
}

#[tokio::test]
async fn run_around_a_write_says_why() {
    let ctx = Context::background().with_cancel();
    let (mut child, write) = hard_of_hearing(&ctx);
    let cancel = async {
        tokio::task::yield_now().await;
        ctx.cancel_for(Reason::ClientGone);
    };
    let (written, ()) = guard("both", async { tokio::join!(ctx.run(write), cancel) }).await;
    assert_eq!(written.unwrap_err().reason(), Reason::ClientGone);
    guard("the end", child.wait()).await.unwrap_err();
}

#[tokio::test]
async fn output_that_is_held_open_is_waited_for_no_longer_than_the_context_lives() {
    let ctx = Context::background().with_cancel();
    let (command, number) = telling_its_number("sleep 1000 & echo said");
    let output = process::output(&ctx, command, PATIENT);
    let cancel = async {
        let leader = number.await;
        until(leader, None).await;
        ctx.cancel_for(Reason::ClientGone);
        leader
    };
    let (output, leader) = guard("both", async { tokio::join!(output, cancel) }).await;
    let error = output.unwrap_err();
    assert_eq!(error.canceled().expect("an end").reason(), Reason::ClientGone);
    assert_eq!(error.status().expect("it had exited by itself").code(), Some(0));
    assert!(
        error
            .to_string()
            .ends_with("; the process ended (exit status: 0)"),
        "{error}"
    );
    kill("KILL", &format!("-{leader}"));
}

#[tokio::test]
async fn control_the_runtimes_own_output_waits_for_whoever_holds_it() {
    let mut command = tokio::process::Command::from(shell("sleep 1000 & echo said"));
    let child = command.process_group(0).spawn().unwrap();
    let leader = child.id().unwrap();
    let mut output = Box::pin(child.wait_with_output());
    tokio::select! {
        output = &mut output => panic!("somebody held it: {output:?}"),
        () = until(leader, None) => kill("KILL", &format!("-{leader}")),
    }
    assert_eq!(guard("the output", output).await.unwrap().stdout, b"said\n");
}

#[tokio::test]
async fn pipes_are_waited_for_without_a_limit_where_none_is_set() {
    let ending = Ending {
        pipes: Duration::MAX,
        ..PATIENT
    };
    // Who holds the output says more, when the child has exited and is reaped.
    let script = "(while kill -0 $$ 2>/dev/null; do sleep 0.01; done; echo late) & echo said";
    let ctx = Context::background();
    let output = guard("the output", process::output(&ctx, shell(script), ending)).await;
    let output = output.unwrap();
    assert!(!output.is_held_open);
    assert_eq!(output.stdout, b"said\nlate\n");
}

#[tokio::test]
async fn a_child_that_closes_its_output_is_waited_for() {
    let (mut child, mut said) = ready(
        &Context::background(),
        "echo ready; exec >&-; read line; exit 4",
        PATIENT,
    )
    .await;
    rest(&mut said).await;
    assert_eq!(guard("the exit", child.wait()).await.unwrap().code(), Some(4));
}
