//! Deadlines that travel: from the caller's headers through the handler into the headers of the next call.
//!
//! # What is on the wire
//!
//! Time travels as what *remains*, never as a point: two clocks do not agree. Four headers are read, one is written.
//!
//! | header | whose | format | read | written |
//! |---|---|---|---|---|
//! | `grpc-timeout` | gRPC | 1 to 8 digits and one of `H M S m u n` | yes | on calls whose content type is gRPC's |
//! | `connect-timeout-ms` | Connect | 1 to 10 digits, milliseconds | yes | no |
//! | `x-envoy-expected-rq-timeout-ms` | Envoy | the same | yes | no |
//! | `bequest-timeout-ms`, or [another name](crate::wire::DeadlineHeaders::other) | ours | the same | yes | otherwise |
//!
//! Of several headers the smallest holds. A header that is malformed, negative, too long or there twice counts as none, and
//! then the server's own limit holds, never *no limit*; [`Unreadable::Refused`](crate::server::Unreadable) answers 400
//! instead. Zero is *no time*: 503 at once.
//!
//! ```
//! use bequest_http::wire::DeadlineHeaders;
//! use http::{HeaderMap, HeaderValue};
//! use std::time::Duration;
//!
//! let told = |text: &'static str| {
//!     let mut headers = HeaderMap::new();
//!     headers.insert("grpc-timeout", HeaderValue::from_static(text));
//!     DeadlineHeaders::default().read(&headers).budget
//! };
//! assert_eq!(told("250m"), Some(Duration::from_millis(250)));
//! assert_eq!(told("0S"), Some(Duration::ZERO), "no time, and not no limit");
//! for malformed in ["-1S", "1.5S", "123456789m", "5", "S", " 5S"] {
//!     assert_eq!(told(malformed), None, "{malformed:?}: as if it were not there");
//! }
//! ```
//!
//! # What a caller may ask for
//!
//! A request's deadline is the earliest of its connection's, the [request limit](crate::server::Limits::request) and the
//! caller's. So a stranger's header can only shorten. It runs from the first byte of the request as far as that is known,
//! so a header that took its time has used it up. [`Inbound`](crate::server::Inbound) says the rest: whether less than some
//! time is worth beginning at all ([`least`](crate::server::Inbound::least)), and whose header may *lengthen* the limit, and
//! how far ([`trusted`](crate::server::Inbound::trusted), [`longest`](crate::server::Inbound::longest)).
//!
//! # What goes out: less, at each hop
//!
//! The [client](crate::wire::Outbound) writes what remains of the context it is given, less a *margin* that is kept for the
//! way back and for the work with the answer; 5 ms unless it is told otherwise. What the margin would take whole is not sent.
//! So the budget falls from hop to hop, and whoever is further down gives up before its caller does, and not after.
//!
//! ```
//! # #[cfg(feature = "client")]
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
//! use bequest::Context;
//! use bequest_http::client::Client;
//! use bequest_http::server::{RequestBody, service_fn};
//! use bequest_http::wire::Outbound;
//! use bequest_http::Server;
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Empty};
//! use std::time::Duration;
//!
//! /// A server that asks `next`, if there is one, and answers what each hop had left, in milliseconds.
//! async fn hop(next: Option<String>) -> String {
//!     let outbound = Outbound { margin: Duration::from_millis(50), ..Outbound::default() };
//!     let client = Client::builder().outbound(outbound).build();
//!     let service = service_fn(move |request: Request<RequestBody>| {
//!         let (client, next) = (client.clone(), next.clone());
//!         async move {
//!             let ctx: Context = request.extensions().get::<Context>().unwrap().clone();
//!             let mut told = ctx.remaining().unwrap().as_millis().to_string();
//!             if let Some(next) = next {
//!                 let call = Request::get(next).body(Empty::<Bytes>::new()).unwrap();
//!                 let answer = client.send(&ctx, call).await.unwrap();
//!                 let answer = answer.into_body().collect().await.unwrap().to_bytes();
//!                 told = format!("{told} {}", std::str::from_utf8(&answer).unwrap());
//!             }
//!             Response::new(told)
//!         }
//!     });
//!     let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
//!     let url = format!("http://{}/", listener.local_addr().unwrap());
//!     tokio::spawn(async move { Server::builder().serve(listener, service, &Context::background()).await });
//!     url
//! }
//!
//! let third = hop(None).await;
//! let second = hop(Some(third)).await;
//! let first = hop(Some(second)).await;
//!
//! let ctx = Context::background().with_timeout(Duration::from_secs(10));
//! let request = Request::get(first).body(Empty::<Bytes>::new()).unwrap();
//! let answer = Client::builder().build().send(&ctx, request).await.unwrap();
//! let told = answer.into_body().collect().await.unwrap().to_bytes();
//! let left: Vec<u64> = std::str::from_utf8(&told).unwrap().split(' ').map(|ms| ms.parse().unwrap()).collect();
//! assert_eq!(left.len(), 3);
//! assert!(left[0] < 10_000, "{left:?}");
//! assert!(left[1] <= left[0] - 50 && left[2] <= left[1] - 50, "each hop has at least the margin less: {left:?}");
//! # });
//! ```
//!
//! Choose the margin of a hop from what its answer costs: what serialising and sending it takes, and a round trip. A margin
//! that is too small shows as answers that are ready when nobody waits for them any more, one that is too large as time that
//! nobody may use.
//!
//! A try of your own has a scope of its own, and its peer is told of that shorter time; see
//! `client::RetryLayer` (feature `client`), which does not try again what has used up the caller's whole budget.
//!
//! # gRPC
//!
//! gRPC has the same idea, with its own header: `grpc-timeout`. Around tonic, `grpc::ServerLayer` (feature `grpc`) makes
//! it the deadline of the call's context, streams included, where the handler sees it, and `grpc::ClientLayer`
//! writes what is left, less the margin. What ends by its deadline is DEADLINE_EXCEEDED, and what is cancelled is CANCELLED,
//! on both sides. This crate's client writes `grpc-timeout` by itself where a request says that it is gRPC:
//!
//! ```
//! use bequest::Context;
//! use bequest_http::wire::{Outbound, parse_grpc_timeout};
//! use http::Request;
//! use std::time::Duration;
//!
//! let ctx = Context::background().with_timeout(Duration::from_secs(2));
//! let call = Request::post("http://billing.test/Invoices/List").header("content-type", "application/grpc+proto");
//! let (mut head, ()) = call.body(()).unwrap().into_parts();
//! Outbound::default().apply(&ctx, &mut head).unwrap();
//! let told = parse_grpc_timeout(head.headers["grpc-timeout"].as_bytes()).unwrap();
//! assert!(told <= Duration::from_millis(1995) && told > Duration::from_secs(1));
//! assert!(!head.headers.contains_key("bequest-timeout-ms"), "one is written, not two");
//! ```
//!
//! # Values and traces: by list, and by direction
//!
//! No value crosses by itself. A key says how its value becomes text and how long that may be
//! ([`Codec`](bequest::Codec)); an [`Allow`](crate::wire::Allow) list says which keys, and which members that this program has
//! no key for, may pass: one list for what comes in (from [trusted](crate::server::Inbound::trusted) callers only), one for
//! what goes out, and one for each destination that is to see more or less. What no list names goes no further.
//!
//! ```
//! use bequest::{Codec, Context, Key};
//! use bequest_http::wire::{Allow, Outbound};
//! use http::{HeaderMap, Request};
//!
//! static TENANT: Key<u32> = Key::new("tenant").crossing(Codec {
//!     encode: u32::to_string,
//!     decode: |text| text.parse().ok(),
//!     limit: 10,
//! });
//!
//! // In: our key, and a member that passes through untouched.
//! let mut headers = HeaderMap::new();
//! headers.insert("baggage", "tenant=7,colour=red,secret=x".parse().unwrap());
//! let ctx = Allow::nothing().key(&TENANT).member("colour").read(&headers, Context::background());
//! assert_eq!(ctx.value(&TENANT), Some(&7));
//!
//! // Out: nothing to strangers, the tenant to the search service.
//! let outbound = Outbound {
//!     baggage_to: vec![("search.test:9000".into(), Allow::nothing().key(&TENANT))],
//!     ..Outbound::default()
//! };
//! let sent = |url: &str| {
//!     let (mut head, ()) = Request::get(url).body(()).unwrap().into_parts();
//!     outbound.apply(&ctx, &mut head).unwrap();
//!     head.headers.get("baggage").map(|value| value.to_str().unwrap().to_owned())
//! };
//! assert_eq!(sent("http://search.test:9000/"), Some("tenant=7".into()));
//! assert_eq!(sent("http://elsewhere.test/"), None);
//! ```
//!
//! Baggage is hostile input: over all lines of a request together, at most 8 192 bytes and 64 members of it are looked at. A
//! value that is longer than its key's limit is refused before its percent-encoding is undone.
//!
//! A trace goes on where [`Inbound::trace`](crate::server::Inbound::trace) and [`Outbound::trace`](crate::wire::Outbound::trace)
//! say so, by W3C Trace Context, level 2: a trusted caller's is continued, any other begins here, and each request that goes
//! out has a span of its own. A `tracestate` goes along in its order; without a well-formed `traceparent`, of which there is
//! one, it goes with the trace. A tracing system adds its note by [`TraceState::with`](crate::wire::TraceState::with), and its
//! decision by [`Trace::sampled_child`](crate::wire::Trace::sampled_child).
//!
//! ```
//! use bequest::Context;
//! use bequest_http::wire::{Outbound, Trace};
//! use http::Request;
//!
//! let trace = Trace::start().sampled_child(true);
//! let trace = trace.clone().with_state(trace.state().with("rojo", "00f067aa0ba902b7").unwrap());
//! let ctx = trace.clone().carried_by(&Context::background());
//!
//! let outbound = Outbound { trace: true, ..Outbound::default() };
//! let (mut head, ()) = Request::get("http://search.test:9000/").body(()).unwrap().into_parts();
//! outbound.apply(&ctx, &mut head).unwrap();
//! let sent = Trace::read(&head.headers).unwrap();
//! assert_eq!(sent.parent().trace_id(), trace.parent().trace_id());
//! assert_ne!(sent.parent().span_id(), trace.parent().span_id(), "the span of this request alone");
//! assert!(sent.parent().is_sampled());
//! assert_eq!(sent.state().as_str(), "rojo=00f067aa0ba902b7");
//! ```
//!
//! # The end travels too
//!
//! A caller that leaves needs no header: its connection closes or its stream is reset, the server's request context ends, and
//! with it every call that was made for it, which closes the next connection, and so on down the chain.
