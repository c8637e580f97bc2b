//! What the tests share: a server with a probe as its service, raw clients, a clock moved by hand.

mod clock;
mod http1;
mod http2;
mod probe;
mod server;

pub(crate) use clock::TestClock;
pub(crate) use http1::Http1;
pub(crate) use http2::{Frame, Http2, RawHttp2, Stream, header_block, http2_bytes};
#[cfg(feature = "axum-serve")]
pub(crate) use probe::probe_of;
pub(crate) use probe::{Arrival, Arrivals, Probe, TestBody, full, probe};
pub(crate) use server::{Event, TestServer};
#[cfg(feature = "axum-serve")]
pub(crate) use server::{Events as Recorded, recorder};

use std::future::Future;
use std::time::Duration;

use bequest::Context;
use bequest_http::server::{Builder, Server};
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::sync::mpsc::{self, UnboundedReceiver};

/// Fails a test that hangs. Nothing is measured by it.
pub(crate) async fn guard<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(20), work).await {
        Ok(value) => value,
        Err(_) => panic!("gave up waiting for {what}"),
    }
}

/// A builder that tells of the context of each connection.
pub(crate) fn telling_of_connections() -> (Builder, UnboundedReceiver<Context>) {
    let (tell, told) = mpsc::unbounded_channel();
    let builder = Server::builder().conn_context(move |ctx, _| {
        tell.send(ctx.clone()).expect("the test listens");
        ctx
    });
    (builder, told)
}

/// The writing end of a body.
type Writer = http_body_util::channel::Sender<Bytes, std::io::Error>;

/// Begins an answer whose body is yet to be written.
pub(crate) fn begin_answer(arrival: &mut Arrival) -> Writer {
    let (writer, body) = http_body_util::channel::Channel::new(1);
    arrival.answer(http::Response::new(body.map_err(Into::into).boxed_unsync()));
    writer
}

/// Writes until the socket refuses: then the body is dropped, and its writer fails.
pub(crate) async fn until_a_write_fails(mut writer: Writer) {
    let chunk = Bytes::from(vec![b'x'; 1 << 16]);
    guard("a write to fail", async {
        while writer.send_data(chunk.clone()).await.is_ok() {}
    })
    .await;
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
