//! Ends on a server that are no deadline: cancelled, shut down, left by the caller, and what is not gRPC at all.

use std::time::Duration;

use bequest::Reason;
use bequest_http::grpc::ServerLayer;
use http::Request;
use http_body_util::BodyExt;
use tower_layer::Layer;
use tower_service::Service;

use super::support::{Desk, Host, LAYERED, Raw, process, serve, status};

#[tokio::test]
async fn cancelled_and_shut_down_are_told_apart() {
    for (reason, expected) in [(Reason::Explicit, 1), (Reason::Shutdown, 14)] {
        let (desk, mut told) = Desk::new(None);
        let process = process();
        let layer = ServerLayer::new().grace(Duration::ZERO);
        let addr = serve(Host::Tonics, &process, layer, &desk).await;
        let raw = Raw::connect(addr).await;
        let call = raw.call("Unary", None, "deaf", true).await;
        let mut stream = raw.call("Down", None, "silent", true).await.answer().await;
        let mut said = [told.next().await, told.next().await];
        said.sort();
        assert_eq!(said, ["began", "began"]);
        process.cancel_for(reason);
        assert_eq!(status(&call.answer().await.head), expected, "{reason}");
        assert_eq!(status(&stream.trailers().await), expected, "{reason}");
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
    }
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
