//! An exchange ends in whatever step it is, by a cancel and by a deadline, on both protocols: what its caller is told, what
//! the peer sees, and what becomes of the connection.

use std::convert::Infallible;
use std::future::poll_fn;
use std::time::Duration;

use bequest::{CancelScope, Kind, Reason};
use bequest_http::client::{Client, Error, Limits, Step};
use bequest_test::Clock;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Channel;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::support::{Gated, Peer, get, guard, outcome, start, text};

/// How an exchange is ended.
#[derive(Clone, Copy, Debug)]
enum By {
    Cancel,
    Deadline,
}

const BOTH: [By; 2] = [By::Cancel, By::Deadline];

/// A caller with time left, on a clock that stands still.
struct Caller {
    clock: Clock,
    scope: CancelScope,
}

impl Caller {
    fn new() -> Caller {
        let clock = Clock::new();
        let scope = clock.context().with_timeout(Duration::from_secs(5));
        Caller {
            scope: scope.named("caller"),
            clock,
        }
    }

    fn end(&self, by: By) {
        match by {
            By::Cancel => self.scope.cancel_for(Reason::ClientGone),
            By::Deadline => self.clock.advance(Duration::from_secs(5)),
        }
    }

    /// Asserts that an exchange ended with this caller, in this step.
    fn assert_ended(&self, error: &Error, by: By, step: Step) {
        let end = error.canceled().expect("the context's end");
        assert_eq!(error.step(), step, "{by:?}: {error}");
        assert!(end.is_from(&self.scope), "{by:?}: {error}");
        let expected = match by {
            By::Cancel => (Kind::Canceled, Reason::ClientGone),
            By::Deadline => (Kind::DeadlineExceeded, Reason::Deadline),
        };
        assert_eq!((end.kind(), end.reason()), expected);
        assert_eq!(error.is_timeout(), matches!(by, By::Deadline));
        assert!(
            error.to_string().ends_with(&format!(", while {step}")),
            "{by:?}: {error}"
        );
    }
}

#[tokio::test]
async fn waiting_for_a_turn() {
    for by in BOTH {
        let limits = Limits {
            exchanges_per_host: 1,
            ..Limits::default()
        };
        let client = Client::builder().limits(limits).build();
        let (peer, caller, other) = (Peer::start().await, Caller::new(), Caller::new());
        let served = start(&client, &other.scope, get(peer.url("/")));
        let mut conn = peer.accept().await;
        conn.head().await;
        let waits = start(&client, &caller.scope, get(peer.url("/")));
        tokio::task::yield_now().await;
        caller.end(by);
        caller.assert_ended(&outcome(waits).await.unwrap_err(), by, Step::Waiting);
        conn.answer("here").await;
        assert_eq!(text(outcome(served).await.unwrap()).await.unwrap(), "here");
    }
}

