//! The settings of the logs.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::access::Format;
use super::errors::Which;
use super::sink::Open;

/// Where the logs go, and what is in them.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LogSettings {
    /// File of the access log; standard output without it. Reopened on SIGHUP
    #[arg(long, env = "BEQUEST_ACCESS_LOG", value_name = "FILE")]
    pub(crate) access_log: Option<PathBuf>,

    /// How the lines of the access log end
    #[arg(
        long,
        env = "BEQUEST_ACCESS_FORMAT",
        value_name = "FORMAT",
        default_value = "combined"
    )]
    pub(crate) access_format: Format,

    /// File of the error log; standard error without it. Reopened on SIGHUP
    #[arg(long, env = "BEQUEST_ERROR_LOG", value_name = "FILE")]
    pub(crate) error_log: Option<PathBuf>,

    /// Which answers get a line in the error log
    #[arg(
        long,
        env = "BEQUEST_ERROR_LINES",
        value_name = "WHICH",
        default_value = "non200"
    )]
    pub(crate) error_lines: Which,

    /// Log gender and age of a session too
    #[arg(long, env = "BEQUEST_LOG_PERSONAL")]
    pub(crate) log_personal: bool,
}

impl LogSettings {
    /// Whether any log goes to a file of its own.
    pub(crate) fn has_files(&self) -> bool {
        self.access_log.is_some() || self.error_log.is_some()
    }

    pub(super) fn open_access(&self) -> Open {
        match self.access_log.clone() {
            Some(path) => Box::new(move || append(&path)),
            None => Box::new(|| Ok(Box::new(io::stdout()))),
        }
    }

    pub(super) fn open_errors(&self) -> Open {
        match self.error_log.clone() {
            Some(path) => Box::new(move || append(&path)),
            None => Box::new(|| Ok(Box::new(io::stderr()))),
        }
    }
}

/// Opens a log file for its owner and group: lines say who asked for what.
pub(super) fn append(path: &Path) -> io::Result<Box<dyn Write + Send>> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
    let file = options.open(path);
    let file = file.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    Ok(Box::new(file))
}
