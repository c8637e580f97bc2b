//! The side that asks.

mod body;
mod layer;

pub use body::{CallBody, SentBody};
pub use layer::{ClientLayer, ClientService};

use super::ended::{Here, MARK};
use super::{BodyEnded, BoxError};
