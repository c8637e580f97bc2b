//! 4c: task groups.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bequest::{Context, Group, GroupError, Kind, Reason};
use tokio::sync::{Barrier, Notify};

type Failed = GroupError<&'static str>;

#[tokio::test]
async fn g1_the_first_error_wins_and_cancels_the_rest() {
    let request = Context::background().with_cancel();
    let mut group: Group<u32, &str> = Group::new(&request);
    let ctx = group.context().clone();
    let both = Arc::new(Barrier::new(2));
    let line = line!() + 1;
    group.spawn({
        let both = Arc::clone(&both);
        |_| async move {
            both.wait().await;
            Err("first")
        }
    });
    group.spawn(|ctx| async move {
        both.wait().await;
        assert_eq!(ctx.done().await.reason(), Reason::Sibling);
        Err("told")
    });
    let failed = group.wait().await.unwrap_err();
    assert_eq!(failed.error(), Some(&"first"));
    assert_eq!(failed.others(), ["told"], "and none is lost");
    let end = ctx.err().unwrap();
    assert_eq!(end, Kind::Canceled);
    assert_eq!((end.origin().file(), end.origin().line()), (file!(), line));
    assert!(!request.is_done());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_the_first_error_in_time_wins_even_if_it_is_reported_last() {
    let mut group: Group<(), &str> = Group::new(&Context::background());
    let (told, wait) = mpsc::channel::<()>();
    // Runs while the first failure cancels: its task does not go on before the other one has ended.
    let hold = move |_| tokio::task::block_in_place(|| assert!(wait.recv().is_err()));
    let _guard = group.context().after_func(hold);
    group.spawn(move |ctx| async move {
        let _dropped_last = told;
        drop(ctx.done().await);
        Err("told")
    });
    group.spawn(|_| async { Err("first") });
    let failed = group.wait().await.unwrap_err();
    assert_eq!(failed.error(), Some(&"first"));
    assert_eq!(failed.others(), ["told"]);
}

#[tokio::test]
async fn g1_wait_waits_for_all_and_then_the_context_is_over() {
    let mut group: Group<u32, &str> = Group::new(&Context::background());
    let ctx = group.context().clone();
    let gate = Arc::new(Notify::new());
    let finished = Arc::new(AtomicUsize::new(0));
    for number in 0..3 {
        let (gate, finished) = (Arc::clone(&gate), Arc::clone(&finished));
        group.spawn(move |_| async move {
            if number == 0 {
                gate.notified().await;
            } else if number == 2 {
                gate.notify_one();
            }
            finished.fetch_add(1, Ordering::SeqCst);
            Ok(number)
        });
    }
    assert_eq!(group.wait().await.unwrap(), [0, 1, 2]);
    assert_eq!(finished.load(Ordering::SeqCst), 3);
    assert_eq!(
        ctx.err().unwrap().reason(),
        Reason::ScopeEnded,
        "made for the group alone"
    );
}

#[tokio::test]
async fn g2_a_limit_never_blocks_and_honours_the_context() {
    let request = Context::background().with_cancel();
    let mut group: Group<(), &str> = Group::new(&request).limit(2);
    let (begun, both) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(3)));
    for _ in 0..10 {
        let (begun, both) = (Arc::clone(&begun), Arc::clone(&both));
        group.spawn(move |ctx| async move {
            begun.fetch_add(1, Ordering::SeqCst);
            both.wait().await;
            drop(ctx.done().await);
            Ok(())
        });
    }
    both.wait().await;
    assert_eq!(begun.load(Ordering::SeqCst), 2);
    request.cancel_for(Reason::ClientGone);
    let failed: Failed = group.wait().await.unwrap_err();
    assert_eq!(begun.load(Ordering::SeqCst), 2, "the others were never begun");
    assert_eq!(failed.canceled().unwrap().reason(), Reason::ClientGone);
}

#[test]
#[should_panic(expected = "would wait for ever")]
fn g2_a_limit_of_zero_is_refused() {
    drop(Group::<(), ()>::new(&Context::background()).limit(0));
}

#[tokio::test]
#[should_panic(expected = "before the first task")]
async fn g2_a_limit_cannot_change_while_tasks_run() {
    let mut group = Group::<(), ()>::new(&Context::background());
    group.spawn(|_| async { Ok(()) });
    drop(group.limit(1));
}

