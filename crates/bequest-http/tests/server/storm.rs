//! Clients that come and leave at random, on several threads: each request ends exactly once, and nothing is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bequest::Context;
use bequest_http::server::{Disconnect, Limits, RequestBody, Server, service_fn};
use http::Request;

use super::common::{Event, Http1, Http2, TestServer, full, guard, until};

const CLIENTS: u64 = 8;
const ROUNDS: usize = 60;

/// Random numbers that a failing run can repeat: the seed is the client's number.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Lowers the number of live handlers, however they end.
struct Live(Arc<AtomicUsize>);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn http1_client(addr: std::net::SocketAddr, mut dice: Dice) {
    for _ in 0..ROUNDS {
        let mut client = Http1::connect(addr).await;
        client.request("GET", &format!("/{}", dice.roll(4))).await;
        match dice.roll(3) {
            0 => drop(client),
            1 => client.reset(),
            _ => assert_eq!(client.answer().await.status, 200),
        }
    }
}

async fn http2_client(addr: std::net::SocketAddr, mut dice: Dice) {
    let mut client = Http2::connect(addr).await;
    for _ in 0..ROUNDS {
        let stream = client.request(&format!("/{}", dice.roll(4))).await;
        match dice.roll(8) {
            0 => {
                client.leave();
                client = Http2::connect(addr).await;
            }
            1..=4 => stream.reset(),
            _ => assert_eq!(stream.answer().await.expect("an answer").0, 200),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_request_ends_once_and_nothing_is_left() {
    let (begun, live) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let service = service_fn({
        let (begun, live) = (begun.clone(), live.clone());
        move |request: Request<RequestBody>| {
            begun.fetch_add(1, Ordering::SeqCst);
            live.fetch_add(1, Ordering::SeqCst);
            let live = Live(live.clone());
            async move {
                let ctx = request.extensions().get::<Context>().expect("a context").clone();
                // Some answer at once, some a little later, some heed their context and some do not.
                match request.uri().path() {
                    "/0" => {}
                    "/1" => tokio::task::yield_now().await,
                    "/2" => drop(ctx.sleep(Duration::from_millis(2)).await),
                    _ => tokio::time::sleep(Duration::from_millis(2)).await,
                }
                drop(live);
                full("done")
            }
        }
    });
    let limits = Limits {
        lingering: 8,
        lingering_per_connection: 4,
        ..Limits::default()
    };
    let builder = Server::builder()
        .limits(limits)
        .disconnect(Disconnect::Grace(Duration::from_millis(1)));
    let leak = bequest_test::Leak::watch();
    let mut server = TestServer::with(builder, leak.context().clone(), service).await;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|seed| match seed % 2 {
            0 => tokio::spawn(http1_client(server.addr, Dice(seed))),
            _ => tokio::spawn(http2_client(server.addr, Dice(seed))),
        })
        .collect();
    for (seed, client) in clients.into_iter().enumerate() {
        guard("a client", client)
            .await
            .unwrap_or_else(|error| panic!("client with seed {seed}: {error}"));
    }
    until("nothing to be left", || {
        let now = server.statistics.snapshot();
        now.connections + now.requests + now.in_grace + now.detached + live.load(Ordering::SeqCst) == 0
    })
    .await;
    let counted = server.statistics.snapshot();
    let finished = server
        .events
        .rest()
        .iter()
        .filter(|event| matches!(event, Event::Finished { .. }))
        .count();
    let begun = begun.load(Ordering::SeqCst);
    assert_eq!(
        finished as u64,
        begun as u64 + counted.not_begun,
        "each once: {counted:?}"
    );
    assert_eq!(
        finished as u64,
        counted.served + counted.client_gone,
        "{counted:?}"
    );
    assert!(counted.served > 0 && counted.client_gone > 0, "{counted:?}");
    assert_eq!(server.stop().await.unfinished, 0);
    leak.assert_none_within(Duration::from_secs(20));
}
