//! Three services, each asking the next: what the first caller has, and when it leaves, the third knows.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bequest::{CancelScope, Context};
use bequest_http::grpc::ServerLayer;
use bequest_http::wire::Outbound;
use tonic::Code;

use super::desk::{Desk, Next, Told};
use super::support::{Host, LAYERED, ask, calls, calls_keeping, channel, guard, process, serve};
use super::work::work_client::WorkClient;

/// Three services on one kind of server; what the third one says.
async fn chain(host: Host) -> (SocketAddr, Desk, Told, CancelScope) {
    chain_keeping(Outbound::default().margin, host).await
}

/// The same, each of which keeps this much of its time for the answer.
async fn chain_keeping(margin: Duration, host: Host) -> (SocketAddr, Desk, Told, CancelScope) {
    let process = process();
    let next = async |addr: SocketAddr| match host {
        Host::Plain => Next::Plain(channel(addr).await),
        Host::Ours | Host::Tonics | Host::Bare => Next::Under(calls_keeping(margin, addr).await),
    };
    let (third, told) = Desk::new(None);
    let addr = serve(host, &process, ServerLayer::new(), &third).await;
    let (second, _) = Desk::new(Some(next(addr).await));
    let addr = serve(host, &process, ServerLayer::new(), &second).await;
    let (first, _) = Desk::new(Some(next(addr).await));
    let addr = serve(host, &process, ServerLayer::new(), &first).await;
    (addr, third, told, process)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_clients_leaving_ends_the_thirds_work() {
    for host in LAYERED {
        let (addr, third, mut told, _process) = chain(host).await;
        let channel = channel(addr).await;
        let call = tokio::spawn(async move { WorkClient::new(channel).unary(ask("chain thread")).await });
        assert_eq!(told.next().await, "began");
        call.abort();
        let said = told.next().await;
        assert!(said.starts_with("work stopped: "), "{host:?}: {said}");
        third.halt();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_clients_leaving_in_mid_stream_ends_the_thirds_work() {
    for host in LAYERED {
        let (addr, third, mut told, _process) = chain(host).await;
        let mut client = WorkClient::new(channel(addr).await);
        let mut answers = client.down(ask("chain thread")).await.unwrap().into_inner();
        let first = guard("a message through three services", answers.message()).await;
        assert_eq!(first.unwrap().unwrap().text, "one");
        assert_eq!(told.next().await, "began");
        drop(answers);
        let mut said = [told.next().await, told.next().await];
        said.sort();
        assert_eq!(said[0], "stream dropped", "{host:?}: {said:?}");
        assert!(said[1].starts_with("work stopped: "), "{host:?}: {said:?}");
        third.halt();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_in_plain_tonic_neither_the_thirds_work_nor_its_stream_ends() {
    let (addr, third, mut told, _process) = chain(Host::Plain).await;
    let mut client = WorkClient::new(channel(addr).await);
    let mut answers = client.down(ask("chain thread")).await.unwrap().into_inner();
    let first = guard("a message through three services", answers.message()).await;
    assert_eq!(first.unwrap().unwrap().text, "one");
    assert_eq!(told.next().await, "began");
    drop(answers);
    // What hands the messages on waits for the next one, and nobody tells it that nobody waits for that.
    still_working(&third).await;
    assert!(told.is_silent());
    third.halt();
}

/// Waits until the work of a service has gone on for a while.
async fn still_working(desk: &Desk) {
    let then = desk.steps.load(SeqCst);
    guard("the work to go on", async {
        while desk.steps.load(SeqCst) < then + 1_000 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_in_plain_tonic_the_thirds_work_goes_on() {
    let (addr, third, mut told, _process) = chain(Host::Plain).await;
    let channel = channel(addr).await;
    let call = tokio::spawn(async move { WorkClient::new(channel).unary(ask("chain thread")).await });
    assert_eq!(told.next().await, "began");
    call.abort();
    // The handler is dropped without a word, and the work that it began knows nothing of it.
    assert_eq!(told.next().await, "dropped");
    still_working(&third).await;
    assert!(told.is_silent());
    third.halt();
}

#[tokio::test]
async fn the_budget_falls_at_each_hop() {
    for host in LAYERED {
        let (addr, _third, _told, _process) = chain(host).await;
        let caller = Context::background().with_timeout(Duration::from_secs(9));
        let mut client = WorkClient::new(calls(addr).await.under(&caller));
        let said = client.unary(ask("chain left")).await.unwrap().into_inner().text;
        let left: Vec<u64> = said.split(' ').map(|left| left.parse().unwrap()).collect();
        let [first, second, third] = left[..] else {
            panic!("three hops: {said}");
        };
        assert!(first < 9_000 && third > 1_000, "{host:?}: {said}");
        assert!(second + 5 <= first && third + 5 <= second, "{host:?}: {said}");
    }
}

#[tokio::test]
async fn control_in_plain_tonic_the_second_hop_is_told_of_no_deadline() {
    let (addr, _third, _told, _process) = chain(Host::Plain).await;
    let mut request = tonic::Request::new(ask("chain header"));
    request.set_timeout(Duration::from_secs(9));
    let said = WorkClient::new(channel(addr).await).unary(request).await.unwrap();
    assert_eq!(
        said.into_inner().text,
        "none none none",
        "no context anywhere, no header at the third"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_deadline_ends_the_thirds_work_with_one_status_for_all() {
    // So much that no delay of a busy machine lets a caller give up before whom it asks.
    let margin = Duration::from_millis(200);
    for host in LAYERED {
        let (addr, third, mut told, _process) = chain_keeping(margin, host).await;
        let caller = Context::background().with_timeout(Duration::from_secs(2));
        let mut client = WorkClient::new(calls_keeping(margin, addr).await.under(&caller));
        let status = guard("an end", client.unary(ask("chain thread")))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{host:?}: {status:?}");
        assert_eq!(told.next().await, "began");
        assert_eq!(told.next().await, "work stopped: deadline passed", "{host:?}");
        third.halt();
    }
}
