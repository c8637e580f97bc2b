//! The caller's deadline on a server: visible to the handler, only ever shorter, and over for streams too.

use std::time::Duration;

use bequest_http::grpc::ServerLayer;

use super::desk::Desk;
use super::support::{Host, LAYERED, Raw, process, serve, status};

/// What a handler says of the time it has, in milliseconds.
async fn left(host: Host, layer: ServerLayer, timeout: Option<&str>) -> u64 {
    let (desk, _told) = Desk::new(None);
    let process = process();
    let addr = serve(host, &process, layer, &desk).await;
    let raw = Raw::connect(addr).await;
    let mut answer = raw.call("Unary", timeout, "left", true).await.answer().await;
    let piece = answer.piece().await.expect("a message");
    assert_eq!(status(&answer.trailers().await), 0);
    let text = std::str::from_utf8(&piece[7..]).expect("text");
    text.parse().expect("milliseconds")
}

#[tokio::test]
async fn the_handler_sees_the_callers_deadline() {
    for host in [Host::Ours, Host::Tonics, Host::Bare] {
        let left = left(host, ServerLayer::new(), Some("7S")).await;
        assert!(left <= 7_000 && left > 1_000, "{host:?}: {left}");
    }
}

#[tokio::test]
async fn a_deadline_only_shortens() {
    let layer = || ServerLayer::new().limit(Duration::from_secs(9));
    for host in LAYERED {
        for timeout in [
            None,
            Some("1H"),
            Some("99999999H"),
            Some("-1S"),
            Some("123456789m"),
            Some("x"),
        ] {
            let left = left(host, layer(), timeout).await;
            assert!(left <= 9_000 && left > 3_000, "{host:?} {timeout:?}: {left}");
        }
    }
}

#[tokio::test]
async fn a_caller_that_leaves_no_time_is_refused_before_any_work() {
    for host in [Host::Ours, Host::Tonics, Host::Bare] {
        let (desk, mut told) = Desk::new(None);
        let process = process();
        let addr = serve(host, &process, ServerLayer::new(), &desk).await;
        let raw = Raw::connect(addr).await;
        let answer = raw.call("Unary", Some("0S"), "deaf", true).await.answer().await;
        assert!(answer.is_trailers_only());
        assert_eq!(status(&answer.head), 4, "{host:?}");
        assert!(told.is_silent(), "no handler has begun");
    }
}

#[tokio::test]
async fn a_deaf_handler_is_answered_for_when_the_deadline_passes() {
    for host in [Host::Ours, Host::Tonics, Host::Bare] {
        let (desk, mut told) = Desk::new(None);
        let process = process();
        let layer = ServerLayer::new().grace(Duration::ZERO);
        let addr = serve(host, &process, layer, &desk).await;
        let raw = Raw::connect(addr).await;
        let answer = raw.call("Unary", Some("50m"), "deaf", true).await.answer().await;
        assert!(answer.is_trailers_only(), "{host:?}");
        assert_eq!(status(&answer.head), 4, "{host:?}");
        assert_eq!(answer.head["content-type"], "application/grpc");
        assert_eq!(told.next().await, "began");
        if host == Host::Tonics {
            // The servers' grace of 5 s is not waited for here.
            assert_eq!(told.next().await, "dropped", "after its grace");
        }
    }
}

#[tokio::test]
async fn a_stream_ends_at_the_deadline_with_trailers() {
    for host in [Host::Ours, Host::Tonics, Host::Bare] {
        let (desk, mut told) = Desk::new(None);
        let process = process();
        let addr = serve(host, &process, ServerLayer::new(), &desk).await;
        let raw = Raw::connect(addr).await;
        let mut answer = raw
            .call("Down", Some("700m"), "silent", true)
            .await
            .answer()
            .await;
        assert!(!answer.head.contains_key("grpc-status"));
        answer.piece().await.expect("the first message");
        assert_eq!(told.next().await, "began");
        assert_eq!(status(&answer.trailers().await), 4, "{host:?}");
        assert_eq!(told.next().await, "stream dropped");
    }
}

#[tokio::test]
async fn a_stream_that_always_has_a_message_ends_too() {
    for host in LAYERED {
        let (desk, _told) = Desk::new(None);
        let process = process();
        let addr = serve(host, &process, ServerLayer::new(), &desk).await;
        let raw = Raw::connect(addr).await;
        let mut answer = raw
            .call("Down", Some("700m"), "endless", true)
            .await
            .answer()
            .await;
        answer.piece().await.expect("the first message");
        assert_eq!(status(&answer.trailers().await), 4, "{host:?}");
    }
}

#[tokio::test]
async fn a_handler_that_reads_a_stream_is_ended_by_the_deadline() {
    for host in LAYERED {
        let (desk, mut told) = Desk::new(None);
        let process = process();
        let addr = serve(host, &process, ServerLayer::new(), &desk).await;
        let raw = Raw::connect(addr).await;
        let call = raw.call("Up", Some("300m"), "one", false).await;
        let (answer, _asks) = call.answer_and_asks().await;
        assert_eq!(
            status(&answer.head),
            4,
            "{host:?}: not the status of a broken read"
        );
        assert_eq!(told.next().await, "began");
        let said = told.next().await;
        assert!(said.starts_with("reading failed"), "{host:?}: {said}");
    }
}

#[tokio::test]
async fn a_handler_that_is_always_asked_something_is_ended_too() {
    for host in LAYERED {
        let (desk, mut told) = Desk::new(None);
        let process = process();
        let addr = serve(host, &process, ServerLayer::new(), &desk).await;
        let raw = Raw::connect(addr).await;
        let call = raw.call("Up", Some("300m"), "one", false).await;
        let (answer, asking) = call.answer_while_asking().await;
        assert_eq!(status(&answer.head), 4, "{host:?}");
        assert_eq!(told.next().await, "began");
        assert_eq!(told.next().await, "reading failed: deadline passed", "{host:?}");
        asking.abort();
    }
}

#[tokio::test]
async fn both_directions_end_at_the_deadline() {
    for host in LAYERED {
        let (desk, mut told) = Desk::new(None);
        let process = process();
        let addr = serve(host, &process, ServerLayer::new(), &desk).await;
        let raw = Raw::connect(addr).await;
        let call = raw.call("Both", Some("700m"), "one", false).await;
        let (mut answer, _asks) = call.answer_and_asks().await;
        answer.piece().await.expect("the echo");
        assert_eq!(status(&answer.trailers().await), 4, "{host:?}");
        assert_eq!(told.next().await, "began");
        let said = told.next().await;
        assert!(said.starts_with("reading failed"), "{host:?}: {said}");
    }
}

#[tokio::test]
async fn an_answer_in_time_is_untouched() {
    for host in [Host::Ours, Host::Tonics, Host::Bare] {
        let (desk, _told) = Desk::new(None);
        let process = process();
        let addr = serve(host, &process, ServerLayer::new(), &desk).await;
        let raw = Raw::connect(addr).await;
        let answer = raw
            .call("Unary", Some("20S"), "refuse", true)
            .await
            .answer()
            .await;
        assert_eq!(
            status(&answer.head),
            5,
            "{host:?}: a failure of the handler's own"
        );
        let mut answer = raw.call("Unary", None, "hello", true).await.answer().await;
        answer.piece().await.expect("a message");
        assert_eq!(status(&answer.trailers().await), 0);
    }
}
