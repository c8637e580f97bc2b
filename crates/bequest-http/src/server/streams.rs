//! The streams of an HTTP/2 connection.
//!
//! Most handlers answer in their first poll. That poll is made in the task of the connection, right where the request was
//! read, so a stream that is answered then has no task of its own. A stream that waits becomes a task, so that the processors
//! can share the streams of one connection; so do all for a while once first polls have been seen to wait or to take long.
//!
//! A client may keep its connection busy and leave the window of one stream closed. Then hyper waits for ever with a frame
//! in its hand, and does not come back to the body, so the body can not give up. The task of the stream does.
//!
//! # Invariants
//!
//! 1. What first polls take of one poll of the connection is bounded: once they are seen to be beyond [`LONG`], streams become
//!    tasks unpolled. The clock is looked at after each, and as long as they are short only after every [`SELDOM`]th. A look
//!    whether a stream was reset already begins nothing, and is made all the same.
//! 2. Nothing is lost by a first poll: a stream that waits is polled again by its task, which is the one that is woken.
//! 3. Whoever polls a stream takes the words that its exchange may have left in [`WAITS`] and [`TUNNELS`], so that they are of
//!    this poll.
//! 4. The engine starts what a tunnel needs in the poll of the stream in which that is answered for.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::task::{Context as TaskContext, Poll, Waker, ready};
use std::time::Duration;

use bequest::Reason;
use http::Version;
use pin_project_lite::pin_project;

use super::connection::Connection;
use super::exchange::Exchange;
use super::silence;
use super::statistics::TaskGuard;

/// So much of a poll of the connection may go to first polls of its streams.
const LONG: Duration = Duration::from_micros(100);

/// How many streams become tasks unpolled after one whose first poll was in vain, and after first polls that took too long.
const AFTER_WAIT: u32 = 16;
const AFTER_LONG: u32 = 64;

/// After how many short first polls the clock is looked at, at the most.
const SELDOM: u32 = 8;

/// Starts the streams of one connection.
///
/// The engine gives each stream a copy, which it uses for what a tunnel needs once it is answered for (`CONNECT`). A copy of
/// the connection's own knows nothing, as a handle for each stream would be two exchanges on a counter that all of them
/// share; it learns of its connection from that answer.
pub(super) enum Streams {
    /// The builder's, of which the connection gets a copy.
    Builder(Arc<Connection>),
    /// With the memory of the stream that was answered in its first poll last, for the next one.
    Connection(Arc<Connection>, RefCell<Memory>),
    Stream,
}

/// Whether the next stream of a connection is worth a first poll. Written and read by the connection's task.
#[derive(Debug, Default)]
pub(super) struct FirstPolls {
    /// So many of the next streams are not.
    skip: AtomicU32,
    /// So many first polls go by before the clock is looked at again.
    unseen: AtomicU32,
    /// How many went by the last time.
    seldom: AtomicU32,
}

thread_local! {
    /// The exchange that has said last, in the present poll of its stream, that it waits for something (invariant 3).
    static WAITS: Cell<Option<Weak<Exchange>>> = const { Cell::new(None) };

    /// The connection of the stream that has been answered for as a tunnel in the present poll (invariant 4).
    static TUNNELS: Cell<Option<Arc<Connection>>> = const { Cell::new(None) };
}

pin_project! {
    /// A stream that has a task of its own.
    struct Task<S> {
        #[pin]
        stream: S,
        stall: Stall,
        conn: Arc<Connection>,
        // Given back after everything else.
        guard: TaskGuard,
    }
}

/// Looks after the writes of one stream.
#[derive(Default)]
struct Stall {
    exchange: Option<Weak<Exchange>>,
    /// The frame on which the stream sits, and how long it still may. No time runs while it sits on none.
    sitting: Option<(u64, Wait)>,
}

type Wait = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Streams {
    pub(super) fn new(conn: Arc<Connection>) -> Streams {
        Streams::Builder(conn)
    }
}

impl Clone for Streams {
    fn clone(&self) -> Streams {
        match self {
            Streams::Builder(conn) => Streams::Connection(conn.clone(), RefCell::default()),
            Streams::Connection(..) | Streams::Stream => Streams::Stream,
        }
    }
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        match self {
            Streams::Builder(conn) => begin(conn, &RefCell::default(), stream),
            Streams::Connection(conn, memory) => begin(conn, memory, stream),
            Streams::Stream => {
                let conn = TUNNELS
                    .take()
                    .expect("the engine asks in the poll in which it has the answer");
                spawn(&conn, stream, Stall::default());
            }
        }
    }
}

