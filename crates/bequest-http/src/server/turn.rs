//! Letting the other streams of a connection answer before it writes.
//!
//! A stream that has a task of its own wakes its connection when it answers, and tokio runs at once what was woken last. If
//! many streams are ready, as after one end for all of them, each answer would be a poll of the connection and a call of
//! the system. So a connection of which a stream has answered goes to the end of the queue once, and then writes for
//! all that have answered meanwhile. A turn in which no other did was in vain; after it the next polls do without, twice as
//! many each time up to a bound.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// How many polls after an answer do without a turn at the most.
const LONGEST: u32 = 64;

/// How many answers the streams of a connection have given it from tasks of their own. Written by those tasks.
#[derive(Debug, Default)]
pub(super) struct Answers(AtomicUsize);

/// When a connection lets its streams go first. Used by the connection's task.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// So many answers had come when this was asked last.
    seen: usize,
    /// Whether the streams have had their turn since the connection was polled.
    is_given: bool,
    /// How many polls after an answer go by without a turn after one that was in vain.
    pause: u32,
    /// How many of these are left.
    left: u32,
}

impl Answers {
    /// One more.
    pub(super) fn came(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub(super) fn so_far(&self) -> usize {
        self.0.load(Relaxed)
    }
}

impl Turn {
    /// Whether the streams are to go first, when so many `answers` have come. Then the connection is to wake itself and wait.
    /// `are_due`: there is a stream that may still answer.
    pub(super) fn is_theirs(&mut self, answers: usize, are_due: bool) -> bool {
        let has_answered = answers != self.seen;
        self.seen = answers;
        if std::mem::take(&mut self.is_given) {
            self.pause = match has_answered {
                true => 0,
                false => (2 * self.pause).clamp(1, LONGEST),
            };
            self.left = self.pause;
            return false;
        }
        if !has_answered || !are_due {
            return false;
        }
        if self.left > 0 {
            self.left -= 1;
            return false;
        }
        self.is_given = true;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::{Arc, Mutex};
    use std::task::{Poll, Waker};

    use bequest::Context;

    use super::*;

    /// How often a connection is polled until it has all answers of a hundred streams that one cancel has ended, on one
    /// thread.
    fn polls(mut let_go_first: impl FnMut(usize, bool) -> bool + Send + 'static) -> usize {
        const STREAMS: usize = 100;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .expect("a runtime");
        let scope = Context::background().with_cancel();
        let (answers, woken) = (
            Arc::new(Answers::default()),
            Arc::new(Mutex::new(Waker::noop().clone())),
        );
        for _ in 0..STREAMS {
            let (ctx, answers, woken) = (scope.context(), answers.clone(), woken.clone());
            runtime.spawn(async move {
                ctx.done().await;
                answers.came();
                let connection = woken.lock().expect("no panic").clone();
                connection.wake();
            });
        }
        let connection = runtime.spawn({
            let mut polls = 0;
            poll_fn(move |cx| {
                *woken.lock().expect("no panic") = cx.waker().clone();
                let came = answers.so_far();
                if let_go_first(came, came < STREAMS) {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                polls += 1;
                match answers.so_far() {
                    STREAMS => Poll::Ready(polls),
                    _ => Poll::Pending,
                }
            })
        });
        // In a task, so that all are woken before the first of them runs.
        runtime.spawn(async move { scope.cancel() });
        runtime.block_on(connection).expect("no panic")
    }

    #[test]
    fn many_answers_at_once_are_few_polls() {
        let mut turn = Turn::default();
        let with_turns = polls(move |answers, are_due| turn.is_theirs(answers, are_due));
        assert!(with_turns <= 4, "{with_turns}");
    }

    #[test]
    fn control_without_turns_each_answer_is_a_poll() {
        let without = polls(|_, _| false);
        assert!(without > 50, "{without}");
    }

    #[test]
    fn a_turn_is_given_once_and_only_if_a_stream_has_answered_and_another_may() {
        let mut turn = Turn::default();
        assert!(!turn.is_theirs(0, true), "nobody has answered");
        assert!(!turn.is_theirs(1, false), "nobody else could");
        assert!(turn.is_theirs(2, true));
        assert!(!turn.is_theirs(3, true), "they had it");
        assert!(!turn.is_theirs(3, true), "nobody has answered since");
        assert!(turn.is_theirs(4, true));
    }

    #[test]
    fn turns_in_vain_are_left_out_ever_longer_until_one_is_not() {
        let mut turn = Turn::default();
        let mut answers = 0;
        // The answers until the next turn, which is in vain unless `more` come in it.
        let mut until_turn = |more: usize| {
            let waited = (1..=1000)
                .find(|_| {
                    answers += 1;
                    turn.is_theirs(answers, true)
                })
                .expect("one at last");
            answers += more;
            assert!(!turn.is_theirs(answers, true));
            waited
        };
        let pauses: Vec<_> = (0..9).map(|_| until_turn(0)).collect();
        assert_eq!(pauses, [1, 2, 3, 5, 9, 17, 33, 65, 65]);
        assert_eq!(until_turn(1), 65);
        assert_eq!(until_turn(0), 1);
    }
}
