//! Where a case is played: on hyper's server of HTTP/2, and on ours.

use std::future::{Future, Ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use bequest::Reason;
use bequest_http::server::{BoxError, RequestBody, Server};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::super::common::{TestBody, TestClock, TestServer};
use super::client::Client;
use super::record::Record;

/// What a handler says: an answer, or why there is none.
pub(super) type Answer = Result<Response<TestBody>, BoxError>;

/// What a handler has to do with the script of its case.
#[derive(Clone, Debug)]
pub(super) struct Cue {
    tell: mpsc::UnboundedSender<String>,
    cues: Arc<Semaphore>,
}

/// What a case is played on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    Hyper,
    /// With a handler that answers where it was begun.
    Ours,
    /// With a handler that has waited first, and so has a task of its own.
    OursLater,
}

/// A handler of a case.
pub(super) trait Handle<F>: Fn(Request<TestBody>, Cue) -> F + Clone + Send + Sync + 'static {}

impl<T, F> Handle<F> for T where T: Fn(Request<TestBody>, Cue) -> F + Clone + Send + Sync + 'static {}

/// A handler as a service.
#[derive(Clone)]
struct Service(Arc<dyn Fn(Request<TestBody>) -> Answering + Send + Sync>);

type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Plays this on hyper and on ours; the client is to see the same, which is this.
pub(super) async fn same<F>(
    name: &str,
    handler: impl Handle<F>,
    script: impl AsyncFn(&mut Client),
    sees: &[&str],
) where
    F: Future<Output = Answer> + Send + 'static,
{
    eprintln!("{name}");
    let hyper = played(Engine::Hyper, handler.clone(), &script).await;
    assert_eq!(hyper.lines(), sees, "{name}, on hyper");
    for engine in [Engine::Ours, Engine::OursLater] {
        let ours = played(engine, handler.clone(), &script).await;
        assert_eq!(ours.lines(), sees, "{name}, on {engine:?}");
        // Of what is long, the lines have no more than the length.
        assert!(ours == hyper, "{name}: other bytes, on {engine:?}");
    }
}

/// Plays this on hyper and on ours, which does something else, for this reason.
pub(super) async fn differs<F>(
    why: &str,
    handler: impl Handle<F>,
    script: impl AsyncFn(&mut Client),
    of_hyper: &[&str],
    of_ours: &[&str],
) where
    F: Future<Output = Answer> + Send + 'static,
{
    eprintln!("{why}");
    assert_ne!(of_hyper, of_ours, "no difference");
    for (engine, sees) in [
        (Engine::Hyper, of_hyper),
        (Engine::Ours, of_ours),
        (Engine::OursLater, of_ours),
    ] {
        let seen = played(engine, handler.clone(), &script).await;
        assert_eq!(seen.lines(), sees, "{why}, on {engine:?}");
    }
}

/// Plays this, and answers what the client has seen.
pub(super) async fn played<F>(
    engine: Engine,
    handler: impl Handle<F>,
    script: impl AsyncFn(&mut Client),
) -> Record
where
    F: Future<Output = Answer> + Send + 'static,
{
    let (tell, told) = mpsc::unbounded_channel();
    let cues = Arc::new(Semaphore::new(0));
    let cue = Cue {
        tell,
        cues: cues.clone(),
    };
    let answer = move |request| -> Answering {
        let (handler, cue) = (handler.clone(), cue.clone());
        Box::pin(async move {
            if engine == Engine::OursLater {
                tokio::task::yield_now().await;
            }
            handler(request, cue).await
        })
    };
    let service = Service(Arc::new(answer));
    let mut client = match engine {
        Engine::Hyper => {
            let (stream, shutdown) = hyper_alone(service).await;
            Client::connect(stream, told, cues, shutdown).await
        }
        Engine::Ours | Engine::OursLater => {
            let server = TestServer::with(Server::builder(), TestClock::new().context(), service).await;
            let stream = TcpStream::connect(server.addr).await.expect("it accepts");
            let shutdown = Box::new(move || server.process.cancel_for(Reason::Shutdown));
            Client::connect(stream, told, cues, shutdown).await
        }
    };
    script(&mut client).await;
    client.settle().await;
    client.record
}

/// A client's end of a connection to hyper, and what has it say goodbye.
async fn hyper_alone(service: Service) -> (TcpStream, Box<dyn FnOnce()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let (shut_down, is_shut_down) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        // As ours: small frames do not wait for each other.
        stream.set_nodelay(true).expect("an open socket");
        let http = http2::Builder::new(TokioExecutor::new());
        let mut http = Box::pin(http.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            // Its end is what the client sees.
            _ = &mut http => return,
            Ok(()) = is_shut_down => http.as_mut().graceful_shutdown(),
        }
        drop(http.await);
    });
    let stream = TcpStream::connect(addr).await.expect("it accepts");
    // A connection that is over has nobody to say goodbye to.
    let shutdown = Box::new(move || {
        let _ = shut_down.send(());
    });
    (stream, shutdown)
}

impl Cue {
    /// Tells the script something.
    pub(super) fn tell(&self, word: impl Into<String>) {
        // A script that has ended hears nothing any more.
        let _ = self.tell.send(word.into());
    }

    /// Waits for the script.
    pub(super) async fn come(&self) {
        self.cues.acquire().await.expect("an open semaphore").forget();
    }
}

/// A handler that answers this, whatever it is asked.
pub(super) fn always(
    answer: impl Fn(&Cue) -> Response<TestBody> + Clone + Send + Sync + 'static,
) -> impl Handle<Ready<Answer>> {
    move |_, cue| std::future::ready(Ok(answer(&cue)))
}

/// A handler that tells that it has begun, and never answers.
pub(super) async fn deaf(_: Request<TestBody>, cue: Cue) -> Answer {
    cue.tell("begun");
    std::future::pending().await
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<TestBody>;
    type Error = BoxError;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        (self.0)(request.map(|body| body.map_err(BoxError::from).boxed_unsync()))
    }
}

impl tower_service::Service<Request<RequestBody>> for Service {
    type Response = Response<TestBody>;
    type Error = BoxError;
    type Future = Answering;

    fn poll_ready(&mut self, _cx: &mut TaskContext<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Answering {
        (self.0)(request.map(BodyExt::boxed_unsync))
    }
}
