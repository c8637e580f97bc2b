//! What travels from process to process in headers: how much time is left, which trace it belongs to, which values go along.
//!
//! Here live the formats, both ways, and the caps on them: no socket, no clock, no task. What a server takes from whom is
//! decided by [`Inbound`](crate::server::Inbound), what a client sends to whom by [`Outbound`].
//!
//! | header | read | written |
//! |---|---|---|
//! | `grpc-timeout` | yes | to requests whose content type is gRPC's |
//! | `connect-timeout-ms`, `x-envoy-expected-rq-timeout-ms` | yes | no |
//! | `bequest-timeout-ms`, or another name | yes | yes |
//! | `traceparent`, `tracestate` (W3C Trace Context, level 2) | if switched on | if switched on |
//! | `baggage` (W3C Baggage) | the members allowed | the members allowed |
//!
//! # Invariants
//!
//! 1. Time is relative. No absolute time is read or written, so that no clock needs to be right.
//! 2. A deadline header never means *no deadline*: what cannot be read is no header, and zero is no time.
//! 3. The work on a header is bounded before it begins: no byte beyond a format's cap is looked at, whoever sends it.
//! 4. Values cross only if their key says how ([`Codec`](bequest::Codec)) and a list allows it ([`Allow`]).

mod allow;
mod baggage;
pub(crate) mod grpc;
mod outbound;
mod timeout;
mod trace;
mod trace_state;

pub use allow::Allow;
pub use baggage::{Baggage, BaggageReading, MAX_BYTES, MAX_MEMBERS, Member};
pub use outbound::{DeadlineHeader, Outbound, TooLittleLeft};
pub use timeout::{
    DEADLINE_HEADER, DeadlineHeaders, DeadlineReading, encode_grpc_timeout, encode_milliseconds,
    parse_grpc_timeout, parse_milliseconds,
};
pub use trace::{Trace, TraceParent};
pub use trace_state::TraceState;
