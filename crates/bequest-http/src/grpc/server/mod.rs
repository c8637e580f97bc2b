//! The side that answers.

mod answering;
mod body;
mod call;
mod layer;

pub use answering::Answering;
pub use body::{BrokenOff, RequestBody, ResponseBody};
pub use layer::{ServerLayer, ServerService};

use super::BoxError;
