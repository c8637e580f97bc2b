//! Noticing that a client leaves while the engine is not looking.
//!
//! The engine meets the end of a connection only when it reads, and while it serves a request it does not read as long as a
//! body is left unread or a pipelined request waits. Two things look in its place, each polled after it by the task of
//! the connection:
//!
//! - the *watch* waits for the runtime to say that the client has closed its sending side or reset the connection,
//!   whatever is unread (Linux and Android);
//! - the *read-ahead* takes what the engine leaves in the socket, within a bound, and so meets an end that could not even be
//!   sent for lack of room, and is the way on systems without the watch.
//!
//! # Invariants
//!
//! 1. A request that is answered in its first poll pays nothing: neither looks before the engine has come back with a request
//!    in flight. From then on both wait in the runtime's lists; no timer is set and no system call is made for it.
//! 2. Only a little is read ahead at once. The rest waits for [`PATIENCE`], so that a handler which is about to read a
//!    large body gets it from the socket, without a copy.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use super::connection::Connection;
use super::peer::PeerState;
use super::socket::Lookout;
use super::turn::Turn;
use super::wire::{Ahead, Tap};

/// How long a request runs before more than [`AT_ONCE`] is read ahead of it.
const PATIENCE: Duration = Duration::from_millis(2);

/// How much is read ahead without patience.
const AT_ONCE: usize = 16 * 1024;

/// Looks after one connection in the engine's place.
pub(super) struct Attendant {
    conn: Arc<Connection>,
    tap: Tap,
    watch: Watch,
    outlook: Lookout,
    /// Running, or over, since the present requests were first seen to wait with more to read.
    patience: Patience,
    turn: Turn,
}

enum Watch {
    /// Not wanted, or over: nothing more can be learnt.
    Off,
    /// To be armed once a request waits.
    Ready(Lookout),
    Armed(Pin<Box<dyn Future<Output = ()> + Send>>),
}

enum Patience {
    Unused,
    Running(Pin<Box<dyn Future<Output = ()> + Send>>),
    Over,
}

impl Attendant {
    /// `outlook` is watched unless that is switched off.
    pub(super) fn new(conn: Arc<Connection>, tap: Tap, outlook: Lookout) -> Attendant {
        let watch = match conn.server().watch {
            true => Watch::Ready(outlook.clone()),
            false => Watch::Off,
        };
        Attendant {
            conn,
            tap,
            watch,
            outlook,
            patience: Patience::Unused,
            turn: Turn::default(),
        }
    }

    /// Polls the engine's future to its end, looking after it whenever it waits.
    pub(super) async fn attend<H: Future>(&mut self, http: Pin<&mut H>) -> H::Output {
        let mut http = http;
        poll_fn(|cx| self.poll(http.as_mut(), cx)).await
    }

    /// Polls the engine's future until it has taken in what has come on an idle connection, or to its end.
    pub(super) async fn take_in<H: Future>(&mut self, http: Pin<&mut H>) -> Option<H::Output> {
        let mut http = http;
        poll_fn(|cx| {
            if !self.has_unread() {
                return Poll::Ready(None);
            }
            match self.poll(http.as_mut(), cx) {
                Poll::Ready(output) => Poll::Ready(Some(output)),
                Poll::Pending if self.has_unread() => Poll::Pending,
                Poll::Pending => Poll::Ready(None),
            }
        })
        .await
    }

    /// Whether something has come that nobody has asked for yet, on a connection on which nothing is under way.
    fn has_unread(&self) -> bool {
        !self.conn.is_busy() && self.outlook.has_unread()
    }

