//! A private PgBouncer before a private PostgreSQL server.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use super::error::{self, StartError};
use super::postgres::Postgres;
use super::process::Process;
use super::program;

/// How often another port is tried, when somebody else was quicker to take one.
const PORTS: usize = 5;

/// A private PgBouncer before a [`Postgres`], gone when it is dropped.
///
/// It has **one** connection to the server, so that who has it next is certain, and lets in whoever comes.
///
/// # Example
///
/// ```
/// use bequest_test::servers::{PgBouncer, Pooling, Postgres};
/// use std::net::TcpStream;
///
/// let Some(server) = Postgres::start_or_leave_out() else { return };
/// let Some(pooler) = PgBouncer::start_or_leave_out(&server, Pooling::Transaction) else { return };
/// assert!(TcpStream::connect(pooler.address()).is_ok());
/// assert_ne!(pooler.url(), server.url());
/// ```
pub struct PgBouncer {
    port: u16,
    pooling: Pooling,
    /// Ends with it.
    _process: Process,
}

/// For how long a client of a pooler has a connection to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Until it leaves.
    Session,
    /// Until the end of its transaction.
    Transaction,
}

impl PgBouncer {
    /// Starts the one found in `PATH` or in `/usr/sbin`, and waits until it accepts connections.
    ///
    /// # Errors
    ///
    /// [`StartError::is_not_installed`], or whatever kept it from starting, with what it said.
    pub fn start(server: &Postgres, pooling: Pooling) -> Result<PgBouncer, StartError> {
        let program = program::find("pgbouncer", &[PathBuf::from("/usr/sbin")])?;
        let mut process = Process::prepare("pgbouncer", &["postgres"])?;
        for tries in 1.. {
            let port = program::free_port()?;
            let settings = process.folder().join(format!("{port}.ini"));
            let id_file = process.folder().join(format!("{port}.pid"));
            process.write(&settings, &text(server.address(), port, pooling, &id_file))?;
            let arguments: [&OsStr; 2] = ["--quiet".as_ref(), settings.as_os_str()];
            match process.start(&program, &arguments, |id| is_ready(&id_file, id, port)) {
                Ok(()) => {
                    return Ok(PgBouncer {
                        port,
                        pooling,
                        _process: process,
                    });
                }
                Err(_) if tries < PORTS && process.said().contains("in use") => {}
                Err(error) => return Err(error),
            }
        }
        unreachable!("the last try returns")
    }

    /// Starts it, or says on the standard error stream that it is not installed.
    ///
    /// # Panics
    ///
    /// If it is installed and does not start, or is not installed and `BEQUEST_REQUIRE_SERVERS` is `1`.
    pub fn start_or_leave_out(server: &Postgres, pooling: Pooling) -> Option<PgBouncer> {
        error::or_leave_out("what needs a PgBouncer", PgBouncer::start(server, pooling))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The URL of the server's database by way of it.
    pub fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.address())
    }
}

impl fmt::Debug for PgBouncer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgBouncer")
            .field("address", &self.address())
            .field("pooling", &self.pooling)
            .finish_non_exhaustive()
    }
}

fn text(server: SocketAddr, port: u16, pooling: Pooling, id_file: &Path) -> String {
    let mode = match pooling {
        Pooling::Session => "session",
        Pooling::Transaction => "transaction",
    };
    format!(
        "[databases]\n* = host={} port={} user=postgres\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
         pool_mode = {mode}\ndefault_pool_size = 1\nlog_connections = 0\nlog_disconnections = 0\npidfile = {}\n",
        server.ip(),
        server.port(),
        id_file.display()
    )
}

/// Not whoever else may listen there: it writes its process id into its file.
fn is_ready(id_file: &Path, id: u32, port: u16) -> bool {
    let is_it = fs::read_to_string(id_file).is_ok_and(|text| text.trim() == id.to_string());
    is_it && TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}
