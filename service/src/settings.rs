//! Settings: a flag, then a `BEQUEST_*` variable, then the default. What is not known refuses to start.

use std::ffi::OsStr;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bequest_test::servers::REQUIRE;
use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Parser, Subcommand};
use http::Uri;

use crate::domain::duration::GoDuration;
use crate::log::LogSettings;
use crate::session::settings::SessionSettings;
use crate::store::settings::StoreSettings;
use crate::token::settings::TokenSettings;
use crate::torture::Torture;
use crate::trust::TrustSettings;

/// The reference service of bequest: everything it does stops when nobody wants the answer any more.
///
/// Started without arguments it needs no server, no configuration and no network.
#[derive(Clone, Debug, Parser)]
#[command(name = "bequest", version, max_term_width = 100)]
pub(crate) struct Settings {
    /// Address of the public listener; "stdin" for a listening socket that is inherited as standard input
    #[arg(
        long,
        env = "BEQUEST_LISTEN",
        default_value = "127.0.0.1:8080",
        value_name = "IP:PORT"
    )]
    pub(crate) listen: Listen,

    /// Address of the admin listener: health, metrics, live contexts, the end of a user's sessions. Keep it private
    #[arg(
        long,
        env = "BEQUEST_ADMIN",
        default_value = "127.0.0.1:7070",
        value_name = "IP:PORT"
    )]
    pub(crate) admin: SocketAddr,

    /// Folder of the embedded databases; made at the first start
    #[arg(long, env = "BEQUEST_DATA", default_value = "data", value_name = "FOLDER")]
    pub(crate) data: PathBuf,

    #[command(flatten)]
    pub(crate) stores: StoreSettings,

    /// Search back end to use in place of the embedded one; docs/search-backend.md has its schema
    #[arg(long, env = "BEQUEST_SEARCH", value_name = "URL", value_parser = HttpUrl)]
    pub(crate) search: Option<Uri>,

    #[command(flatten)]
    pub(crate) tokens: TokenSettings,

    #[command(flatten)]
    pub(crate) trust: TrustSettings,

    #[command(flatten)]
    pub(crate) sessions: SessionSettings,

    /// How long a request may take at most
    #[arg(long, env = "BEQUEST_REQUEST_LIMIT", default_value = "30s", value_name = "DURATION", value_parser = positive)]
    pub(crate) request_limit: Duration,

    /// How long a search may take at most; `timeout=` can only shorten it
    #[arg(long, env = "BEQUEST_SEARCH_LIMIT", default_value = "5s", value_name = "DURATION", value_parser = positive)]
    pub(crate) search_limit: Duration,

    /// How long a job may take at most
    #[arg(long, env = "BEQUEST_JOB_LIMIT", default_value = "5m", value_name = "DURATION", value_parser = positive)]
    pub(crate) job_limit: Duration,

    /// How many jobs may run at a time
    #[arg(long, env = "BEQUEST_JOBS", default_value = "16", value_name = "NUMBER")]
    pub(crate) jobs: usize,

    /// After a signal, once the requests have ended: how long jobs may go on before they are told
    #[arg(long, env = "BEQUEST_JOB_DRAIN", default_value = "10s", value_name = "DURATION", value_parser = positive)]
    pub(crate) job_drain: Duration,

    /// After a signal: how long requests may go on before they are told
    #[arg(long, env = "BEQUEST_DRAIN", default_value = "10s", value_name = "DURATION", value_parser = positive)]
    pub(crate) drain: Duration,

    #[command(flatten)]
    pub(crate) log: LogSettings,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// Do not list live contexts
    #[arg(long, env = "BEQUEST_NO_INSPECT")]
    pub(crate) no_inspect: bool,
}

/// What to do in place of serving.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Attack the service's own promises, each beside the naive way
    #[command(subcommand)]
    Torture(Torture),
}

impl Settings {
    /// Reads the command line and the environment. On an error, or for `--help`, it prints and ends the process.
    pub(crate) fn read() -> Settings {
        if let Some(name) =
            unknown_variable(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()))
        {
            // clap ignores variables that no flag names; a misspelt one must not be taken for a default.
            clap::Error::raw(ErrorKind::UnknownArgument, format!("unknown variable {name}\n")).exit();
        }
        let settings = Settings::parse();
        if let Err(error) = settings.stores.check() {
            clap::Error::raw(ErrorKind::ValueValidation, format!("{error}\n")).exit();
        }
        settings
    }
}

/// Where requests come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    /// On a socket that is bound here.
    Address(SocketAddr),
    /// On one that was bound by whoever started this process, and that outlives it: no connection is refused while one
    /// process takes over from another.
    Inherited,
}

impl FromStr for Listen {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Listen, Self::Err> {
        match text {
            "stdin" => Ok(Listen::Inherited),
            address => address.parse().map(Listen::Address),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Address(address) => address.fmt(f),
            Listen::Inherited => f.write_str("stdin"),
        }
    }
}