/// Begins a stream: polls it, and makes it a task if that is not enough.
fn begin<F>(conn: &Arc<Connection>, memory: &RefCell<Memory>, stream: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut stall = Stall::default();
    let (is_worth_one, looks) = (conn.first_polls().begin(), conn.resets());
    if !is_worth_one && !looks {
        return spawn(conn, stream, stall);
    }
    let mut stream = memory.borrow_mut().hold(stream);
    // Whoever it is that would be woken (invariant 2): its task polls it again.
    let mut cx = TaskContext::from_waker(Waker::noop());
    let mut polled = Pin::new(&mut stream).poll(&mut cx);
    if polled.is_pending() && looks {
        // It has let hyper look for a reset, and not begun yet.
        if !is_worth_one {
            return spawn(conn, stream, stall);
        }
        polled = Pin::new(&mut stream).poll(&mut cx);
    }
    stall.hear();
    if polled.is_ready() {
        // Its exchange is finished by this.
        stream.clear();
        memory.borrow_mut().put_by(stream);
        return conn.first_polls().ended(|| conn.spent_in_poll());
    }
    conn.first_polls().waited();
    spawn(conn, stream, stall);
}

/// The memory of a stream, used again: of whatever type they are, all streams of a connection are of one.
#[derive(Default)]
pub(super) struct Memory(Option<Box<dyn Any + Send>>);

/// A stream in memory of its own.
struct Placed<F>(Pin<Box<Option<F>>>);

impl Memory {
    fn hold<F: Send + 'static>(&mut self, stream: F) -> Placed<F> {
        let spare = self
            .0
            .as_mut()
            .and_then(|spare| spare.downcast_mut::<Option<Placed<F>>>());
        match spare.and_then(Option::take) {
            Some(mut placed) => {
                placed.0.set(Some(stream));
                placed
            }
            None => Placed(Box::pin(Some(stream))),
        }
    }

    fn put_by<F: Send + 'static>(&mut self, empty: Placed<F>) {
        match self.0.as_mut().and_then(|spare| spare.downcast_mut()) {
            Some(spare) => *spare = Some(empty),
            None => self.0 = Some(Box::new(Some(empty))),
        }
    }
}

impl<F> Placed<F> {
    fn clear(&mut self) {
        self.0.set(None);
    }
}

impl<F: Future<Output = ()>> Future for Placed<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        match self.0.as_mut().as_pin_mut() {
            Some(stream) => stream.poll(cx),
            None => Poll::Ready(()),
        }
    }
}

fn spawn(conn: &Arc<Connection>, stream: impl Future<Output = ()> + Send + 'static, stall: Stall) {
    let server = conn.server();
    let task = Task {
        stream,
        stall,
        conn: conn.clone(),
        guard: server.tally.task(),
    };
    // Not joined: the guard is what shutdown waits for. An end by the last step of the shutdown drops the stream, which says
    // so itself.
    drop(server.runtime.spawn(server.dropping.clone().run_owned(task)));
}

impl<S: Future<Output = ()>> Future for Task<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let this = self.project();
        let mut polled = this.stream.poll(cx);
        this.stall.hear();
        if polled.is_pending() {
            // The drop of the stream resets it.
            polled = this.stall.poll(cx);
        }
        if polled.is_ready() || this.stall.sitting.is_some() {
            this.conn.answers().came();
        }
        polled
    }
}

impl FirstPolls {
    /// Whether the stream that is about to be started is worth one.
    fn begin(&self) -> bool {
        let skip = self.skip.load(Relaxed);
        if skip > 0 {
            self.skip.store(skip - 1, Relaxed);
        }
        skip == 0
    }

    /// One has answered its request; `spent` of the present poll of the connection is gone.
    fn ended(&self, spent: impl FnOnce() -> Duration) {
        let unseen = self.unseen.load(Relaxed);
        if unseen > 0 {
            return self.unseen.store(unseen - 1, Relaxed);
        }
        let is_long = spent() > LONG;
        if is_long {
            self.skip.store(AFTER_LONG, Relaxed);
        }
        let seldom = match is_long {
            true => 0,
            false => (2 * self.seldom.load(Relaxed) + 1).min(SELDOM - 1),
        };
        self.seldom.store(seldom, Relaxed);
        self.unseen.store(seldom, Relaxed);
    }

    /// One was in vain.
    fn waited(&self) {
        self.skip.store(AFTER_WAIT, Relaxed);
    }
}

