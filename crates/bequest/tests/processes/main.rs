//! Child processes beyond Go's rows: the group, the pipes, the runtime, and nothing left over. Unix only.

#![cfg(unix)]

#[path = "../support/children.rs"]
mod children;

mod drops;
mod group;
mod pipes;
mod start;
