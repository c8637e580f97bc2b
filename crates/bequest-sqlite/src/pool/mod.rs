//! The threads and the queues before them: two lanes, one for reading and one for writing.
//!
//! A lane is a first-in-first-out [`Queue`] and the threads that serve it. Nothing here knows SQL; nothing here
//! decides what a job's end means.

mod queue;
mod worker;

pub(crate) use queue::{Job, Queue};
pub(crate) use worker::spawn;
