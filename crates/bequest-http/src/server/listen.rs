//! From a listener to its connections: as many at once as the limit allows, each a task of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bequest::{Canceled, Context};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::accept::{self, Accept};
use super::connection::{Connection, Driven};
use super::observe::ConnInfo;
use super::service::App;
use super::shared::Shared;
use super::silence;
use super::socket::Socket;
use super::transport::Transport;

/// How many connections are accepted after the end at most; tokio's listeners let 1024 wait.
const MOST_WAITING: u64 = 1024;

/// What a listener for sockets gives.
pub(super) type Accepted = (TcpStream, SocketAddr);

/// Why no more connections are accepted.
pub(super) enum Stop {
    Asked(Canceled),
    Failed(io::Error),
}

/// Accepts connections, as many at once as the limit allows, and starts each as a task.
pub(super) async fn accept_all<A, S>(
    server: &Arc<Shared>,
    listener: &mut A,
    service: S,
    ctx: &Context,
) -> Stop
where
    A: Accept<Accepted = Accepted>,
    S: App,
{
    let places = Arc::new(Semaphore::new(
        server.limits.connections.min(Semaphore::MAX_PERMITS),
    ));
    if let Some(end) = ctx.err() {
        return Stop::Asked(end);
    }
    let mut last_id = 0;
    loop {
        let (place, accepted) = match ctx.run(next_connection(server, listener, &places)).await {
            Ok(Ok(next)) => next,
            Ok(Err(error)) => return Stop::Failed(error),
            Err(end) => {
                accept_waiting(server, listener, &places, last_id, service);
                return Stop::Asked(end);
            }
        };
        last_id += 1;
        start_connection(server, accepted, last_id, place, service.clone());
        // Work that is ready wins in `run`, and a flood of clients must not keep us from ending.
        if let Some(end) = ctx.err() {
            accept_waiting(server, listener, &places, last_id, service);
            return Stop::Asked(end);
        }
    }
}

/// Accepts what has come before the end: its clients believe that they are connected, and may have asked already.
fn accept_waiting<A, S>(
    server: &Arc<Shared>,
    listener: &mut A,
    places: &Arc<Semaphore>,
    last_id: u64,
    service: S,
) where
    A: Accept<Accepted = Accepted>,
    S: App,
{
    // No more than the system lets wait, as those who come now are without end.
    for id in last_id + 1..=last_id + MOST_WAITING {
        let Ok(place) = places.clone().try_acquire_owned() else {
            return;
        };
        let Some(accepted) = listener.accept_waiting() else {
            return;
        };
        start_connection(server, accepted, id, place, service.clone());
    }
}

async fn next_connection<A: Accept>(
    server: &Shared,
    listener: &mut A,
    places: &Arc<Semaphore>,
) -> io::Result<(OwnedSemaphorePermit, A::Accepted)> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let accepted = accept::next(listener, server).await?;
    Ok((place, accepted))
}

fn start_connection<S: App>(
    server: &Arc<Shared>,
    (stream, peer_addr): Accepted,
    id: u64,
    place: OwnedSemaphorePermit,
    service: S,
) {
    // Either fails only if the client has left already, which the first read will say as well.
    let Ok(local_addr) = stream.local_addr() else {
        return;
    };
    let is_asked = || server.can_be_asked(local_addr, peer_addr);
    if silence::tune(&stream, &server.limits, is_asked).is_err() {
        return;
    }
    let (task, live) = (server.tally.task(), server.tally.connections.raise());
    let server = server.clone();
    let info = ConnInfo::new(id, peer_addr, local_addr);
    // Not joined: the task guard is what shutdown waits for.
    drop(server.runtime.clone().spawn(async move {
        if let Some((transport, info)) = secure(&server, Socket::new(stream), info).await {
            Arc::new(Connection::open(server, info, Driven::Here))
                .run(transport, service)
                .await;
        }
        drop((live, place, task));
    }));
}

/// Puts TLS on a connection, where the server has it. `None`: the connection is over, and everybody was told.
#[cfg(feature = "tls")]
async fn secure(server: &Shared, socket: Socket, info: ConnInfo) -> Option<(Transport, ConnInfo)> {
    match &server.tls {
        None => Some((Transport::Plain(socket), info)),
        // In a box, so that a connection in clear has no room for it.
        Some(tls) => Box::pin(shake_hands(server, tls, socket, info)).await,
    }
}

#[cfg(feature = "tls")]
async fn shake_hands(
    server: &Shared,
    tls: &super::tls::Tls,
    socket: Socket,
    mut info: ConnInfo,
) -> Option<(Transport, ConnInfo)> {
    match super::tls::secure(server, tls, socket).await {
        Ok((transport, shown)) => {
            info.tls = Some(Arc::new(shown));
            Some((transport, info))
        }
        Err(end) => {
            let failed = &server.tally.handshakes_failed;
            failed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            server.observe(|observer| observer.handshake_failed(&info, &end));
            None
        }
    }
}

#[cfg(not(feature = "tls"))]
async fn secure(_server: &Shared, socket: Socket, info: ConnInfo) -> Option<(Transport, ConnInfo)> {
    Some((Transport::Plain(socket), info))
}
