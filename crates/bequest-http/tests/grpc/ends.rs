//! Ends on a server that are no deadline: cancelled, shut down, left by the caller, and what is not gRPC at all.

use std::time::Duration;

use bequest::Reason;
use bequest_http::grpc::ServerLayer;
use http::Request;
use http_body_util::BodyExt;
use tower_layer::Layer;
use tower_service::Service;

use super::desk::Desk;
use super::support::{Host, LAYERED, Raw, process, serve, status};

#[tokio::test]
async fn cancelled_and_shut_down_are_told_apart() {
    for (reason, expected) in [(Reason::Explicit, 1), (Reason::Shutdown, 14)] {
        let (desk, mut told) = Desk::new(None);
        let process = process();
        let layer = ServerLayer::new().grace(Duration::ZERO);
        let addr = serve(Host::Tonics, &process, layer, &desk).await;
        let raw = Raw::connect(addr).await;
        let call = raw.call("Unary", None, "deaf", true).await;
        let mut down = raw.call("Down", None, "silent", true).await.answer().await;
        let up = raw.call("Up", None, "one", false).await;
        let both = raw.call("Both", None, "one", false).await;
        let (mut both, _asks) = both.answer_and_asks().await;
        both.piece().await.expect("the echo");
        for _ in 0..4 {
            assert_eq!(told.next().await, "began");
        }
        process.cancel_for(reason);
        assert_eq!(status(&call.answer().await.head), expected, "{reason}");
        assert_eq!(status(&down.trailers().await), expected, "{reason}");
        let (up, _asks) = up.answer_and_asks().await;
        assert_eq!(status(&up.head), expected, "{reason}: not that of a broken read");
        assert_eq!(status(&both.trailers().await), expected, "{reason}");
    }
}

#[tokio::test]
async fn a_caller_that_leaves_is_told_to_the_handler_which_has_its_grace() {
    for (host, reason) in [
        (Host::Ours, Reason::StreamReset),
        (Host::Bare, Reason::StreamReset),
        (Host::Tonics, Reason::ClientGone),
    ] {
        let (desk, mut told) = Desk::new(None);
        let process = process();
        let addr = serve(host, &process, ServerLayer::new(), &desk).await;
        let raw = Raw::connect(addr).await;
        for method in ["Unary", "Down"] {
            let mut call = raw.call(method, None, "listen", true).await;
            assert_eq!(told.next().await, "began");
            call.asks.send_reset(h2::Reason::CANCEL);
            assert_eq!(told.next().await, format!("told: {reason}"), "{host:?} {method}");
        }
        for method in ["Up", "Both"] {
            let mut call = raw.call(method, None, "one", false).await;
            assert_eq!(told.next().await, "began");
            call.asks.send_reset(h2::Reason::CANCEL);
            let said = told.next().await;
            let (what, why) = said.split_once(": ").expect("why");
            assert_eq!(
                what, "reading failed",
                "and not: asked to the end; {host:?} {method}"
            );
            // tonic's own server knows no more than that the stream broke off, until it lets go of the handler.
            let is_told = why == reason.to_string() || host == Host::Tonics && why.contains("broke off");
            assert!(is_told, "{host:?} {method}: {said}");
        }
    }
}

#[tokio::test]
async fn control_tonic_takes_a_request_that_was_cancelled_for_one_that_is_complete() {
    let (sender, body) = http_body_util::Channel::<bytes::Bytes, tonic::Status>::new(1);
    sender.abort(tonic::Status::cancelled("by the caller"));
    let decoder = tonic_prost::ProstDecoder::<super::work::Ask>::default();
    let mut asked = tonic::Streaming::new_request(decoder, body, None, None);
    assert!(
        asked.message().await.expect("no error").is_none(),
        "the end, it says"
    );
}

#[tokio::test]
async fn a_handler_whose_grace_is_over_is_dropped() {
    let (desk, mut told) = Desk::new(None);
    let process = process();
    let layer = ServerLayer::new().grace(Duration::from_millis(1));
    let addr = serve(Host::Tonics, &process, layer, &desk).await;
    let raw = Raw::connect(addr).await;
    let mut call = raw.call("Unary", None, "deaf", true).await;
    assert_eq!(told.next().await, "began");
    call.asks.send_reset(h2::Reason::CANCEL);
    assert_eq!(told.next().await, "dropped");
}

#[tokio::test]
async fn a_panic_is_internal() {
    // tonic's own server lets the panic through.
    for host in [Host::Ours, Host::Bare] {
        let (desk, _told) = Desk::new(None);
        let process = process();
        let addr = serve(host, &process, ServerLayer::new(), &desk).await;
        let raw = Raw::connect(addr).await;
        let answer = raw.call("Unary", None, "panic", true).await.answer().await;
        assert!(answer.is_trailers_only());
        assert_eq!(status(&answer.head), 13, "{host:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_end_leaves_nothing_behind() {
    for host in LAYERED {
        let leak = bequest_test::Leak::watch();
        {
            let (desk, mut told) = Desk::new(None);
            let process = leak.context().with_cancel();
            let addr = serve(host, &process, ServerLayer::new(), &desk).await;
            let raw = Raw::connect(addr).await;
            let mut answer = raw.call("Unary", None, "hello", true).await.answer().await;
            assert_eq!(status(&answer.trailers().await), 0);
            let mut call = raw.call("Unary", None, "listen", true).await;
            assert_eq!(told.next().await, "began");
            call.asks.send_reset(h2::Reason::CANCEL);
            assert!(told.next().await.starts_with("told: "));
            drop(raw);
            process.cancel();
        }
        if host == Host::Ours {
            // The layer's base on tonic's own server stays with it, as it has no end.
            leak.assert_none_within(Duration::from_secs(20));
        }
    }
}

#[tokio::test]
async fn a_request_that_always_has_more_ends_with_its_context() {
    let process = process();
    let canceller = process.canceller();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let read = async move |request: axum::extract::Request| {
        let mut body = request.into_body();
        body.frame().await.expect("more").expect("a frame");
        canceller.cancel_for(Reason::Shutdown);
        tell.send(body.frame().await.expect("more or an error").is_err())
            .expect("the test listens");
    };
    let router = axum::Router::new().route("/", axum::routing::post(read));
    let mut layered = ServerLayer::new().base(&process).layer(router);
    let more = tokio_stream::iter(std::iter::repeat_with(|| Ok::<_, std::io::Error>("more")));
    let request = Request::post("/")
        .header("content-type", "application/grpc")
        .body(axum::body::Body::from_stream(more))
        .expect("a request");
    layered.call(request).await.expect("an answer");
    assert_eq!(told.recv().await, Some(true), "an error, and no more");
}

#[tokio::test]
async fn what_is_not_grpc_passes_untouched() {
    let echo = async |request: axum::extract::Request| {
        assert!(request.extensions().get::<bequest::Context>().is_none());
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        String::from_utf8(body.to_vec()).expect("text") + " back"
    };
    let plain = axum::Router::new().route("/", axum::routing::post(echo));
    let mut layered = ServerLayer::new().layer(plain);
    let request = Request::post("/")
        .header("grpc-timeout", "0S")
        .body("there and".to_owned())
        .expect("a request");
    let answer = layered.call(request).await.expect("an answer");
    assert!(!answer.headers().contains_key("grpc-status"));
    let body = answer.into_body().collect().await.expect("a body");
    assert_eq!(body.to_bytes(), "there and back");
}
