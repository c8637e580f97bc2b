//! The settings of sessions.

use std::time::Duration;

use clap::Args;

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
}
