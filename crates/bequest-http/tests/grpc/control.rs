//! The same calls through plain tonic, without the layers: what they are for.

use std::time::{Duration, Instant};

use bequest_http::grpc::ServerLayer;

use super::desk::Desk;
use super::support::{Host, Raw, process, serve, status};

#[tokio::test]
async fn control_a_deadline_is_answered_with_cancelled() {
    let (desk, mut told) = Desk::new(None);
    let process = process();
    let addr = serve(Host::Plain, &process, ServerLayer::new(), &desk).await;
    let raw = Raw::connect(addr).await;
    let answer = raw.call("Unary", Some("50m"), "deaf", true).await.answer().await;
    assert_eq!(status(&answer.head), 1, "CANCELLED, where nobody cancelled");
    assert_eq!(told.next().await, "began");
    assert_eq!(
        told.next().await,
        "dropped",
        "at once, and without having been told"
    );
}

#[tokio::test]
async fn control_a_stream_goes_on_after_its_deadline() {
    let (desk, _told) = Desk::new(None);
    let process = process();
    let addr = serve(Host::Plain, &process, ServerLayer::new(), &desk).await;
    let raw = Raw::connect(addr).await;
    let asked = Instant::now();
    let mut answer = raw
        .call("Down", Some("50m"), "endless", true)
        .await
        .answer()
        .await;
    while asked.elapsed() < Duration::from_millis(100) {
        answer.piece().await.expect("another message");
    }
    answer
        .piece()
        .await
        .expect("twice its time has passed, and it goes on");
}

#[tokio::test]
async fn control_a_handler_that_reads_a_stream_ends_as_cancelled() {
    let (desk, _told) = Desk::new(None);
    let process = process();
    let addr = serve(Host::Plain, &process, ServerLayer::new(), &desk).await;
    let raw = Raw::connect(addr).await;
    let call = raw.call("Up", Some("50m"), "one", false).await;
    let (answer, _asks) = call.answer_and_asks().await;
    assert_eq!(status(&answer.head), 1);
}
