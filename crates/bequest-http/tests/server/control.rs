//! The negative control: the same handler on `axum::serve`, that is on hyper alone, is dropped without being told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::routing::get;
use bequest::{Context, Reason};
use http::Request;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::common::{Http1, TestServer, guard, until};

#[derive(Clone)]
struct Watch {
    began: mpsc::UnboundedSender<()>,
    tidied: Arc<AtomicBool>,
    dropped: Arc<AtomicBool>,
}

struct OnDrop(Arc<AtomicBool>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A handler that waits for the end of whatever context it is given and then tidies up.
async fn handler(watch: Watch, ctx: Context) -> &'static str {
    let on_drop = OnDrop(watch.dropped.clone());
    watch.began.send(()).expect("the test listens");
    ctx.done().await;
    watch.tidied.store(true, Ordering::SeqCst);
    drop(on_drop);
    "to nobody"
}

fn watch() -> (Watch, mpsc::UnboundedReceiver<()>) {
    let (began, begun) = mpsc::unbounded_channel();
    (
        Watch {
            began,
            tidied: Arc::default(),
            dropped: Arc::default(),
        },
        begun,
    )
}

fn router(watch: Watch) -> Router {
    Router::new().route(
        "/",
        get(move |request: Request<axum::body::Body>| {
            let ctx = request.extensions().get::<Context>().cloned();
            // Without our server there is no context but the background, which nobody ends.
            handler(watch, ctx.unwrap_or_else(Context::background))
        }),
    )
}

#[tokio::test]
async fn on_this_server_the_handler_is_told_and_tidies_up() {
    let (watch, mut begun) = watch();
    let server = TestServer::start(router(watch.clone())).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    guard("the handler", begun.recv()).await;
    drop(client);
    until("the tidying up", || watch.tidied.load(Ordering::SeqCst)).await;
    assert_eq!(server.stop().await.statistics.client_gone, 1);
}

#[tokio::test]
async fn on_hyper_alone_the_handler_is_dropped_untold() {
    let (watch, mut begun) = watch();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let server = tokio::spawn(axum::serve(listener, router(watch.clone())).into_future());
    let mut client = Http1::connect(addr).await;
    client.request("GET", "/").await;
    guard("the handler", begun.recv()).await;
    drop(client);
    until("the drop", || watch.dropped.load(Ordering::SeqCst)).await;
    assert!(!watch.tidied.load(Ordering::SeqCst), "nobody told it");
    server.abort();
}

#[tokio::test]
async fn the_reason_is_the_same_through_a_router() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let app = Router::new().route(
        "/",
        get(move |request: Request<axum::body::Body>| async move {
            let ctx = request.extensions().get::<Context>().expect("a context").clone();
            tell.send(ctx.clone()).expect("the test listens");
            ctx.done().await;
        }),
    );
    let server = TestServer::start(app).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    let ctx = guard("the handler", told.recv()).await.expect("a context");
    drop(client);
    assert_eq!(guard("the end", ctx.done()).await.reason(), Reason::ClientGone);
}
