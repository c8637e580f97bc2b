//! One handler, on bare hyper and on bequest-http. It keeps its request until it answers, as handlers do.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bequest::Context;
use bequest_http::Server;
use bequest_http::server::{RequestBody, service_fn};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

/// What serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Bare hyper: no context, no limit, no watch.
    Hyper,
    /// Bare hyper, and the handler of `On`: it makes a context with a limit for each request by itself. Nothing but that limit
    /// ends it.
    ByHand,
    /// bequest-http, and a handler that does not ask for its context.
    Off,
    /// bequest-http, and a handler that works with its context: reads the time left, derives a limit of its own, and looks
    /// twice whether it is done.
    On,
    /// As `On`, with the list of live contexts switched on.
    Listed,
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

impl Mode {
    pub const ALL: [Mode; 5] = [Mode::Hyper, Mode::ByHand, Mode::Off, Mode::On, Mode::Listed];

    pub fn name(self) -> &'static str {
        match self {
            Mode::Hyper => "hyper",
            Mode::ByHand => "by-hand",
            Mode::Off => "off",
            Mode::On => "on",
            Mode::Listed => "listed",
        }
    }

    pub fn named(name: &str) -> Option<Mode> {
        Mode::ALL.into_iter().find(|mode| mode.name() == name)
    }
}

impl Protocol {
    pub const ALL: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

    pub fn name(self) -> &'static str {
        match self {
            Protocol::Http1 => "http1",
            Protocol::Http2 => "http2",
        }
    }

    pub fn named(name: &str) -> Option<Protocol> {
        Protocol::ALL.into_iter().find(|protocol| protocol.name() == name)
    }
}

/// Serves for ever, on a thread of its own; says where.
pub fn serve(mode: Mode, protocol: Protocol) -> SocketAddr {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            tell.send(listener.local_addr().expect("an address"))
                .expect("asked for");
            match mode {
                Mode::Hyper => {
                    let answer = |_: &Request<hyper::body::Incoming>| answer();
                    serve_hyper(listener, protocol, answer).await;
                }
                Mode::ByHand => {
                    let root = Context::background();
                    let answer = move |_: &Request<hyper::body::Incoming>| work(&root.with_timeout(LIMIT));
                    serve_hyper(listener, protocol, answer).await;
                }
                Mode::Off | Mode::On | Mode::Listed => serve_bequest(listener, mode).await,
            }
        });
    });
    told.recv().expect("a server")
}

/// How long a request may take; the default of bequest-http.
const LIMIT: Duration = Duration::from_secs(30);

fn answer() -> Response<Full<Bytes>> {
    Response::new(Full::new(Bytes::from_static(b"hello, world")))
}

async fn serve_hyper<A>(listener: TcpListener, protocol: Protocol, answer: A)
where
    A: Fn(&Request<hyper::body::Incoming>) -> Response<Full<Bytes>> + Clone + Send + 'static,
{
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let answer = answer.clone();
        async move {
            let answer = answer(&request);
            drop(request);
            Ok::<_, Infallible>(answer)
        }
    });
    loop {
        let (stream, _) = listener.accept().await.expect("it accepts");
        stream.set_nodelay(true).expect("an open socket");
        let (io, service) = (TokioIo::new(stream), service.clone());
        tokio::spawn(async move {
            // A client that leaves is an error to hyper, and nothing to us.
            let _ = match protocol {
                Protocol::Http1 => {
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(io, service)
                        .await
                }
                Protocol::Http2 => {
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(io, service)
                        .await
                }
            };
        });
    }
}

async fn serve_bequest(listener: TcpListener, mode: Mode) {
    let root = Context::background();
    let served = match mode {
        Mode::Off => {
            let service = service_fn(|request: Request<RequestBody>| async move {
                let answer = answer();
                drop(request);
                answer
            });
            Server::builder().serve(listener, service, &root).await
        }
        _ => {
            let _list = (mode == Mode::Listed).then(list);
            let service = service_fn(|request: Request<RequestBody>| async move {
                work(request.extensions().get::<Context>().expect("a context"))
            });
            Server::builder().serve(listener, service, &root).await
        }
    };
    served.expect("the listener works");
}

/// Switches the list of live contexts on.
fn list() {
    bequest::inspect::enable();
}

/// What a handler does with its context that calls a back end.
fn work(ctx: &Context) -> Response<Full<Bytes>> {
    let left = ctx.remaining().expect("a request limit");
    let call = ctx.with_timeout(left.min(Duration::from_secs(1)));
    match call.is_done() || ctx.is_done() {
        false => answer(),
        // The load generator leaves at the end of a turn.
        true => Response::new(Full::default()),
    }
}
