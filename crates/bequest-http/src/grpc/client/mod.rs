//! The side that asks.

mod body;
mod layer;

pub use body::CallBody;
pub use layer::{ClientLayer, ClientService};

use super::BoxError;
use super::ended::{Here, MARK};
use crate::client::SentBody;
