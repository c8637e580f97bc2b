//! Connections that change to another protocol (WebSocket, `CONNECT`): the request is over, the connection is not.
//!
//! The request's context ends with the `101`, as its response has ended. What speaks the new protocol has a context of its
//! own, found beside it from the start.
//!
//! # Invariants
//!
//! 1. The task of the connection stays until nobody holds the socket any more: it counts as a connection, and shutdown
//!    waits for it within its bounds.
//! 2. At the last step of the shutdown the socket is hung up, whoever holds it.
//! 3. Of HTTP/2 any number of streams may be tunnels; each has a context, which its connection owns for as long as anybody has
//!    a handle on it.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bequest::{CancelScope, Context, Reason};

use super::attend;
use super::connection::Connection;
use super::peer::PeerState;
use super::silence;
use super::socket::Lookout;

/// The context of the protocol that a connection changes to. Found in the extensions of a request that asks for it, beside
/// `hyper::upgrade::OnUpgrade`.
///
/// It ends with [`ClientGone`](Reason::ClientGone) when the client closes its sending side or resets the connection, read
/// or unread, where sockets are watched; with [`Shutdown`](Reason::Shutdown) as soon as the server begins to shut down, so that there is time for a
/// farewell; and with [`ResponseEnded`](Reason::ResponseEnded) once the socket is dropped. At the latest it ends with the
/// connection, also if the protocol is never changed.
///
/// On HTTP/2 a stream becomes a tunnel (`CONNECT`). There it ends with the connection and with the shutdown; that the client
/// has closed or reset the stream is seen by whoever reads or writes it. While a tunnel is open its connection is not idle, and
/// is asked for signs of life as while it serves a request.
///
/// # Example: an echo that stops when it is told
///
/// ```
/// use bequest_http::server::{RequestBody, Upgrade};
/// use http::{Request, Response, StatusCode, header};
/// use hyper_util::rt::TokioIo;
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// async fn echo(mut request: Request<RequestBody>) -> Response<String> {
///     let Some(upgrade) = request.extensions().get::<Upgrade>().cloned() else {
///         return Response::new("ask for an upgrade".to_owned());
///     };
///     let socket = hyper::upgrade::on(&mut request);
///     tokio::spawn(async move {
///         let mut socket = TokioIo::new(socket.await?);
///         let mut buffer = [0; 1024];
///         while let Ok(Ok(size @ 1..)) = upgrade.context().run(socket.read(&mut buffer)).await {
///             if socket.write_all(&buffer[..size]).await.is_err() {
///                 break;
///             }
///         }
///         Ok::<_, hyper::Error>(())
///     });
///     let mut response = Response::new(String::new());
///     *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
///     response.headers_mut().insert(header::CONNECTION, "upgrade".parse().unwrap());
///     response.headers_mut().insert(header::UPGRADE, "echo".parse().unwrap());
///     response
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Upgrade(Context);

impl Upgrade {
    /// The context.
    pub fn context(&self) -> &Context {
        &self.0
    }

    /// The handle on a scope.
    pub(super) fn of(scope: &CancelScope) -> Upgrade {
        Upgrade(scope.context())
    }
}

/// The owners of the contexts of what the requests of a connection have asked to change to.
#[derive(Default)]
pub(super) struct Offers(Mutex<Vec<CancelScope>>);

impl Offers {
    /// Makes the context of another one, below the connection's. Of HTTP/1 a new one stands in place of the one before, which
    /// came to nothing.
    pub(super) fn offer(&self, connection: &Context, is_http2: bool) -> Upgrade {
        let scope = connection.with_cancel().named("upgrade");
        let upgrade = Upgrade::of(&scope);
        let former = {
            let mut offers = self.lock();
            let is_wanted = |offer: &CancelScope| is_http2 && !offer.is_unobserved();
            let (kept, former): (Vec<_>, Vec<_>) =
                std::mem::take(&mut *offers).into_iter().partition(is_wanted);
            *offers = kept;
            offers.push(scope);
            former
        };
        // Outside the lock, as its end may run anything.
        drop(former);
        upgrade
    }

    /// Gives the last one away.
    pub(super) fn take(&self) -> Option<CancelScope> {
        self.lock().pop()
    }

    /// Ends all of them.
    pub(super) fn end(&self, reason: Reason) {
        let offers = std::mem::take(&mut *self.lock());
        for offer in offers {
            offer.cancel_for(reason);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<CancelScope>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hangs up on every way out.
struct HangUp<'a>(&'a Lookout);

impl Drop for HangUp<'_> {
    fn drop(&mut self) {
        self.0.hang_up();
    }
}

/// Looks after a connection that has changed its protocol, until nobody holds its socket any more or the client has left.
pub(super) async fn outlive(conn: &Arc<Connection>, scope: CancelScope, socket: &Lookout) {
    let _hang_up = HangUp(socket);
    let watch = async {
        if conn.server().watch {
            attend::watch(conn.clone(), socket.clone()).await;
        }
        std::future::pending::<()>().await
    };
    let told = async {
        conn.server().draining.done().await;
        scope.cancel_for(Reason::Shutdown);
        std::future::pending::<()>().await
    };
    let unheard = silence::unheard(conn, || true);
    let (watch, told) = (pin!(watch), pin!(told));
    tokio::select! {
        () = conn.let_go() => {}
        () = watch => {}
        () = told => {}
        () = unheard => conn.saw(PeerState::Unreachable),
    }
    let reason = match conn.peer().state() {
        PeerState::Open => Reason::ResponseEnded,
        _ => conn.departure(false),
    };
    scope.cancel_for(reason);
}
