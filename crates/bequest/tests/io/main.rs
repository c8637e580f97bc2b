//! Readers and writers that end with their context, each beside the bare one, which does not.

#[cfg(feature = "tokio")]
mod asynchronous;
mod blocking;
