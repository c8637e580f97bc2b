//! Errors by which a node says that it has not run a command, and what to do instead.

use redis::{RedisError, ServerError, ServerErrorKind};

use super::slot::Address;

/// What is to be done with a command that a node did not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Redirect {
    /// To send it there: the slot has moved. Unknown if the node does not know the address.
    Moved(Option<Address>),
    /// To send it there this once, asking: the slot is moving, and the key is there already or new.
    Ask(Address),
    /// To send it again a little later: the slot is moving, and the keys are neither here nor there.
    Again,
    /// To ask who has the slot, and to send it again: the node is not the one any more, or the cluster has lost one.
    Stale,
}

impl Redirect {
    /// What an error means that `asked`, a host, has answered; `None` if it is the answer.
    pub(crate) fn of(error: &RedisError, asked: &str) -> Option<Redirect> {
        let errors = error.clone().into_server_errors()?;
        errors
            .iter()
            .find_map(|(_, error)| Redirect::of_one(error, asked))
    }

    /// Whether it says where to go.
    pub(crate) fn has_directions(&self) -> bool {
        matches!(self, Redirect::Moved(Some(_)) | Redirect::Ask(_))
    }

    pub(crate) fn of_one(error: &ServerError, asked: &str) -> Option<Redirect> {
        // `MOVED slot host:port`, and the driver has taken the first word off.
        let address = || {
            let text = error.details()?.split_ascii_whitespace().nth(1)?;
            Address::parse(text, asked)
        };
        match error.kind() {
            Some(ServerErrorKind::Moved) => Some(Redirect::Moved(address())),
            Some(ServerErrorKind::Ask) => Some(address().map_or(Redirect::Again, Redirect::Ask)),
            Some(ServerErrorKind::TryAgain) => Some(Redirect::Again),
            Some(
                ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::BusyLoading
                | ServerErrorKind::ReadOnly,
            ) => Some(Redirect::Stale),
            // A blocked command that the server has let go, since the node became a replica. It took nothing.
            None if error.code() == "UNBLOCKED" => Some(Redirect::Stale),
            _ => None,
        }
    }
}
