//! The settings of sessions.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::settings::positive;

/// How long sessions last.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct SessionSettings {
    /// A session that nobody uses for this long is over
    #[arg(long = "session-idle", env = "BEQUEST_SESSION_IDLE", default_value = "30m", value_name = "DURATION", value_parser = positive)]
    pub(crate) idle: Duration,

    /// A session is over after this long, however busy it is
    #[arg(long = "session-absolute", env = "BEQUEST_SESSION_ABSOLUTE", default_value = "12h", value_name = "DURATION", value_parser = positive)]
    pub(crate) absolute: Duration,

    /// How long a session stays in the cache after it was last read
    #[arg(long = "session-ttl", env = "BEQUEST_SESSION_TTL", default_value = "5m", value_name = "DURATION", value_parser = positive)]
    pub(crate) ttl: Duration,

    /// The status for whoever needs a session and has none
    #[arg(
        long,
        env = "BEQUEST_NO_SESSION",
        default_value = "403",
        value_name = "STATUS"
    )]
    pub(crate) no_session: NoSessionStatus,
}

/// What a client is told that needs a session and has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum NoSessionStatus {
    /// Forbidden
    #[value(name = "403")]
    Forbidden,
    /// Unauthorized, with a challenge
    #[value(name = "401")]
    Unauthorized,
}
