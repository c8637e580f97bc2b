//! W10: awaiting work inside something that can end it, polled in a loop without a scheduler.

use std::future::Future;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use crate::case::Case;

/// Work that is ready at its `n`th poll.
pub struct Polls(pub u32);

impl Future for Polls {
    type Output = u32;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<u32> {
        self.0 -= 1;
        match self.0 {
            0 => Poll::Ready(7),
            _ => Poll::Pending,
        }
    }
}

/// The polls that the case `name` is about.
pub fn polls(name: &str) -> Option<u32> {
    match name {
        "w10_ready" | "w10_ready_deadline" | "w10_ready_timeout" => Some(1),
        "w10_3poll" | "w10_3poll_deadline" | "w10_3poll_timeout" => Some(3),
        _ => None,
    }
}

/// Makes the future anew each time and polls it until it is ready.
pub fn awaits<F: Future>(mut make: impl FnMut() -> F + 'static) -> Option<Case> {
    Case::cpu(move |count| {
        let mut task = Context::from_waker(Waker::noop());
        for _ in 0..count {
            let mut future = pin!(make());
            while black_box(future.as_mut().poll(&mut task)).is_pending() {}
        }
    })
}
