//! The same handler on this crate's server, with and without its watch, and on bare hyper.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bequest::{CancelScope, Context};
use bequest_http::Server;
use bequest_http::server::{Builder, Disconnect, RequestBody, Tls, service_fn};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::cases::Route;
use super::go;
use super::stream::server_config;

/// What serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Hyper,
    Bequest,
    /// As it is on systems other than Linux.
    BequestUnwatched,
    /// Go's `net/http`, in a process of its own.
    Go,
}

/// A handler that runs: says when it noticed that its client had left.
pub(crate) type Running = oneshot::Receiver<Notice>;

/// How a handler noticed.
#[derive(Clone, Debug)]
pub(crate) struct Notice {
    pub(crate) at: Instant,
    /// The reason of its context; hyper gives none.
    pub(crate) reason: Option<bequest::Reason>,
}

/// A server, until it is dropped.
pub(crate) struct Serving {
    pub(crate) addr: SocketAddr,
    handlers: mpsc::UnboundedReceiver<Running>,
    _owner: CancelScope,
    task: JoinHandle<()>,
    /// Of Go.
    child: Option<std::process::Child>,
}

impl Serving {
    pub(crate) async fn start(kind: Kind, tls: bool) -> std::io::Result<Serving> {
        if kind == Kind::Go {
            return Serving::start_go(tls).await;
        }
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let (tell, handlers) = mpsc::unbounded_channel();
        let owner = Context::background().with_cancel();
        let task = match kind {
            Kind::Hyper => tokio::spawn(serve_hyper(listener, tell, tls)),
            Kind::Go => unreachable!("started above"),
            Kind::Bequest | Kind::BequestUnwatched => {
                let watch = kind == Kind::Bequest;
                tokio::spawn(serve_bequest(
                    listener,
                    tell,
                    owner.context(),
                    settings(watch, tls),
                ))
            }
        };
        Ok(Serving {
            addr,
            handlers,
            _owner: owner,
            task,
            child: None,
        })
    }

    async fn start_go(tls: bool) -> std::io::Result<Serving> {
        let (tell, handlers) = mpsc::unbounded_channel();
        let (addr, _version, child) = go::start(tls, tell).await?;
        Ok(Serving {
            addr,
            handlers,
            _owner: Context::background().with_cancel(),
            task: tokio::spawn(async {}),
            child: Some(child),
        })
    }

    /// The next handler that runs and has done with its body what its route says.
    pub(crate) async fn next(&mut self) -> Running {
        self.handlers.recv().await.expect("the server runs")
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(child) = &mut self.child {
            // Fails only if it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

async fn serve_bequest(
    listener: TcpListener,
    tell: mpsc::UnboundedSender<Running>,
    ctx: Context,
    settings: Builder,
) {
    let service = service_fn(move |request: Request<RequestBody>| {
        let tell = tell.clone();
        async move {
            let ctx = request.extensions().get::<Context>().cloned().expect("a context");
            let (notice, running) = oneshot::channel();
            // Not from the handler itself, which in this mode is dropped without being polled again.
            let _told = ctx.after_func(move |end| {
                // Nobody listens any more once a run is over.
                let _ = notice.send(Notice {
                    at: Instant::now(),
                    reason: Some(end.reason()),
                });
            });
            work(request, tell, running).await;
            Response::new(Full::<Bytes>::default())
        }
    });
    settings
        .serve(listener, service, &ctx)
        .await
        .expect("the listener works");
}

fn settings(watch: bool, tls: bool) -> Builder {
    let server = Server::builder()
        .watch_sockets(watch)
        .disconnect(Disconnect::Drop);
    match tls {
        true => server.tls(Tls::new(server_config(&[]))),
        false => server,
    }
}

/// Sends its notice when it is dropped, which is all that hyper does.
struct OnDrop(Option<oneshot::Sender<Notice>>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        let notice = Notice {
            at: Instant::now(),
            reason: None,
        };
        // Nobody listens any more once a run is over.
        let _ = self.0.take().expect("dropped once").send(notice);
    }
}

async fn serve_hyper(listener: TcpListener, tell: mpsc::UnboundedSender<Running>, tls: bool) {
    let acceptor = TlsAcceptor::from(Arc::new(server_config(&[b"h2", b"http/1.1"])));
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let tell = tell.clone();
        async move {
            let (notice, running) = oneshot::channel();
            let _on_drop = OnDrop(Some(notice));
            work(request, tell, running).await;
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        }
    });
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("the listener works");
        let (service, acceptor) = (service.clone(), acceptor.clone());
        connections.spawn(async move {
            if tls {
                let stream = acceptor.accept(stream).await.expect("a handshake");
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                serve_connection(stream, http2, service).await;
            } else {
                let mut preface = [0; 3];
                let http2 = stream.peek(&mut preface).await.is_ok() && preface == *b"PRI";
                serve_connection(stream, http2, service).await;
            }
        });
    }
}

async fn serve_connection<T, S>(stream: T, http2: bool, service: S)
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: hyper::service::Service<
            Request<hyper::body::Incoming>,
            Response = Response<Full<Bytes>>,
            Error = Infallible,
            Future: Send + 'static,
        >,
{
    let io = TokioIo::new(stream);
    // Its end is what the handlers see, or not.
    if http2 {
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        drop(builder.serve_connection(io, service).await);
    } else {
        let builder = hyper::server::conn::http1::Builder::new();
        drop(builder.serve_connection(io, service).await);
    }
}

/// Does with the body what the route says, and then waits for ever.
async fn work<B>(request: Request<B>, tell: mpsc::UnboundedSender<Running>, running: Running)
where
    B: Body<Data = Bytes, Error: std::fmt::Debug> + Unpin,
{
    let route = Route::ALL
        .into_iter()
        .find(|route| route.path() == request.uri().path())
        .expect("a known path");
    let mut body = request.into_body();
    let mut held = None;
    if route == Route::Read {
        while body.frame().await.is_some_and(|frame| frame.is_ok()) {}
    }
    // Nobody listens any more once a run is over.
    let _ = tell.send(running);
    match route {
        Route::Held => held = Some(body),
        Route::Ignored | Route::Read => drop(body),
        Route::Reading => while body.frame().await.is_some_and(|frame| frame.is_ok()) {},
    }
    std::future::pending::<()>().await;
    drop(held);
}
