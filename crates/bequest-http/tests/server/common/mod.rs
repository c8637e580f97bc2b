//! What the tests share: a server with a probe as its service, raw clients, a clock moved by hand.

mod clock;
mod http1;
mod http2;
mod probe;
mod server;

pub(crate) use clock::TestClock;
pub(crate) use http1::Http1;
pub(crate) use http2::{Http2, RawHttp2, header_block, http2_bytes};
pub(crate) use probe::{Arrival, Arrivals, Probe, TestBody, full, probe};
pub(crate) use server::{Event, TestServer};
#[cfg(feature = "axum-serve")]
pub(crate) use server::{Events as Recorded, recorder};

use std::future::Future;
use std::time::Duration;

/// Fails a test that hangs. Nothing is measured by it.
pub(crate) async fn guard<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(20), work).await {
        Ok(value) => value,
        Err(_) => panic!("gave up waiting for {what}"),
    }
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    guard(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}