/// The first variable that begins as ours do and is none of ours. One is the test kit's, and exported by those who run
/// tests: it says nothing of this service.
fn unknown_variable(names: impl Iterator<Item = String>) -> Option<String> {
    use clap::CommandFactory;

    let command = Settings::command();
    let known: Vec<_> = command
        .get_arguments()
        .filter_map(|argument| argument.get_env())
        .collect();
    let is_known = |name: &str| name == REQUIRE || known.iter().any(|known| known.to_str() == Some(name));
    names
        .into_iter()
        .find(|name| name.starts_with("BEQUEST_") && !is_known(name))
}

pub(crate) fn positive(text: &str) -> Result<Duration, String> {
    let span = GoDuration::parse(text)
        .map_err(|error| error.to_string())?
        .to_wait();
    if span.is_zero() {
        Err("it must be longer than nothing".into())
    } else {
        Ok(span)
    }
}

/// Reads the URL of a server that is asked over HTTP, in clear or with TLS.
///
/// Its errors leave the value out, which clap's own would show: somebody may have put a password in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HttpUrl;

impl TypedValueParser for HttpUrl {
    type Value = Uri;

    fn parse_ref(
        &self,
        _command: &clap::Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Uri, clap::Error> {
        let parsed = value.to_str().ok_or("not a URL".into()).and_then(http_url);
        parsed.map_err(|why| {
            let flag = argument.map_or_else(String::new, |argument| format!("{argument}: "));
            clap::Error::raw(ErrorKind::ValueValidation, format!("{flag}{why}\n"))
        })
    }
}

fn http_url(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|error| format!("not a URL: {error}"))?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("http" | "https"), Some(authority)) if authority.as_str().contains('@') => {
            Err("it must name no user and no password: they would not be sent".into())
        }
        (Some("http" | "https"), Some(_)) if uri.query().is_some() => {
            Err("it must have no query: the search adds its own".into())
        }
        (Some("http" | "https"), Some(_)) => Ok(uri),
        (Some(other), _) => Err(format!(
            "only http:// and https:// are spoken here, not {other}://"
        )),
        (None, _) => Err("a URL begins with http:// or https://".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_whole() {
        let settings = Settings::try_parse_from(["bequest"]).unwrap();
        assert_eq!(settings.listen, Listen::Address(([127, 0, 0, 1], 8080).into()));
        assert_eq!(settings.drain, Duration::from_secs(10));
        assert!(settings.search.is_none());
        assert_eq!(settings.sessions.idle, Duration::from_secs(30 * 60));
        assert_eq!(settings.sessions.absolute, Duration::from_secs(12 * 3600));
        assert!(!settings.log.log_personal);
    }

    #[test]
    fn bad_settings_are_refused_with_their_name() {
        for (flag, value, hint) in [
            ("--listen", "everywhere", "--listen"),
            ("--drain", "10", "missing unit"),
            ("--drain", "0s", "longer than nothing"),
            ("--search", "ftp://example.test/", "not ftp://"),
            ("--search", "example.test", "http:// or https://"),
            ("--search", "https://", "--search"),
            ("--search", "https://example.test/?q=1", "no query"),
            ("--issuer", "https://ann@example.test", "no user"),
            ("--colour", "red", "--colour"),
        ] {
            let error = Settings::try_parse_from(["bequest", flag, value])
                .unwrap_err()
                .to_string();
            assert!(error.contains(hint), "{flag} {value}: {error}");
        }
    }

    #[test]
    fn servers_are_asked_in_clear_or_with_tls() {
        for url in ["http://example.test", "https://example.test:8443/search"] {
            let read = Settings::try_parse_from(["bequest", "--search", url, "--issuer", url]).unwrap();
            assert_eq!(read.search, Some(url.parse().unwrap()));
            assert_eq!(read.tokens.issuer, read.search);
        }
    }

    #[test]
    fn a_password_in_a_url_is_not_shown() {
        for url in [
            "https://ann:s3cret@example.test",
            "https://ann:s3cret@example.test/?q",
            "ftp://ann:s3cret@example.test",
            "ann:s3cret@example.test",
            "https://ann:s3 cret@example.test",
        ] {
            for flag in ["--search", "--issuer"] {
                let error = Settings::try_parse_from(["bequest", flag, url]).unwrap_err();
                let error = error.to_string();
                assert!(error.contains(flag) && !error.contains("s3"), "{error}");
            }
        }
    }

    #[test]
    fn a_misspelt_variable_is_found() {
        let names = |names: &[&str]| {
            names
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .into_iter()
        };
        assert_eq!(
            unknown_variable(names(&["PATH", "BEQUEST_LISTEN", REQUIRE])),
            None
        );
        assert_eq!(
            unknown_variable(names(&["BEQUEST_LISTNE"])),
            Some("BEQUEST_LISTNE".into())
        );
        let longer = format!("{REQUIRE}_TOO");
        assert_eq!(unknown_variable(names(&[&longer])), Some(longer));
    }
}