    fn poll<H: Future>(&mut self, http: Pin<&mut H>, cx: &mut TaskContext<'_>) -> Poll<H::Output> {
        let answers = self.conn.answers().so_far();
        if self.turn.is_theirs(answers, self.conn.is_busy()) {
            // To the end of the queue.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.conn.begin_poll();
        self.tap.begin_poll();
        let polled = http.poll(cx);
        self.tap.send_gathered(cx);
        if polled.is_pending() {
            self.look(cx);
        }
        polled
    }

    fn look(&mut self, cx: &mut TaskContext<'_>) {
        if !self.conn.is_busy() {
            // The engine reads by itself between two requests.
            self.patience = Patience::Unused;
            return;
        }
        self.poll_watch(cx);
        self.poll_ahead(cx);
    }

    fn poll_watch(&mut self, cx: &mut TaskContext<'_>) {
        if let Watch::Ready(lookout) = &self.watch {
            self.watch = Watch::Armed(Box::pin(watch(self.conn.clone(), lookout.clone())));
        }
        if let Watch::Armed(watch) = &mut self.watch {
            if watch.as_mut().poll(cx).is_ready() {
                self.watch = Watch::Off;
            }
        }
    }

    fn poll_ahead(&mut self, cx: &mut TaskContext<'_>) {
        let server = self.conn.server();
        let (limit, total) = (server.limits.read_ahead, server.limits.read_ahead_total);
        if limit == 0 {
            return;
        }
        loop {
            let patient = matches!(self.patience, Patience::Over);
            let bound = if patient { usize::MAX } else { AT_ONCE };
            // One byte more than the limit, as the end behind the last one is what is looked for.
            let hold = || self.conn.server().tally.ahead.hold_below(total);
            match self.tap.poll_ahead(cx, limit.saturating_add(1).min(bound), hold) {
                Ahead::Full if !patient => {}
                Ahead::Full | Ahead::Waiting => return,
                Ahead::Ended(state) => return self.conn.saw(state),
            }
            if self.poll_patience(cx).is_pending() {
                return;
            }
        }
    }

    fn poll_patience(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        if let Patience::Unused = self.patience {
            let conn = self.conn.clone();
            self.patience = Patience::Running(Box::pin(async move { conn.server().pause(PATIENCE).await }));
        }
        if let Patience::Running(pause) = &mut self.patience {
            std::task::ready!(pause.as_mut().poll(cx));
            self.patience = Patience::Over;
        }
        Poll::Ready(())
    }
}

/// Tells the connection of the end of reading, and then of the failure that may follow.
pub(super) async fn watch(conn: Arc<Connection>, lookout: Lookout) {
    let state = lookout.departure().await;
    conn.saw(state);
    if state == PeerState::HalfClosed {
        let reset = pin!(lookout.reset());
        conn.saw(reset.await);
    }
}

#[cfg(test)]
mod tests {
    use bequest::Context;
    use bytes::BytesMut;
    use tokio::net::{TcpListener, TcpStream};

    use super::super::connection::Driven;
    use super::super::socket::Socket;
    use super::super::transport::Transport;
    use super::super::wire::{Protocol, Wire};
    use super::super::{ConnInfo, ListenerInfo, Server};
    use super::*;

    /// What looks after a connection on which nothing has happened, and both ends of its socket.
    async fn attendant() -> (Attendant, Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let local_addr = listener.local_addr().expect("an address");
        let client = TcpStream::connect(local_addr).await.expect("a listener");
        let (stream, peer_addr) = listener.accept().await.expect("a client");
        let (server, _stages) = Server::builder().start(&ListenerInfo { local_addr }, &Context::background());
        let info = ConnInfo::new(1, peer_addr, local_addr);
        let conn = Arc::new(Connection::open(server, info, Driven::Here));
        let socket = Socket::new(stream);
        let outlook = socket.lookout();
        let wire = Wire::new(
            Transport::Plain(socket),
            BytesMut::new(),
            Protocol::Http1,
            conn.clone(),
        );
        (Attendant::new(conn, wire.tap(), outlook), wire, client)
    }

    fn is_armed(attendant: &Attendant) -> bool {
        matches!(attendant.watch, Watch::Armed(_)) || !matches!(attendant.patience, Patience::Unused)
    }

    #[tokio::test]
    async fn nothing_is_armed_before_a_request_has_to_wait() {
        let (mut attendant, _wire, _client) = attendant().await;
        let conn = attendant.conn.clone();
        let mut requests = 0;
        let engine = poll_fn(|_| {
            // A request that is answered where it was read, and one that is not.
            requests += 1;
            conn.request_began();
            if requests == 1 {
                conn.request_ended(Duration::ZERO, true);
            }
            Poll::<()>::Pending
        });
        let mut engine = pin!(engine);
        let mut poll = async || {
            poll_fn(|cx| Poll::Ready(attendant.poll(engine.as_mut(), cx).is_pending())).await;
            is_armed(&attendant)
        };
        assert!(!poll().await, "answered in its first poll");
        assert!(poll().await, "it waits");
    }
}
