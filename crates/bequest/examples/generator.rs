//! The generator: a producer that feeds a channel, and ends with its reader or with its context, whichever is first.
//!
//! Run it with `cargo run -p bequest --example generator`; it says nothing if every assertion holds.

use bequest::{Canceled, Context, Reason};

/// On a thread of its own.
mod on_a_thread {
    use super::{Canceled, Context};
    use std::sync::mpsc::{self, Receiver};
    use std::thread::{self, JoinHandle};

    pub(crate) fn numbers(ctx: &Context) -> (Receiver<u64>, JoinHandle<Result<(), Canceled>>) {
        let (sender, receiver) = mpsc::sync_channel(0);
        let ctx = ctx.clone();
        let producer = thread::spawn(move || {
            for number in 1.. {
                ctx.check()?;
                if sender.send(number).is_err() {
                    break; // the reader has gone: nobody needs to be told why
                }
            }
            Ok(())
        });
        (receiver, producer)
    }
}

/// As a task.
mod as_a_task {
    use super::{Canceled, Context};
    use tokio::sync::mpsc::{self, Receiver};
    use tokio::task::JoinHandle;

    pub(crate) fn numbers(ctx: &Context) -> (Receiver<u64>, JoinHandle<Result<(), Canceled>>) {
        let (sender, receiver) = mpsc::channel(1);
        let ctx = ctx.clone();
        let producer = tokio::spawn(async move {
            for number in 1.. {
                if ctx.run(sender.send(number)).await?.is_err() {
                    break;
                }
            }
            Ok(())
        });
        (receiver, producer)
    }
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() {
    // The reader takes five and goes: that alone ends the producer, where a goroutine would be stuck for ever.
    let (receiver, producer) = on_a_thread::numbers(&Context::background());
    assert_eq!(receiver.iter().take(5).sum::<u64>(), 15);
    drop(receiver);
    assert!(producer.join().unwrap().is_ok());

    let (mut receiver, producer) = as_a_task::numbers(&Context::background());
    let mut sum = 0;
    while sum < 15 {
        sum += receiver.recv().await.unwrap();
    }
    drop(receiver);
    assert!(producer.await.unwrap().is_ok());

    // The reader keeps its end and does not read: the context ends the task, in the middle of its send, with the reason.
    let request = Context::background().with_cancel();
    let (mut receiver, producer) = as_a_task::numbers(&request);
    assert_eq!(receiver.recv().await, Some(1));
    request.cancel_for(Reason::ClientGone);
    assert_eq!(producer.await.unwrap().unwrap_err().reason(), Reason::ClientGone);

    // The thread is told between two numbers; a send that blocks is not interrupted, so the reader has to go on or go.
    let request = Context::background().with_cancel();
    let (receiver, producer) = on_a_thread::numbers(&request);
    assert_eq!(receiver.recv(), Ok(1));
    request.cancel_for(Reason::ClientGone);
    while receiver.recv().is_ok() {}
    assert_eq!(producer.join().unwrap().unwrap_err().reason(), Reason::ClientGone);
}
