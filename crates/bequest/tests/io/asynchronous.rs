//! tokio's, in memory and on sockets.

use std::future::Future;
use std::io::IoSlice;
use std::pin::pin;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use bequest::io::{WithContext, canceled};
use bequest::{Context, Kind, Reason};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

#[tokio::test]
async fn a_waiting_read_ends_with_its_context() {
    let (ours, _theirs) = duplex(8);
    let ctx = Context::background().with_cancel();
    let canceller = ctx.canceller();
    let mut reader = WithContext::new(&ctx, ours);
    let reading = tokio::spawn(async move { reader.read(&mut [0; 8]).await });
    tokio::task::yield_now().await;
    assert!(!reading.is_finished());
    canceller.cancel_for(Reason::ClientGone);
    let error = reading.await.expect("no panic").unwrap_err();
    assert_eq!(canceled(&error).expect("an end").reason(), Reason::ClientGone);
}

#[tokio::test]
async fn control_a_bare_read_goes_on_waiting() {
    let (mut ours, mut theirs) = duplex(8);
    let ctx = Context::background().with_cancel();
    let reading = tokio::spawn(async move { ours.read(&mut [0; 8]).await });
    tokio::task::yield_now().await;
    ctx.cancel();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!reading.is_finished());
    theirs.write_all(b"x").await.expect("it is open");
    assert_eq!(reading.await.expect("no panic").expect("a byte"), 1);
}

#[tokio::test]
async fn a_waiting_write_ends_with_its_context() {
    let (ours, mut theirs) = duplex(4);
    let ctx = Context::background().with_cancel();
    let canceller = ctx.canceller();
    let mut writer = WithContext::new(&ctx, ours);
    let writing = tokio::spawn(async move { (writer.write_all(b"more than fits").await, writer) });
    tokio::task::yield_now().await;
    canceller.cancel();
    let (result, writer) = writing.await.expect("no panic");
    assert_eq!(canceled(&result.unwrap_err()).expect("an end"), &Kind::Canceled);
    drop(writer);
    let mut seen = String::new();
    theirs.read_to_string(&mut seen).await.expect("text");
    assert_eq!(seen, "more", "nothing after the end");
}

#[tokio::test]
async fn what_has_ended_reads_and_writes_nothing_but_may_be_shut_down() {
    let (ours, mut theirs) = duplex(64);
    theirs.write_all(b"waiting").await.expect("it fits");
    let ctx = Context::background().with_timeout(Duration::ZERO);
    let mut both = WithContext::new(&ctx, ours);
    for error in [
        both.read(&mut [0; 8]).await.unwrap_err(),
        both.write(b"x").await.unwrap_err(),
        both.flush().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        assert!(canceled(&error).expect("an end").is_from(&ctx));
    }
    both.shutdown().await.expect("no wait");
    let mut seen = String::new();
    theirs.read_to_string(&mut seen).await.expect("text");
    assert_eq!(seen, "");

    let mut inner = both.into_inner();
    assert_eq!(inner.read(&mut [0; 8]).await.expect("still there"), 7);
}

#[tokio::test]
async fn pieces_go_out_together_and_end_with_the_context_too() {
    let (ours, mut theirs) = duplex(6);
    let ctx = Context::background().with_cancel();
    let mut writer = WithContext::new(&ctx, ours);
    assert!(
        tokio::io::AsyncWrite::is_write_vectored(&writer),
        "as what is wrapped"
    );
    let pieces = [IoSlice::new(b"one"), IoSlice::new(b"two")];
    assert_eq!(writer.write_vectored(&pieces).await.expect("room"), 6);
    let writing = tokio::spawn(async move { writer.write_vectored(&[IoSlice::new(b"more")]).await });
    tokio::task::yield_now().await;
    ctx.cancel();
    let error = writing.await.expect("no panic").unwrap_err();
    assert!(canceled(&error).is_some());
    let mut seen = [0; 6];
    theirs.read_exact(&mut seen).await.expect("it came");
    assert_eq!(&seen, b"onetwo");
}

#[tokio::test]
async fn a_reader_and_a_writer_in_two_tasks_are_both_woken() {
    let (ours, _theirs) = duplex(1);
    let ctx = Context::background().with_cancel();
    let (mut reader, mut writer) = tokio::io::split(WithContext::new(&ctx, ours));
    let reading = tokio::spawn(async move { reader.read(&mut [0; 8]).await.unwrap_err() });
    let writing = tokio::spawn(async move { writer.write_all(b"too much").await.unwrap_err() });
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(!reading.is_finished() && !writing.is_finished());
    ctx.cancel();
    for ended in [reading, writing] {
        assert!(canceled(&ended.await.expect("no panic")).is_some());
    }
}

#[test]
fn a_read_that_is_given_up_loses_nothing() {
    let (ours, mut theirs) = duplex(8);
    let ctx = Context::background().with_cancel();
    let mut reader = WithContext::new(&ctx, ours);
    let mut task = TaskContext::from_waker(Waker::noop());
    {
        let mut buffer = [0; 8];
        let mut reading = pin!(reader.read(&mut buffer));
        assert!(reading.as_mut().poll(&mut task).is_pending());
    }
    let mut writing = pin!(theirs.write_all(b"kept"));
    assert!(writing.as_mut().poll(&mut task).is_ready());
    let mut buffer = [0; 8];
    let mut reading = pin!(reader.read(&mut buffer));
    assert!(matches!(reading.as_mut().poll(&mut task), Poll::Ready(Ok(4))));
}

#[test]
fn what_has_come_for_a_read_that_its_context_ends_stays_there() {
    let (ours, mut theirs) = duplex(8);
    let ctx = Context::background().with_cancel();
    let mut reader = WithContext::new(&ctx, ours);
    let mut task = TaskContext::from_waker(Waker::noop());
    {
        let mut buffer = [0; 8];
        let mut reading = pin!(reader.read(&mut buffer));
        assert!(reading.as_mut().poll(&mut task).is_pending());
        assert!(pin!(theirs.write_all(b"kept")).poll(&mut task).is_ready());
        ctx.cancel();
        let Poll::Ready(Err(error)) = reading.poll(&mut task) else {
            panic!("ended by the context")
        };
        assert!(canceled(&error).is_some());
    }
    let (mut inner, mut buffer) = (reader.into_inner(), [0; 8]);
    let read = pin!(inner.read(&mut buffer)).poll(&mut task);
    assert!(matches!(read, Poll::Ready(Ok(4))));
    assert_eq!(&buffer[..4], b"kept");
}
