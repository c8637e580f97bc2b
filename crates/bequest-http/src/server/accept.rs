//! Taking connections from the operating system, and what to do when it has none to give.
//!
//! # Invariants
//!
//! 1. A failed connection attempt is the client's matter and costs nobody else a pause.
//! 2. A shortage (file descriptors, memory) is waited out with growing pauses, each told to the observer; it never spins
//!    and never ends the server.
//! 3. Only what can not get better, such as a socket that does not listen, ends the server.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

use super::shared::Shared;

/// The first pause; each further one in a row is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Where connections come from.
pub(super) trait Accept: Send {
    /// What is accepted.
    type Accepted: Send;

    /// The next connection. Dropping the future loses none.
    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Accepted>> + Send;

    /// A connection that waits to be accepted, if there is one.
    fn accept_waiting(&mut self) -> Option<Self::Accepted>;
}

impl Accept for TcpListener {
    type Accepted = (TcpStream, SocketAddr);

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        TcpListener::accept(self).await
    }

    fn accept_waiting(&mut self) -> Option<(TcpStream, SocketAddr)> {
        // The system is asked, and not the runtime, which may not have heard of it yet.
        loop {
            match SockRef::from(&*self).accept() {
                Ok((socket, addr)) => {
                    socket.set_nonblocking(true).ok()?;
                    return Some((TcpStream::from_std(socket.into()).ok()?, addr.as_socket()?));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if matches!(judge(&error), Failure::OfOneConnection) => {}
                // The server is about to end; a shortage is not waited out any more.
                Err(_) => return None,
            }
        }
    }
}

/// Accepts the next connection, waiting out shortages. An error is final.
pub(super) async fn next<A: Accept>(listener: &mut A, server: &Shared) -> io::Result<A::Accepted> {
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match listener.accept().await {
            Ok(accepted) => return Ok(accepted),
            Err(error) => error,
        };
        match judge(&error) {
            Failure::OfOneConnection => {}
            Failure::Final => return Err(error),
            Failure::Shortage => {
                server.observe(|observer| observer.accept_failed(&error, pause));
                server.pause(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

enum Failure {
    OfOneConnection,
    Shortage,
    Final,
}

fn judge(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionAborted
        | io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::Interrupted
        | io::ErrorKind::WouldBlock => Failure::OfOneConnection,
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => Failure::Final,
        _ => Failure::Shortage,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use bequest::{Context, clock};

    use super::super::{ListenerInfo, Observer, Server};
    use super::*;

    /// Answers each accept with the next of these.
    struct Scripted(VecDeque<io::Result<&'static str>>);

    impl Accept for Scripted {
        type Accepted = &'static str;

        async fn accept(&mut self) -> io::Result<&'static str> {
            self.0.pop_front().expect("the script goes on")
        }

        fn accept_waiting(&mut self) -> Option<&'static str> {
            None
        }
    }

    #[derive(Clone, Default)]
    struct Pauses(Arc<Mutex<Vec<Duration>>>);

    impl Observer for Pauses {
        fn accept_failed(&self, _error: &io::Error, pause: Duration) {
            self.0.lock().unwrap().push(pause);
        }
    }

    async fn accept(
        script: impl Into<VecDeque<io::Result<&'static str>>>,
    ) -> (io::Result<&'static str>, Pauses) {
        let pauses = Pauses::default();
        let listener = ListenerInfo {
            local_addr: ([127, 0, 0, 1], 0).into(),
        };
        let ctx = Context::with_clock(clock::tokio());
        let (server, _stages) = Server::builder().observer(pauses.clone()).start(&listener, &ctx);
        (next(&mut Scripted(script.into()), &server).await, pauses)
    }

    #[tokio::test(start_paused = true)]
    async fn a_shortage_is_waited_out_with_growing_pauses() {
        let too_many_files = || Err(io::Error::from_raw_os_error(24));
        let mut script: Vec<_> = std::iter::repeat_with(too_many_files).take(10).collect();
        script.push(Ok("a client"));
        let began = tokio::time::Instant::now();
        let (accepted, pauses) = accept(script).await;
        assert_eq!(accepted.unwrap(), "a client");
        let pauses = pauses.0.lock().unwrap().clone();
        let millis: Vec<_> = pauses.iter().map(Duration::as_millis).collect();
        assert_eq!(millis, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        assert!(
            began.elapsed() >= pauses.iter().sum::<Duration>(),
            "each pause was kept"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_failed_costs_no_pause() {
        let aborted = Err(io::ErrorKind::ConnectionAborted.into());
        let (accepted, pauses) = accept([aborted, Ok("the next client")]).await;
        assert_eq!(accepted.unwrap(), "the next client");
        assert!(pauses.0.lock().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_can_not_get_better_is_final() {
        let (accepted, pauses) = accept([Err(io::ErrorKind::InvalidInput.into())]).await;
        assert_eq!(accepted.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert!(pauses.0.lock().unwrap().is_empty());
    }
}