/// Says that the stream of this exchange may come to wait: for its handler, or for the client to take its answer. Each
/// part says so once. To be called in the poll of the stream.
pub(super) fn waits(exchange: &Arc<Exchange>) {
    if exchange.version() == Version::HTTP_2 && !exchange.conn().is_elsewhere() {
        WAITS.set(Some(Arc::downgrade(exchange)));
    }
}

/// Says that the stream of this connection becomes a tunnel. To be called in the poll of the stream.
pub(super) fn becomes_tunnel(conn: &Arc<Connection>) {
    TUNNELS.set(Some(conn.clone()));
}

impl Stall {
    /// To be called after each poll of the stream.
    fn hear(&mut self) {
        TUNNELS.set(None);
        if let Some(exchange) = WAITS.take() {
            self.exchange = Some(exchange);
        }
    }

    /// Ready when the client has not taken a frame within the limit; the exchange is told of it before.
    fn poll(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        let exchange = self.exchange.as_ref().and_then(Weak::upgrade);
        let Some((exchange, frame)) =
            exchange.and_then(|exchange| Some((exchange.clone(), exchange.untaken()?)))
        else {
            self.sitting = None;
            return Poll::Pending;
        };
        if self.sitting.as_ref().is_none_or(|(sat_on, _)| *sat_on != frame) {
            self.sitting = Some((frame, Box::pin(patience(&exchange))));
        }
        if let Some((_, wait)) = &mut self.sitting {
            ready!(wait.as_mut().poll(cx));
        }
        exchange.tell(match exchange.is_shut_down() {
            true => Reason::Shutdown,
            false if silence::finds_lost(exchange.conn()) => Reason::Unreachable,
            false => Reason::Limit("write stall"),
        });
        Poll::Ready(())
    }
}

/// How long the client may leave a frame of this exchange untaken: not for long, if the shutdown has ended the response.
fn patience(exchange: &Exchange) -> impl Future<Output = ()> + Send + use<> {
    let (conn, ends_with_shutdown) = (exchange.conn().clone(), exchange.ends_with_shutdown());
    async move {
        let server = conn.server();
        let stalled = server.pause(server.limits.write_stall);
        if !ends_with_shutdown {
            return stalled.await;
        }
        let shut_down = async {
            server.draining.done().await;
            server.pause(server.limits.answer).await;
        };
        tokio::select! {
            () = stalled => {}
            () = shut_down => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_polls_are_left_out_for_a_while_after_one_in_vain_and_after_long_ones() {
        let polls = FirstPolls::default();
        let next = |polls: &FirstPolls| (1..=100).find(|_| polls.begin()).expect("one at last");
        assert_eq!(next(&polls), 1);
        polls.ended(|| LONG);
        assert_eq!(next(&polls), 1, "as long as it may be");
        polls.waited();
        assert_eq!(next(&polls), AFTER_WAIT + 1);
        polls.ended(|| unreachable!("the one before was short"));
        polls.ended(|| LONG + Duration::from_nanos(1));
        assert_eq!(next(&polls), AFTER_LONG + 1);
    }

    #[test]
    fn a_stream_lies_where_the_one_before_lay_which_is_gone() {
        let mut memory = Memory::default();
        let held = Arc::new(());
        let stream = |held: &Arc<()>| {
            let held = held.clone();
            async move { drop(held) }
        };
        let mut first = memory.hold(stream(&held));
        let place = std::ptr::from_ref(&*first.0);
        first.clear();
        assert_eq!(Arc::strong_count(&held), 1, "nothing of it stays");
        memory.put_by(first);
        let second = memory.hold(stream(&held));
        assert_eq!(std::ptr::from_ref(&*second.0), place);
        let third = memory.hold(stream(&held));
        assert_ne!(std::ptr::from_ref(&*third.0), place, "the second has it");
        memory.put_by(second);
        let other = memory.hold(async {});
        drop((third, other));
    }

    #[test]
    fn the_clock_is_looked_at_seldom_while_first_polls_are_short_and_at_once_after_a_long_one() {
        let polls = FirstPolls::default();
        let looks = |spent: Duration, first_polls: u32| {
            let looks = Cell::new(0);
            for _ in 0..first_polls {
                polls.ended(|| {
                    looks.set(looks.get() + 1);
                    spent
                });
            }
            looks.get()
        };
        // After the first, the third, the seventh, and then every eighth.
        assert_eq!(looks(LONG, 7), 3);
        assert_eq!(looks(LONG, 10 * SELDOM), 10);
        assert_eq!(looks(2 * LONG, SELDOM), 1, "seen at last");
        assert_eq!(looks(2 * LONG, 10), 10);
    }
}
