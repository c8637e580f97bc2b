//! Waiting for something rare beside something frequent, in one task.
//!
//! A connection is woken for every request, and each time `select!` would ask every side of it: the drain, the limits, the
//! departure. Each of them answers by a lock. Here the sides have a bell of their own, and are asked only when it was rung.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll, Wake, Waker};

/// Which of two was ready.
pub(super) enum Either<A, B> {
    Main(A),
    Side(B),
}

/// Waits for either; `main` wins a tie. `main` is polled whenever the task is, `side` only when it was woken itself.
pub(super) async fn beside<A, B>(
    main: impl Future<Output = A>,
    side: impl Future<Output = B>,
) -> Either<A, B> {
    // Whoever floods the main one uses up what tokio lets a task do in one poll, and then a `select!` asks nothing any more.
    let side = tokio::task::unconstrained(side);
    let (mut main, mut side) = (pin!(main), pin!(side));
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(bell.clone());
    // A copy of what the bell wakes, to be compared without its lock.
    let mut wakes: Option<Waker> = None;
    poll_fn(move |cx| {
        if let Poll::Ready(value) = main.as_mut().poll(cx) {
            return Poll::Ready(Either::Main(value));
        }
        if !wakes.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            wakes = Some(cx.waker().clone());
            bell.wakes(cx.waker());
        }
        // With the store in `wake`: whoever rang has also woken the task, so a ring that is missed here is seen next time.
        while bell.rung.load(Acquire) {
            bell.rung.store(false, Release);
            if let Poll::Ready(value) = side.as_mut().poll(&mut TaskContext::from_waker(&waker)) {
                return Poll::Ready(Either::Side(value));
            }
        }
        Poll::Pending
    })
    .await
}

struct Bell {
    rung: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Default for Bell {
    /// Rung, as the side is to be polled a first time.
    fn default() -> Bell {
        Bell {
            rung: AtomicBool::new(true),
            task: Mutex::default(),
        }
    }
}

impl Bell {
    fn wakes(&self, waker: &Waker) {
        let former = {
            let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
            task.replace(waker.clone())
        };
        // Outside the lock.
        drop(former);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // With the load in `beside`.
        self.rung.store(true, Release);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_side_is_asked_only_when_it_was_woken() {
        let asked = Cell::new(0);
        let (ring, mut rung) = oneshot::channel::<()>();
        let mut ring = Some(ring);
        let side = poll_fn(|cx| {
            asked.set(asked.get() + 1);
            std::pin::Pin::new(&mut rung).poll(cx)
        });
        let mut polls = 0;
        let main = poll_fn(|cx| {
            polls += 1;
            if polls == 100 {
                ring.take().expect("rung once").send(()).expect("listened to");
            }
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        let Either::Side(told) = beside(main, side).await else {
            panic!("the main one is never ready")
        };
        told.expect("sent");
        assert_eq!(asked.get(), 2, "at first, and when it was ready");
    }

    /// `select!` asks nothing once its task has used up what tokio lets it do in one poll, and who floods a connection sees to
    /// that.
    #[tokio::test]
    async fn a_side_has_its_turn_though_the_main_one_uses_up_the_budget_of_the_task() {
        let mut polls = 0;
        let main = poll_fn(|cx| {
            polls += 1;
            while pin!(tokio::task::consume_budget()).poll(cx).is_ready() {}
            match polls {
                1_000 => Poll::Ready(()),
                _ => Poll::Pending,
            }
        });
        let side = async {
            tokio::select! {
                () = std::future::pending() => {}
                () = std::future::ready(()) => {}
            }
        };
        assert!(matches!(beside(main, side).await, Either::Side(())));
    }

    #[tokio::test]
    async fn the_main_one_wins_a_tie() {
        let both = beside(std::future::ready(1), std::future::ready(2)).await;
        assert!(matches!(both, Either::Main(1)));
    }

    #[tokio::test]
    async fn a_bell_follows_its_task() {
        let (ring, rung) = oneshot::channel::<()>();
        let mut waiting = Box::pin(beside(std::future::pending::<()>(), rung));
        // First polled by one task, then by another.
        let first = poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx).is_pending())).await;
        assert!(first);
        let other = tokio::spawn(waiting);
        tokio::task::yield_now().await;
        ring.send(()).expect("listened to");
        assert!(matches!(other.await.expect("no panic"), Either::Side(Ok(()))));
    }
}
