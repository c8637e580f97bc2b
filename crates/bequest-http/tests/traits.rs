//! What may be sent, shared and printed: a table that fails to compile when it is no longer true.

use std::fmt::Debug;

use bequest_http::{server, wire};

fn shared<T: Send + Sync + Debug>() {}
fn cloned<T: Send + Sync + Debug + Clone>() {}
fn sent<T: Send + Debug>() {}
fn sendable<T: Send>(value: T) -> T {
    value
}

#[test]
fn the_server() {
    sent::<server::Builder>();
    shared::<server::ServeError>();
    shared::<server::Summary>();
    cloned::<server::Limits>();
    cloned::<server::Inbound>();
    cloned::<server::Trusted>();
    cloned::<server::CallerDeadline>();
    cloned::<server::Refusal>();
    cloned::<server::Unreadable>();
    cloned::<server::Disconnect>();
    cloned::<server::DisconnectLayer>();
    cloned::<server::DisconnectService<()>>();
    shared::<server::Layers>();
    cloned::<server::ContextLayer>();
    cloned::<server::ContextService<()>>();
    cloned::<server::ConnInfo>();
    cloned::<server::ListenerInfo>();
    cloned::<server::Peer>();
    cloned::<server::PeerState>();
    cloned::<server::HalfClose>();
    shared::<server::Panic>();
    shared::<server::Place>();
    cloned::<server::Statistics>();
    cloned::<server::Snapshot>();
    cloned::<server::UntilShutdown>();
    cloned::<server::WhyDropped>();
    shared::<server::Upgrade>();
    sent::<server::RequestBody>();
    sent::<server::ResponseBody<String>>();
    cloned::<server::ServiceFn<()>>();
}

#[cfg(feature = "tls")]
#[test]
fn the_servers_tls() {
    cloned::<server::Tls>();
    shared::<server::TlsError>();
    shared::<server::TlsInfo>();
}

#[test]
fn what_it_serves_with_can_be_spawned() {
    let served = |listener, ctx: bequest::Context| async move {
        let hello = server::service_fn(|_: http::Request<server::RequestBody>| async {
            http::Response::new(String::new())
        });
        server::Server::builder().serve(listener, hello, &ctx).await
    };
    // Named, so that it is checked; not run.
    let _ = |listener: tokio::net::TcpListener| sendable(served(listener, bequest::Context::background()));
}

#[test]
fn the_wire() {
    cloned::<wire::Allow>();
    cloned::<wire::Outbound>();
    cloned::<wire::Trace>();
    cloned::<wire::TraceParent>();
    cloned::<wire::TraceState>();
    cloned::<wire::DeadlineHeaders>();
    cloned::<wire::Baggage>();
    cloned::<wire::Member>();
    shared::<wire::TooLittleLeft>();
}

#[cfg(feature = "client")]
#[test]
fn the_client() {
    use bequest_http::client;

    cloned::<client::Client>();
    cloned::<client::Builder>();
    cloned::<client::Limits>();
    cloned::<client::ContextLayer>();
    cloned::<client::ContextService<()>>();
    cloned::<client::Observer>();
    cloned::<client::ConnInfo>();
    cloned::<client::Retry>();
    cloned::<client::RetryLayer>();
    cloned::<client::RetryService<()>>();
    cloned::<client::Replayable>();
    shared::<client::RetryError>();
    shared::<client::Error>();
    cloned::<client::Step>();
    sent::<client::ResponseBody>();
    // Named, so that it is checked; not run.
    let _ = |client: client::Client, request: http::Request<String>| {
        sendable(async move { client.send(&bequest::Context::background(), request).await })
    };
}

#[cfg(all(feature = "client", feature = "tls"))]
#[test]
fn the_clients_tls() {
    cloned::<bequest_http::client::Tls>();
    shared::<bequest_http::client::TlsError>();
}

#[cfg(feature = "grpc")]
#[test]
fn grpc() {
    use bequest_http::grpc;

    cloned::<grpc::ServerLayer>();
    cloned::<grpc::ServerService<()>>();
    cloned::<grpc::ClientLayer<String>>();
    cloned::<grpc::ClientService<(), String>>();
    cloned::<grpc::Ended>();
}