#[tokio::test]
async fn dialling() {
    for by in BOTH {
        for is_http2 in [false, true] {
            let builder = Client::builder();
            let builder = if is_http2 { builder.http2() } else { builder };
            let connector = Gated::shut();
            let client = builder.build_with(connector.clone());
            let (peer, caller) = (Peer::start().await, Caller::new());
            let task = start(&client, &caller.scope, get(peer.url("/")));
            connector.begins().await;
            caller.end(by);
            caller.assert_ended(&outcome(task).await.unwrap_err(), by, Step::Dialling);
        }
    }
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn dialling_in_the_handshake_of_tls() {
    use bequest_http::client::Tls;
    use tokio::io::AsyncReadExt;

    for by in BOTH {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let client = Client::builder().build_tls(Tls::roots_from_pem(pem.as_bytes()).unwrap());
        let caller = Caller::new();
        let task = start(&client, &caller.scope, get(url));
        let (mut silent, _) = guard("a connection", listener.accept()).await.unwrap();
        guard("the first word of a handshake", silent.read_u8())
            .await
            .unwrap();
        caller.end(by);
        caller.assert_ended(&outcome(task).await.unwrap_err(), by, Step::Dialling);
    }
}

#[tokio::test]
async fn on_http1_the_connection_is_closed() {
    for by in BOTH {
        for step in [Step::Sending, Step::Answering, Step::Reading] {
            let (client, peer, caller) = (Client::builder().build(), Peer::start().await, Caller::new());
            let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
            let task = start(
                &client,
                &caller.scope,
                Request::post(peer.url("/")).body(body).unwrap(),
            );
            let mut conn = peer.accept().await;
            conn.head().await;
            sender.send_data(Bytes::from_static(b"part")).await.unwrap();
            let error = match step {
                Step::Sending => {
                    caller.end(by);
                    outcome(task).await.unwrap_err()
                }
                Step::Answering => {
                    drop(sender);
                    conn.chunks().await;
                    caller.end(by);
                    outcome(task).await.unwrap_err()
                }
                _ => {
                    drop(sender);
                    conn.chunks().await;
                    conn.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
                        .await;
                    let answer = outcome(task).await.unwrap();
                    caller.end(by);
                    text(answer).await.unwrap_err()
                }
            };
            caller.assert_ended(&error, by, step);
            conn.closed().await;
        }
    }
}

#[tokio::test]
async fn on_http2_the_stream_is_reset_as_cancelled_and_the_connection_kept() {
    let (url, mut told) = resets().await;
    let client = Client::builder().http2().build();
    for by in BOTH {
        for step in [Step::Sending, Step::Answering, Step::Reading] {
            let caller = Caller::new();
            let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
            let path = if step == Step::Reading { "half" } else { "silent" };
            let request = Request::post(format!("{url}{path}")).body(body).unwrap();
            let task = start(&client, &caller.scope, request);
            sender.send_data(Bytes::from_static(b"part")).await.unwrap();
            assert_eq!(
                guard("the request", told.recv()).await,
                Some((1, None)),
                "{by:?} {step:?}"
            );
            let error = match step {
                Step::Sending => {
                    caller.end(by);
                    outcome(task).await.unwrap_err()
                }
                Step::Answering => {
                    drop(sender);
                    assert_eq!(guard("its end", told.recv()).await, Some((1, None)));
                    caller.end(by);
                    outcome(task).await.unwrap_err()
                }
                _ => {
                    drop(sender);
                    assert_eq!(guard("its end", told.recv()).await, Some((1, None)));
                    let answer = outcome(task).await.unwrap();
                    caller.end(by);
                    text(answer).await.unwrap_err()
                }
            };
            caller.assert_ended(&error, by, step);
            let heard = guard("the peer to hear of it", told.recv()).await;
            assert_eq!(heard, Some((1, Some(h2::Reason::CANCEL))), "{by:?} {step:?}");
        }
    }
}

/// A peer of HTTP/2 that says of each request, with the number of its connection, that it has come, that all of it has come,
/// and by which reason its stream was reset.
async fn resets() -> (String, mpsc::UnboundedReceiver<(u32, Option<h2::Reason>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for number in 1.. {
            let (stream, _) = listener.accept().await.unwrap();
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(waited_out(number, request, respond, tell.clone()));
                }
            });
        }
    });
    (url, told)
}

async fn waited_out(
    number: u32,
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    tell: mpsc::UnboundedSender<(u32, Option<h2::Reason>)>,
) {
    // A test that has ended hears nothing.
    let _ = tell.send((number, None));
    let is_half = request.uri().path() == "/half";
    let mut body = request.into_body();
    let mut answer = None;
    if is_half {
        let mut half = respond.send_response(Response::new(()), false).unwrap();
        half.send_data(Bytes::from_static(b"half"), false).unwrap();
        answer = Some(half);
    }
    while let Some(Ok(_)) = body.data().await {}
    if body.is_end_stream() {
        let _ = tell.send((number, None));
    }
    let reason = match &mut answer {
        Some(half) => poll_fn(|cx| half.poll_reset(cx)).await,
        None => poll_fn(|cx| respond.poll_reset(cx)).await,
    };
    let _ = tell.send((number, Some(reason.expect("a reset"))));
}