#[tokio::test]
async fn g3_nothing_starts_after_the_end() {
    let request = Context::background().with_cancel();
    request.cancel_for(Reason::Shutdown);
    let mut group: Group<(), &str> = Group::new(&request);
    group.spawn(|_| async { unreachable!("the context had ended") });
    let failed = group.wait().await.unwrap_err();
    assert_eq!(failed.canceled().unwrap().reason(), Reason::Shutdown);
    assert!(failed.error().is_none() && failed.panic().is_none());
}

#[tokio::test]
async fn g3_nothing_starts_after_an_error() {
    let mut group: Group<(), &str> = Group::new(&Context::background()).limit(1);
    group.spawn(|_| async { Err("no") });
    for _ in 0..5 {
        group.spawn(|_| async { unreachable!("the group had failed") });
    }
    let failed = group.wait().await.unwrap_err();
    assert_eq!(failed.into_error(), Some("no"));
}

#[tokio::test]
async fn g4_a_panic_is_caught_reported_and_cancels_the_rest() {
    let mut group: Group<(), &str> = Group::new(&Context::background());
    group.spawn(|ctx| async move {
        assert_eq!(ctx.done().await.reason(), Reason::Sibling);
        Ok(())
    });
    group.spawn(|_| async { panic!("on purpose") });
    let failed = group.wait().await.unwrap_err();
    assert_eq!(failed.panic(), Some("on purpose"));
    assert!(failed.to_string().contains("on purpose"));
}

#[tokio::test]
async fn g4_a_panic_before_the_first_poll_is_caught() {
    fn refuse(_: Context) -> std::future::Ready<Result<(), &'static str>> {
        panic!("at the call")
    }
    let mut group: Group<(), &str> = Group::new(&Context::background());
    group.spawn(refuse);
    assert_eq!(group.wait().await.unwrap_err().panic(), Some("at the call"));
}

#[tokio::test]
async fn g4_a_panic_while_the_work_is_dropped_is_a_failure() {
    struct Touchy;
    impl Drop for Touchy {
        fn drop(&mut self) {
            panic!("while dropped");
        }
    }
    impl Future for Touchy {
        type Output = Result<u32, &'static str>;
        fn poll(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Self::Output> {
            std::task::Poll::Ready(Ok(1))
        }
    }
    let mut group: Group<u32, &str> = Group::new(&Context::background());
    group.spawn(|_| Touchy);
    group.spawn(|_| async { Ok(2) });
    let failed = group.wait().await.expect_err("a result is missing");
    assert_eq!(failed.panic(), Some("while dropped"));
}

#[tokio::test]
async fn g5_results_in_order_and_every_error() {
    let mut group: Group<u64, io::Error> = Group::new(&Context::background()).limit(3);
    for number in 0..20u64 {
        group.spawn(move |ctx| async move {
            ctx.sleep(Duration::from_micros(20 - number)).await.unwrap();
            Ok(number)
        });
    }
    assert!(group.wait().await.unwrap().into_iter().eq(0..20));

    let gate = Arc::new(Barrier::new(4));
    let mut group: Group<(), u32> = Group::new(&Context::background());
    for number in 0..4 {
        let gate = Arc::clone(&gate);
        group.spawn(move |_| async move {
            gate.wait().await;
            Err(number)
        });
    }
    let failed = group.wait().await.unwrap_err();
    let mut all = failed.others().to_vec();
    all.extend(failed.into_error());
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3], "none is swallowed");
}

#[tokio::test]
async fn g5_a_dropped_group_takes_its_tasks_along() {
    struct Gone(Arc<Mutex<Option<tokio::sync::oneshot::Sender<()>>>>);
    impl Drop for Gone {
        fn drop(&mut self) {
            let tell = self.0.lock().unwrap().take();
            tell.unwrap().send(()).unwrap();
        }
    }
    let (tell, told) = tokio::sync::oneshot::channel();
    let gone = Gone(Arc::new(Mutex::new(Some(tell))));
    let begun = Arc::new(Notify::new());
    let mut group: Group<(), ()> = Group::new(&Context::background());
    group.spawn({
        let begun = Arc::clone(&begun);
        move |_| async move {
            let _gone = gone;
            begun.notify_one();
            std::future::pending().await
        }
    });
    begun.notified().await;
    drop(group);
    told.await.unwrap();
}
