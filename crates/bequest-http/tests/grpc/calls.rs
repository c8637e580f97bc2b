//! The side that asks: its deadline goes along, its end resets the stream, and its own ends are told from the peer's.

use std::time::Duration;

use bequest::{Context, Kind, Reason};
use bequest_http::grpc::{ClientLayer, Ended, ServerLayer};
use bequest_http::wire::Outbound;
use tokio::sync::{mpsc, oneshot};
use tonic::{Code, Status};
use tower_layer::Layer;

use super::desk::{Desk, Told};
use super::support::{Asks, Calls, Host, LAYERED, ask, calls, channel, guard, process, serve};
use super::work::work_client::WorkClient;

async fn start(host: Host, layer: ServerLayer) -> (Calls, Told, bequest::CancelScope) {
    let (desk, told) = Desk::new(None);
    let process = process();
    let addr = serve(host, &process, layer, &desk).await;
    (calls(addr).await, told, process)
}

fn ended(ctx: &Context, status: &Status) -> Option<Ended> {
    Ended::of(ctx, status.code().into(), status.metadata().as_ref())
}

#[tokio::test]
async fn h13_the_remaining_time_goes_along_less_the_margin() {
    let (desk, _told) = Desk::new(None);
    let process = process();
    let addr = serve(Host::Plain, &process, ServerLayer::new(), &desk).await;
    let outbound = Outbound {
        margin: Duration::from_millis(50),
        ..Outbound::default()
    };
    let layer = ClientLayer::new(tonic::body::Body::new).outbound(outbound);
    let calls = layer.layer(channel(addr).await);
    let clock = bequest_test::Clock::new();
    let caller = clock.context().with_timeout(Duration::from_secs(9));
    let mut client = WorkClient::new(calls.under(&caller));
    let told = client.unary(ask("header")).await.unwrap().into_inner().text;
    assert_eq!(told, "8950000u", "the finest unit that fits eight digits");

    // The same by the request's extensions.
    let mut request = tonic::Request::new(ask("header"));
    request.extensions_mut().insert(caller.context());
    let told = WorkClient::new(calls.clone()).unary(request).await.unwrap();
    assert_eq!(told.into_inner().text, "8950000u");

    let told = WorkClient::new(calls).unary(ask("header")).await.unwrap();
    assert_eq!(told.into_inner().text, "none", "no context, no deadline");
}

/// Makes a call of one of the four kinds, to a handler that goes on until it is told, and answers how it ended. Says when the
/// answer has come as far as it will.
async fn ended_call(
    mut client: WorkClient<Calls>,
    kind: &str,
    text: &str,
    far: oneshot::Sender<()>,
) -> Status {
    let (say, asks) = mpsc::channel(1);
    say.send(ask("one")).await.expect("there is room");
    let so_far = move || {
        // Not every test waits for it.
        let _ = far.send(());
    };
    match kind {
        "unary" => {
            so_far();
            guard("an end", client.unary(ask(text))).await.unwrap_err()
        }
        "down" => {
            let mut answers = client.down(ask(text)).await.unwrap().into_inner();
            assert_eq!(answers.message().await.unwrap().unwrap().text, "one");
            so_far();
            guard("an end", answers.message()).await.unwrap_err()
        }
        "up" => {
            so_far();
            let status = guard("an end", client.up(Asks(asks))).await.unwrap_err();
            guard("the stream of asks to be dropped", say.closed()).await;
            status
        }
        _ => {
            let mut answers = client.both(Asks(asks)).await.unwrap().into_inner();
            assert_eq!(answers.message().await.unwrap().unwrap().text, "one");
            so_far();
            let status = guard("an end", answers.message()).await.unwrap_err();
            guard("the stream of asks to be dropped", say.closed()).await;
            status
        }
    }
}

const KINDS: [&str; 4] = ["unary", "down", "up", "both"];

#[tokio::test]
async fn our_deadline_is_deadline_exceeded_and_ours() {
    for host in [Host::Ours, Host::Tonics, Host::Plain] {
        let (calls, _told, _process) = start(host, ServerLayer::new()).await;
        for kind in KINDS {
            let caller = Context::background().with_timeout(Duration::from_millis(100));
            let text = if kind == "unary" { "deaf" } else { "silent" };
            let client = WorkClient::new(calls.under(&caller));
            let status = ended_call(client, kind, text, oneshot::channel().0).await;
            assert_eq!(status.code(), Code::DeadlineExceeded, "{host:?} {kind}: {status}");
            let ended = ended(&caller, &status).expect("an end");
            assert!(!ended.is_remote(), "{host:?} {kind}: {status:?}");
            assert_eq!(ended.canceled(), &Kind::DeadlineExceeded);
        }
    }
}

