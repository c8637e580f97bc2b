//! Three hops: a client, two services that each ask the next with this client, and what falls and ends on the way.

use std::time::Duration;

use bequest::{CancelScope, Codec, Context, Key, Reason};
use bequest_http::client::{Builder, Client};
use bequest_http::server::{Inbound, RequestBody, Server, Trusted, service_fn};
use bequest_http::wire::{Allow, Outbound, Trace};
use http::{Request, Response};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::support::{get, guard, outcome, start, text};

static TENANT: Key<u32> = Key::new("tenant").crossing(Codec {
    encode: u32::to_string,
    decode: |text| text.parse().ok(),
    limit: 10,
});

const MARGIN: Duration = Duration::from_millis(30);

fn inbound() -> Inbound {
    Inbound {
        trusted: Trusted::by(|conn| conn.peer_addr().ip().is_loopback()),
        trace: true,
        baggage: Allow::nothing().key(&TENANT),
        ..Inbound::default()
    }
}

fn outbound() -> Outbound {
    Outbound {
        margin: MARGIN,
        trace: true,
        baggage: Allow::nothing().key(&TENANT),
        ..Outbound::default()
    }
}

/// What the chain's end says about its own context, once it has begun and once it has ended.
type Told = mpsc::UnboundedSender<String>;

/// A service that asks `next`, or, without one, says what it has and waits for its end.
async fn hop(process: &CancelScope, builder: &Builder, next: Option<String>, tell: Told) -> String {
    let client = builder.clone().outbound(outbound()).build();
    let service = service_fn(move |request: Request<RequestBody>| {
        let (client, next, tell) = (client.clone(), next.clone(), tell.clone());
        async move {
            let ctx = request.extensions().get::<Context>().unwrap().clone();
            let left = ctx.remaining().unwrap();
            let trace = Trace::of(&ctx).unwrap().parent().trace_id();
            let here = format!("{} {:?} {trace:02x?}\n", left.as_millis(), ctx.value(&TENANT));
            let Some(next) = next else {
                // A test that has ended hears nothing.
                let _ = tell.send(here.clone());
                if request.uri().path() == "/wait" {
                    let _ = tell.send(ctx.done().await.reason().to_string());
                }
                return Response::new(here);
            };
            let answer = client.send(&ctx, get(next + &request.uri().path()[1..])).await;
            match answer {
                Ok(answer) => Response::new(here + &text(answer).await.unwrap()),
                Err(error) => Response::builder().status(504).body(error.to_string()).unwrap(),
            }
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let ctx = process.context();
    tokio::spawn(async move {
        Server::builder()
            .inbound(inbound())
            .serve(listener, service, &ctx)
            .await
    });
    url
}

/// Three services on a clock that stands still, so that only the margins take of the budget.
async fn chain(
    builder: &Builder,
) -> (
    CancelScope,
    String,
    mpsc::UnboundedReceiver<String>,
    bequest_test::Clock,
) {
    let (tell, told) = mpsc::unbounded_channel();
    let clock = bequest_test::Clock::new();
    let process = clock.context().with_cancel();
    let third = hop(&process, builder, None, tell.clone()).await;
    let second = hop(&process, builder, Some(third), tell.clone()).await;
    let first = hop(&process, builder, Some(second), tell).await;
    (process, first, told, clock)
}

#[tokio::test]
async fn the_budget_falls_at_each_hop_and_values_and_trace_go_along() {
    let (_process, url, _told, clock) = chain(&Client::builder()).await;
    let client = Client::builder().outbound(outbound()).build();
    let caller = clock
        .context()
        .with_timeout(Duration::from_secs(2))
        .with_value(&TENANT, 7);
    let caller = Trace::start().carried_by(&caller);
    let answer = client.send(&caller, get(url + "now")).await.unwrap();
    let trace = format!("{:02x?}", Trace::of(&caller).unwrap().parent().trace_id());
    let expected: String = [1970, 1940, 1910]
        .iter()
        .map(|left| format!("{left} Some(7) {trace}\n"))
        .collect();
    assert_eq!(text(answer).await.unwrap(), expected);
}

#[tokio::test]
async fn s28_the_first_clients_leaving_ends_the_thirds_work() {
    for (builder, end) in [
        (Client::builder(), Reason::ClientGone),
        (Client::builder().http2(), Reason::StreamReset),
    ] {
        let (_process, url, mut told, clock) = chain(&builder).await;
        let client = builder.build();
        let caller = clock.context().with_cancel();
        let task = start(&client, &caller, get(url + "wait"));
        guard("the chain's end to begin", told.recv()).await.unwrap();
        caller.cancel();
        assert!(outcome(task).await.is_err());
        let told = guard("the chain's end to be told", told.recv()).await.unwrap();
        assert_eq!(told, end.to_string());
    }
}
