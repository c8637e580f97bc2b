//! What a client sees of HTTP/2, on the wire: the same of this server as of hyper's, but where that is said.
//!
//! Each case is played on both, by a client on bare frames, and a third time with a handler that waits before it answers, which
//! takes another way through this server. The case says what the client is to see. What the protocol makes of time is not
//! compared: how data was cut, and when windows were opened; a case whose subject that is has its own conditions.

mod answers;
mod blocks;
mod body;
mod client;
mod connect;
mod connections;
mod control;
mod crowds;
mod errors;
mod failures;
mod faults;
mod heads;
mod record;
mod requests;
mod resets;
mod stage;
mod traffic;
mod tunnels;
mod windows;