#[tokio::test]
async fn cancelling_resets_the_stream_and_says_why_here() {
    for host in [Host::Ours, Host::Tonics] {
        let (calls, mut told, _process) = start(host, ServerLayer::new()).await;
        for kind in KINDS {
            let caller = Context::background().with_cancel();
            let client = WorkClient::new(calls.under(&caller));
            let (far, so_far) = oneshot::channel();
            let call = tokio::spawn(async move { ended_call(client, kind, "listen", far).await });
            assert_eq!(told.next().await, "began");
            guard("a message", so_far).await.unwrap();
            caller.cancel_with("not needed any more");
            let status = guard("an end", call).await.unwrap();
            assert_eq!(status.code(), Code::Cancelled, "{host:?} {kind}");
            let ended = ended(&caller, &status).unwrap();
            assert!(!ended.is_remote());
            assert_eq!(
                ended.canceled().cause().unwrap().to_string(),
                "not needed any more"
            );
            let told = told.next().await;
            let is_told = told == "told: stream reset by client" || told == "told: client disconnected";
            assert!(
                is_told || told.starts_with("reading failed"),
                "{host:?} {kind}: {told}"
            );
        }
    }
}

#[tokio::test]
async fn h7_an_open_request_stream_is_let_go_of_and_the_peer_hears_of_it() {
    for host in LAYERED {
        let (calls, mut told, _process) = start(host, ServerLayer::new()).await;
        let caller = Context::background().with_cancel();
        let (say, asks) = mpsc::channel(1);
        say.send(ask("one")).await.unwrap();
        let mut client = WorkClient::new(calls.under(&caller));
        let mut answers = guard("a head", client.both(Asks(asks)))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap().text, "one");
        caller.cancel();
        let status = guard("an end", answers.message()).await.unwrap_err();
        assert_eq!(status.code(), Code::Cancelled);
        guard("the stream of asks to be dropped", say.closed()).await;
        assert_eq!(told.next().await, "began");
        let said = told.next().await;
        assert!(said.starts_with("reading failed"), "{host:?}: {said}");
    }
}

#[tokio::test]
async fn the_peers_own_ends_are_remote() {
    let layer = ServerLayer::new().limit(Duration::from_millis(50));
    for host in LAYERED {
        let (calls, _told, _process) = start(host, layer.clone()).await;
        let caller = Context::background().with_timeout(Duration::from_secs(60));
        let mut client = WorkClient::new(calls.under(&caller));
        let status = guard("an end", client.unary(ask("deaf"))).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        let ended = ended(&caller, &status).unwrap();
        assert!(ended.is_remote(), "{host:?}");
        let end = ended.canceled();
        assert_eq!(
            (end.kind(), end.reason()),
            (Kind::DeadlineExceeded, Reason::Remote)
        );
        assert!(!caller.is_done());
    }
}

#[tokio::test]
async fn a_peer_cannot_say_that_an_end_was_ours() {
    let (calls, _told, _process) = start(Host::Tonics, ServerLayer::new()).await;
    let caller = Context::background().with_cancel();
    let mut client = WorkClient::new(calls.under(&caller));
    let mut answers = client.down(ask("forged")).await.unwrap().into_inner();
    let status = guard("a status", answers.message()).await.unwrap_err();
    assert_eq!(status.message(), "by the peer");
    let ended = ended(&caller, &status).unwrap();
    assert!(ended.is_remote());
    assert_eq!(
        (ended.canceled().kind(), ended.canceled().reason()),
        (Kind::Canceled, Reason::Remote)
    );
}

#[tokio::test]
async fn a_failure_is_no_end() {
    let (calls, _told, _process) = start(Host::Ours, ServerLayer::new()).await;
    let caller = Context::background().with_cancel();
    let status = WorkClient::new(calls.under(&caller))
        .unary(ask("refuse"))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(ended(&caller, &status).is_none());
}

#[tokio::test]
async fn h2_nothing_is_sent_for_a_context_that_has_ended_or_leaves_too_little() {
    let (calls, mut told, _process) = start(Host::Ours, ServerLayer::new()).await;
    let over = Context::background().with_cancel();
    over.cancel();
    let status = WorkClient::new(calls.under(&over))
        .unary(ask("listen"))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Cancelled);
    assert_eq!(
        ended(&over, &status).unwrap().canceled().reason(),
        Reason::Explicit
    );

    let clock = bequest_test::Clock::new();
    let little = clock.context().with_timeout(Duration::from_millis(5));
    let status = WorkClient::new(calls.under(&little))
        .unary(ask("listen"))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let ended = ended(&little, &status).unwrap();
    assert!(!ended.is_remote() && ended.canceled().is_timeout());
    assert!(told.is_silent());
}

#[tokio::test]
async fn the_layers_own_limit_is_an_end_of_ours_that_leaves_the_caller_time() {
    let (desk, _told) = Desk::new(None);
    let process = process();
    let addr = serve(Host::Ours, &process, ServerLayer::new(), &desk).await;
    let layer = ClientLayer::new(tonic::body::Body::new).limit(Duration::from_millis(50));
    let calls = layer.layer(channel(addr).await);
    let caller = Context::background().with_cancel();
    let status = guard("an end", WorkClient::new(calls.under(&caller)).unary(ask("deaf"))).await;
    let status = status.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let ended = ended(&caller, &status).unwrap();
    assert!(!ended.is_remote() && ended.canceled().is_timeout());
    assert!(!caller.is_done());
}
