//! Blocking work: its caller is answered early, and what runs on is on a list.

use std::sync::mpsc;
use std::time::Duration;

use bequest::{Context, Kind, Reason, blocking, spawn_blocking};
use tokio::sync::{Mutex, oneshot};

/// The list is the process's: one test at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Work that does not look at its context, and runs until it is let go of.
struct Deaf {
    begun: oneshot::Receiver<()>,
    let_go: mpsc::Sender<()>,
}

fn deaf() -> (Deaf, impl FnOnce(&Context) -> u8 + Send + 'static) {
    let (tell, begun) = oneshot::channel();
    let (let_go, wait) = mpsc::channel::<()>();
    let work = move |_: &Context| {
        let _ = tell.send(());
        let _ = wait.recv();
        7
    };
    (Deaf { begun, let_go }, work)
}

#[tokio::test]
async fn the_caller_is_answered_while_the_work_runs_on() {
    let _alone = ALONE.lock().await;
    let request = Context::background().with_cancel();
    let (deaf, work) = deaf();
    let line = line!() + 1;
    let answer = spawn_blocking(&request, work);
    deaf.begun.await.unwrap();
    request.cancel_for(Reason::ClientGone);

    let error = answer.await.unwrap_err();
    assert!(error.still_running());
    assert_eq!(error.canceled().unwrap().reason(), Reason::ClientGone);
    assert!(error.to_string().ends_with("the work still runs"), "{error}");

    let limit = Context::background().with_timeout(Duration::from_millis(1));
    let left = blocking::wait(&limit).await;
    assert_eq!(left.len(), 1);
    assert_eq!(
        (left[0].begun_at().file(), left[0].begun_at().line()),
        (file!(), line)
    );
    assert_eq!(left[0].told().unwrap().reason(), Reason::ClientGone);

    drop(deaf.let_go);
    assert!(blocking::wait(&Context::background()).await.is_empty());
}

#[tokio::test]
async fn control_the_runtimes_own_function_keeps_its_caller() {
    let _alone = ALONE.lock().await;
    let request = Context::background().with_cancel();
    let (deaf, work) = deaf();
    let context = request.context();
    let mut answer = tokio::task::spawn_blocking(move || work(&context));
    deaf.begun.await.unwrap();
    request.cancel();
    let asked_again = tokio::time::timeout(Duration::from_millis(20), &mut answer).await;
    assert!(asked_again.is_err(), "the end of the context is nothing to it");
    assert!(blocking::running().is_empty(), "and nobody knows of it");
    drop(deaf.let_go);
    assert_eq!(answer.await.unwrap(), 7);
}

#[test]
fn work_that_waits_for_a_thread_never_begins_once_its_context_has_ended() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let _alone = ALONE.lock().await;
        let (deaf, first) = deaf();
        let first = spawn_blocking(&Context::background(), first);
        deaf.begun.await.unwrap();

        let request = Context::background().with_cancel();
        let (begun, has_begun) = mpsc::channel();
        let second = spawn_blocking(&request, move |_| begun.send(()).unwrap());
        request.cancel();
        let error = second.await.unwrap_err();
        assert!(error.canceled().is_some() && !error.still_running());

        drop(deaf.let_go);
        assert_eq!(first.await.unwrap(), 7);
        assert!(blocking::wait(&Context::background()).await.is_empty());
        // Its thread is free, and drops it unused.
        assert!(has_begun.recv().is_err());
    });
}

#[tokio::test]
async fn a_dropped_future_tells_the_work() {
    let _alone = ALONE.lock().await;
    let (tell, told) = oneshot::channel();
    let (begin, begun) = oneshot::channel();
    let answer = spawn_blocking(&Context::background(), move |ctx| {
        begin.send(()).unwrap();
        tell.send(ctx.wait().reason()).unwrap();
    });
    begun.await.unwrap();
    drop(answer);
    assert_eq!(told.await.unwrap(), Reason::ScopeEnded);
}

#[tokio::test]
async fn finished_work_wins_over_a_later_end() {
    let _alone = ALONE.lock().await;
    let request = Context::background().with_cancel();
    let answer = spawn_blocking(&request, |_| 7);
    // Until it has begun and gone, or has not begun.
    while !answer.is_finished() {
        tokio::task::yield_now().await;
    }
    request.cancel();
    assert_eq!(answer.await.unwrap(), 7);
}

#[tokio::test]
async fn a_panic_is_an_error_and_leaves_the_list() {
    let _alone = ALONE.lock().await;
    let answer = spawn_blocking::<()>(&Context::background(), |_| panic!("no such table"));
    let error = answer.await.unwrap_err();
    assert_eq!(error.panic(), Some("no such table"));
    assert!(error.canceled().is_none());
    assert!(blocking::running().is_empty());
}

#[tokio::test]
async fn a_deadline_answers_too() {
    let _alone = ALONE.lock().await;
    let request = Context::background().with_timeout(Duration::from_millis(5));
    let (deaf, work) = deaf();
    let error = spawn_blocking(&request, work).await.unwrap_err();
    assert_eq!(*error.canceled().unwrap(), Kind::DeadlineExceeded);
    drop(deaf.let_go);
    assert!(blocking::wait(&Context::background()).await.is_empty());
}
