//! The formats of the wire: written down by hand, with random inputs against naive models, and under hostile ones.
//!
//! A random test prints its seed; `BEQUEST_SEED=…` repeats it.

mod baggage;
mod random;
mod timeout;
mod trace;
