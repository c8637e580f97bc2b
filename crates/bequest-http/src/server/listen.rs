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
    let mut last_id = 0;
    loop {
        // Tells the end first: work that is ready wins in `run`, and a flood of clients must not keep us from ending.
        if let Some(end) = ctx.err() {
            return Stop::Asked(end);
        }
        let (place, accepted) = match ctx.run(next_connection(server, listener, &places)).await {
            Ok(Ok(next)) => next,
            Ok(Err(error)) => return Stop::Failed(error),
            Err(end) => return Stop::Asked(end),
        };
        last_id += 1;
        start_connection(server, accepted, last_id, place, service.clone());
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
    if silence::tune(&stream, &server.limits).is_err() {
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
async fn secure(server: &Shared, socket: Socket, mut info: ConnInfo) -> Option<(Transport, ConnInfo)> {
    let Some(tls) = &server.tls else {
        return Some((Transport::Plain(socket), info));
    };
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
