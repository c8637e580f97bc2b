//! The manual of the edges: chapters of prose with examples that are tested. There is no code in here.
//!
//! The core has chapters of its own, in `bequest::manual`: on deadlines within a process, values, cancel safety.
//!
//! | chapter | read it |
//! |---|---|
//! | [`travelling`] | when a deadline, a trace or a value is to reach the next process, or comes from one |

pub mod travelling;
