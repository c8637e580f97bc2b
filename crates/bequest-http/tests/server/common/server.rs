//! A running server, and what its observer heard.

use std::net::SocketAddr;
use std::time::Duration;

use bequest::{CancelScope, Canceled, Context, Reason};
use bequest_http::server::{
    BoxError, Builder, ConnInfo, Dropped, Finished, Observer, PanicReport, RequestBody, ServeError, Server,
    Statistics, Summary, WhyDropped,
};
use http::{Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::guard;

pub(crate) struct TestServer {
    pub(crate) addr: SocketAddr,
    /// Its end is the server's.
    pub(crate) process: CancelScope,
    pub(crate) statistics: Statistics,
    pub(crate) events: Events,
    task: JoinHandle<Result<Summary, ServeError>>,
}

/// What the observer heard, in a form that a test can keep.
#[derive(Debug)]
pub(crate) enum Event {
    Opened(ConnInfo),
    Closed(Canceled),
    #[cfg(feature = "tls")]
    HandshakeFailed(Canceled),
    Finished {
        path: String,
        status: Option<StatusCode>,
        logged: StatusCode,
        bytes: u64,
        elapsed: Duration,
        end: Canceled,
    },
    Panicked {
        message: String,
        file: String,
        line: u32,
    },
    Dropped(WhyDropped),
}

pub(crate) struct Events(mpsc::UnboundedReceiver<Event>);

struct Recorder(mpsc::UnboundedSender<Event>);

impl TestServer {
    /// A server with default settings on the system's clock.
    pub(crate) async fn start<S, B>(service: S) -> TestServer
    where
        S: tower_service::Service<Request<RequestBody>, Response = Response<B>>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: http_body::Body + Send + 'static,
        B::Error: Into<BoxError> + Send,
    {
        TestServer::with(Server::builder(), Context::background(), service).await
    }

    /// A server with these settings, below this context.
    pub(crate) async fn with<S, B>(builder: Builder, root: Context, service: S) -> TestServer
    where
        S: tower_service::Service<Request<RequestBody>, Response = Response<B>>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: http_body::Body + Send + 'static,
        B::Error: Into<BoxError> + Send,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let (tell, told) = mpsc::unbounded_channel();
        let builder = builder.observer(Recorder(tell));
        let statistics = builder.statistics();
        let process = root.with_cancel();
        let ctx = process.context();
        let task = tokio::spawn(async move { builder.serve(listener, service, &ctx).await });
        TestServer {
            addr,
            process,
            statistics,
            events: Events(told),
            task,
        }
    }

    /// Asks for the shutdown and waits for its end.
    pub(crate) async fn stop(self) -> Summary {
        self.process.cancel_for(Reason::Shutdown);
        self.ended().await
    }

    /// Waits for the end of a server that was asked to shut down.
    pub(crate) async fn ended(self) -> Summary {
        guard("the server to end", self.task)
            .await
            .expect("no panic")
            .expect("no error")
    }

    /// Drops the server's future at once.
    pub(crate) fn abort(&self) {
        self.task.abort();
    }
}

/// An observer, and what it hears.
#[cfg(feature = "axum-serve")]
pub(crate) fn recorder() -> (impl Observer, Events) {
    let (tell, told) = mpsc::unbounded_channel();
    (Recorder(tell), Events(told))
}

impl Events {
    /// The next event that `pick` wants; others before it are passed over.
    pub(crate) async fn next<T>(&mut self, what: &str, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        guard(what, async {
            loop {
                let event = self.0.recv().await.expect("the server is alive");
                if let Some(picked) = pick(event) {
                    return picked;
                }
            }
        })
        .await
    }

    /// The end of the next connection that closes.
    pub(crate) async fn closed(&mut self) -> Canceled {
        self.next("a connection to close", |event| match event {
            Event::Closed(end) => Some(end),
            _ => None,
        })
        .await
    }

    /// The end of the next handshake that fails.
    #[cfg(feature = "tls")]
    pub(crate) async fn handshake_failed(&mut self) -> Canceled {
        self.next("a handshake to fail", |event| match event {
            Event::HandshakeFailed(end) => Some(end),
            _ => None,
        })
        .await
    }

    /// The next request that finishes.
    pub(crate) async fn finished(&mut self) -> Event {
        self.next("a request to finish", |event| {
            matches!(event, Event::Finished { .. }).then_some(event)
        })
        .await
    }

    /// The next handler that is dropped.
    pub(crate) async fn dropped(&mut self) -> WhyDropped {
        self.next("a handler to be dropped", |event| match event {
            Event::Dropped(why) => Some(why),
            _ => None,
        })
        .await
    }

    /// All that has been heard and not been asked for.
    pub(crate) fn rest(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.0.try_recv().ok()).collect()
    }
}

impl Recorder {
    fn record(&self, event: Event) {
        // A test that has ended hears nothing any more.
        let _ = self.0.send(event);
    }
}

impl Observer for Recorder {
    fn connection_opened(&self, conn: &ConnInfo) {
        self.record(Event::Opened(conn.clone()));
    }

    fn connection_closed(&self, _conn: &ConnInfo, end: &Canceled) {
        self.record(Event::Closed(end.clone()));
    }

    #[cfg(feature = "tls")]
    fn handshake_failed(&self, _conn: &ConnInfo, end: &Canceled) {
        self.record(Event::HandshakeFailed(end.clone()));
    }

    fn request_finished(&self, request: &Finished<'_>) {
        self.record(Event::Finished {
            path: request.uri.path().to_owned(),
            status: request.status,
            logged: request.logged_status(),
            bytes: request.bytes,
            elapsed: request.elapsed,
            end: request.end.clone(),
        });
    }

    fn panicked(&self, panic: &PanicReport<'_>) {
        self.record(Event::Panicked {
            message: panic.panic.message().to_owned(),
            file: panic.panic.place().expect("a place").file().to_owned(),
            line: panic.panic.place().expect("a place").line(),
        });
    }

    fn handler_dropped(&self, dropped: &Dropped<'_>) {
        self.record(Event::Dropped(dropped.why));
    }
}
