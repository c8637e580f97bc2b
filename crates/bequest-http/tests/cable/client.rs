//! Servers at the far end that fall silent, and the client at the near end.

use std::time::{Duration, Instant};

use bequest::Context;
use bequest_http::client::{Client, Error, Limits, ResponseBody, Step};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::lab::{Cable, Plug};
use super::trial::{Noticed, Outcome, all, guard, limit, settle};

/// What an exchange waits for when the cable is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// The answer.
    Answer,
    /// The rest of the answer.
    Rest,
    /// Nothing yet: it begins afterwards, on a connection that was kept.
    Kept,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

fn client(protocol: Protocol, unreachable: Duration) -> Client {
    let limits = Limits {
        unreachable,
        exchange: Duration::MAX,
        ..Limits::default()
    };
    let builder = Client::builder().limits(limits);
    match protocol {
        Protocol::Http1 => builder.build(),
        Protocol::Http2 => builder.http2().build(),
    }
}

fn get(cable: &Cable, path: &str) -> Request<Empty<Bytes>> {
    let uri = format!("http://{}{path}", cable.far());
    Request::get(uri).body(Empty::new()).expect("a request")
}

/// Asks something, and answers the number of the connection on which that was.
async fn asks(client: &Client, cable: &Cable) -> String {
    let ctx = Context::background();
    let response = guard("an answer", client.send(&ctx, get(cable, "/"))).await;
    let body = guard("its body", response.expect("an answer").into_body().collect()).await;
    String::from_utf8(body.expect("a body").to_bytes().to_vec()).expect("text")
}

/// Waits until the server has a request that it does not answer.
async fn has_waiting(cable: &Cable) {
    let client: legacy::Client<HttpConnector, Empty<Bytes>> =
        legacy::Client::builder(TokioExecutor::new()).build_http();
    guard("the request to arrive", async {
        loop {
            let response = client.request(get(cable, "/waiting")).await.expect("an answer");
            let body = response.into_body().collect().await.expect("a body");
            if body.to_bytes() != "0" {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// The server falls silent.
pub(crate) async fn falls_silent(cable: Cable, protocol: Protocol, call: Call) -> Outcome {
    let client = client(protocol, limit());
    let ctx = Context::background();
    let first = asks(&client, &cable).await;
    let (pulled, error) = match call {
        Call::Answer => {
            let waits = sends(&client, get(&cable, "/wait"));
            has_waiting(&cable).await;
            settle().await;
            let pulled = pull(&cable);
            let ended = guard("the exchange to end", waits).await;
            (pulled, ended.expect("no panic").expect_err("nothing is answered"))
        }
        Call::Rest => {
            let response = guard("a head", client.send(&ctx, get(&cable, "/begin"))).await;
            let mut body = response.expect("a head").into_body();
            let beginning = guard("a beginning", body.frame()).await;
            beginning.expect("a body").expect("a beginning");
            settle().await;
            let pulled = pull(&cable);
            let rest = guard("the exchange to end", body.frame()).await;
            (pulled, rest.expect("no end").expect_err("nothing comes"))
        }
        Call::Kept => {
            let pulled = pull(&cable);
            let ended = guard("the exchange to end", client.send(&ctx, get(&cable, "/"))).await;
            (pulled, ended.expect_err("nothing is answered"))
        }
    };
    let at = Instant::now();
    assert!(error.is_unreachable(), "{error:?}");
    assert!(
        error.canceled().is_none() && !error.used_up_budget(&ctx),
        "{error:?}"
    );
    let step = match call {
        Call::Rest => Step::Reading,
        Call::Answer | Call::Kept => Step::Answering,
    };
    assert_eq!(error.step(), step);
    cable.plug_in();
    let next = asks(&client, &cable).await;
    assert_ne!(first, next, "another connection");
    Outcome::noticed(pulled, at, error)
}

fn pull(cable: &Cable) -> Instant {
    let now = Instant::now();
    cable.pull(Plug::Far);
    now
}

fn sends(
    client: &Client,
    request: Request<Empty<Bytes>>,
) -> tokio::task::JoinHandle<Result<Response<ResponseBody>, Error>> {
    let client = client.clone();
    tokio::spawn(async move { client.send(&Context::background(), request).await })
}

/// Control: without the limit the exchange waits on.
pub(crate) async fn without_limit(cable: Cable, protocol: Protocol, noticed: Noticed) -> Outcome {
    let client = client(protocol, Duration::MAX);
    asks(&client, &cable).await;
    let pulled = pull(&cable);
    let waits = sends(&client, get(&cable, "/"));
    all(noticed).await;
    assert!(!waits.is_finished());
    Outcome::unnoticed(format!("not noticed for {:.1} s", pulled.elapsed().as_secs_f64()))
}

/// Control: hyper's bare client.
pub(crate) async fn hyper(cable: Cable, protocol: Protocol, call: Call, noticed: Noticed) -> Outcome {
    let client: legacy::Client<HttpConnector, Empty<Bytes>> = legacy::Client::builder(TokioExecutor::new())
        .http2_only(protocol == Protocol::Http2)
        .build_http();
    let warm = guard("an answer", client.request(get(&cable, "/"))).await;
    let body = guard("its body", warm.expect("an answer").into_body().collect()).await;
    body.expect("a body");
    let (pulled, waits) = match call {
        Call::Kept => (pull(&cable), tokio::spawn(client.request(get(&cable, "/")))),
        Call::Answer | Call::Rest => {
            let waits = tokio::spawn(client.request(get(&cable, "/wait")));
            has_waiting(&cable).await;
            (pull(&cable), waits)
        }
    };
    all(noticed).await;
    assert!(!waits.is_finished());
    Outcome::unnoticed(format!("not noticed for {:.1} s", pulled.elapsed().as_secs_f64()))
}
