//! tokio and tokio-util: a tree of tokens, timers beside it, and the ways to await within both.

use std::future::Future;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::awaits::{Polls, awaits, polls};
use crate::case::Case;
use crate::tree::{self, HALF_A_MINUTE, TEN_SECONDS, Timed, Tree, registrations};
use crate::values::Typed;
use crate::wakes::{self, Waited, current_thread, two_threads};

pub struct Token(CancellationToken);

impl Tree for Token {
    #[inline(always)]
    fn root() -> Token {
        Token(CancellationToken::new())
    }

    #[inline(always)]
    fn child(&self) -> Token {
        Token(self.0.child_token())
    }

    #[inline(always)]
    fn cancel(&self) {
        self.0.cancel();
    }

    #[inline(always)]
    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}

/// Deadlines need a runtime. Of one thread, it is entered by the thread that measures; of two, by each.
pub struct Driver(&'static Runtime);

impl Driver {
    fn enter(&self) {
        // For good: the thread measures nothing else.
        std::mem::forget(self.0.enter());
    }
}

/// One poll, so that the timer is registered.
#[inline(always)]
fn arm(sleep: Pin<&mut Sleep>) {
    assert!(sleep.poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

impl Timed for Token {
    type Driver = Driver;
    type Limited = (CancellationToken, Pin<Box<Sleep>>);

    fn driver(threads: usize) -> Driver {
        let runtime = if threads == 1 {
            current_thread()
        } else {
            two_threads()
        };
        let driver = Driver(Box::leak(Box::new(runtime)));
        driver.enter();
        driver
    }

    #[inline(always)]
    fn limited<R>(&self, after: Duration, armed: bool, work: impl FnOnce(&Token) -> R) -> R {
        let child = self.child();
        let mut limit = pin!(sleep(after));
        if armed {
            arm(limit.as_mut());
        }
        let answer = work(&child);
        black_box(limit);
        answer
    }

    fn keep_limited(&self, after: Duration) -> Self::Limited {
        let mut limit = Box::pin(sleep(after));
        arm(limit.as_mut());
        (self.0.child_token(), limit)
    }
}

impl Waited for Token {
    type Handle = CancellationToken;

    fn handle(&self) -> CancellationToken {
        self.0.clone()
    }

    async fn wait(handle: CancellationToken) {
        handle.cancelled().await;
    }

    fn block(handle: CancellationToken) {
        block_on(pin!(handle.cancelled()));
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(mut future: Pin<&mut F>) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut task = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut task) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

pub fn case(name: &str) -> Option<Case> {
    match name {
        "w3_2t" => {
            let (driver, root) = (Token::driver(2), Token::root());
            Case::threads(move |count| {
                driver.enter();
                for _ in 0..count {
                    black_box(&root).limited(HALF_A_MINUTE, true, |child| black_box(child).cancel());
                }
            })
        }
        "w6_reg" => {
            let token: &'static CancellationToken = Box::leak(Box::new(CancellationToken::new()));
            registrations(move || black_box(token).cancelled())
        }
        "w9" | "w9_unarmed" => {
            let (_driver, base, armed) = (Token::driver(1), Token::root(), name == "w9");
            Case::cpu(move |count| (0..count).for_each(|_| request(&base, armed)))
        }
        "w9_2t" => {
            let (driver, base) = (Token::driver(2), Token::root());
            Case::threads(move |count| {
                driver.enter();
                (0..count).for_each(|_| request(&base, true));
            })
        }
        "w10_ready" | "w10_3poll" => {
            let (token, count) = (leaked(), polls(name)?);
            awaits(move || token.run_until_cancelled(Polls(count)))
        }
        _ => tree::case::<Token>(name)
            .or_else(|| tree::timed_case::<Token>(name))
            .or_else(|| wakes::case::<Token>(name)),
    }
}

fn leaked() -> &'static CancellationToken {
    Box::leak(Box::new(CancellationToken::new()))
}

/// W10 by the other ways that tokio offers.
pub fn awaiting(peer: &str, name: &str) -> Option<Case> {
    let (token, count) = (leaked(), polls(name)?);
    // The thread stays inside the runtime, for its timers.
    Token::driver(1);
    match (peer, name) {
        ("select", "w10_ready" | "w10_3poll") => awaits(move || async move {
            tokio::select! {
                _ = token.cancelled() => None,
                output = Polls(count) => Some(output),
            }
        }),
        ("select-biased", "w10_ready" | "w10_3poll") => awaits(move || async move {
            tokio::select! {
                biased;
                _ = token.cancelled() => None,
                output = Polls(count) => Some(output),
            }
        }),
        ("tokio-timeout", "w10_ready_timeout" | "w10_3poll_timeout") => {
            awaits(move || timeout(TEN_SECONDS, Polls(count)))
        }
        ("timeout-run", "w10_ready_timeout" | "w10_3poll_timeout") => {
            awaits(move || timeout(TEN_SECONDS, token.run_until_cancelled(Polls(count))))
        }
        _ => None,
    }
}

/// W9 as it is written with tokens.
#[inline(always)]
fn request(base: &Token, armed: bool) {
    let connection = black_box(base).child();
    let request = connection.child();
    let mut values = http::Extensions::new();
    values.insert(Typed::<0>(1));
    values.insert(Typed::<1>(2));
    request.limited(HALF_A_MINUTE, armed, |route| {
        for _ in 0..3 {
            route.limited(TEN_SECONDS, armed, |step| {
                for _ in 0..20 {
                    assert!(!black_box(step).is_cancelled());
                }
                step.cancel();
            });
        }
        black_box(&values);
        connection.cancel();
    });
}
