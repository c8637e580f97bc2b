//! A private PostgreSQL server.

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::error::{self, StartError};
use super::process::Process;
use super::program;

/// How often another port is tried, when somebody else was quicker to take one.
const PORTS: usize = 5;

/// A private PostgreSQL server, gone when it is dropped.
///
/// Its one user is `postgres`, who needs no password, and its database `postgres`. It allows 200 connections.
///
/// # Example
///
/// ```
/// use bequest_test::servers::Postgres;
/// use std::net::TcpStream;
///
/// let Some(server) = Postgres::start_or_leave_out() else { return };
/// assert!(TcpStream::connect(server.address()).is_ok());
/// assert!(server.url().starts_with("postgres://postgres@127.0.0.1:"));
///
/// server.kill();
/// assert!(TcpStream::connect(server.address()).is_err());
/// server.restart();
/// assert!(TcpStream::connect(server.address()).is_ok());
/// ```
#[derive(Debug)]
pub struct Postgres {
    program: PathBuf,
    port: u16,
    /// It has a certificate.
    speaks_tls: bool,
    process: Mutex<Process>,
}

/// The files of a server that speaks TLS, in its data folder.
const CERTIFICATE: &str = "server.crt";
const KEY: &str = "server.key";

impl Postgres {
    /// Starts a server of the newest version found in `PATH` or among Debian's folders, and waits until it accepts
    /// connections.
    ///
    /// # Errors
    ///
    /// [`StartError::is_not_installed`], or whatever kept it from starting, with what it said.
    pub fn start() -> Result<Postgres, StartError> {
        Postgres::begin(None)
    }

    /// As [`start`](Postgres::start), one that speaks TLS, with this certificate and its key (both as PEM). It does not
    /// insist: clients may come without.
    ///
    /// # Errors
    ///
    /// As there; if the files can not be written.
    pub fn start_with_tls(certificate: &str, key: &str) -> Result<Postgres, StartError> {
        Postgres::begin(Some((certificate, key)))
    }

    fn begin(tls: Option<(&str, &str)>) -> Result<Postgres, StartError> {
        let folders = program::versions(Path::new("/usr/lib/postgresql"), "bin");
        let initialize = program::find("initdb", &folders)?;
        let program = program::find("postgres", &folders)?;

        let mut process = Process::prepare("postgres", &["postgres"])?;
        let data = process.folder().join("data");
        let arguments: [&OsStr; 8] = [
            "--pgdata".as_ref(),
            data.as_os_str(),
            "--no-sync".as_ref(),
            "--auth=trust".as_ref(),
            "--no-locale".as_ref(),
            "--encoding=UTF8".as_ref(),
            "--username=postgres".as_ref(),
            "--no-instructions".as_ref(),
        ];
        process.run(&initialize, &arguments)?;
        if let Some((certificate, key)) = tls {
            process.write(&data.join(CERTIFICATE), certificate)?;
            process.write(&data.join(KEY), key)?;
        }

        let mut tries = 1;
        let port = loop {
            let port = program::free_port()?;
            match run(&program, port, tls.is_some(), &mut process) {
                Ok(()) => break port,
                Err(_) if tries < PORTS && process.said().contains("could not bind") => tries += 1,
                Err(error) => return Err(error),
            }
        };
        Ok(Postgres {
            program,
            port,
            speaks_tls: tls.is_some(),
            process: Mutex::new(process),
        })
    }

    /// Starts a server, or says on the standard error stream that it is not installed.
    ///
    /// # Panics
    ///
    /// If it is installed and does not start, or is not installed and `BEQUEST_REQUIRE_SERVERS` is `1`.
    pub fn start_or_leave_out() -> Option<Postgres> {
        error::or_leave_out("what needs a PostgreSQL server", Postgres::start())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The URL of its database.
    pub fn url(&self) -> String {
        self.url_through(self.address())
    }

    /// The URL of its database by way of `address`, where a proxy listens.
    pub fn url_through(&self, address: SocketAddr) -> String {
        format!("postgres://postgres@{address}/postgres")
    }

    /// Stops all its processes without ending them (`SIGSTOP`): it hangs, instead of failing. The system still accepts
    /// connections for it.
    pub fn freeze(&self) {
        self.process().signal("STOP");
    }

    /// Lets it go on after [`freeze`](Postgres::freeze).
    pub fn thaw(&self) {
        self.process().signal("CONT");
    }

    /// Kills all its processes at once (`SIGKILL`), and returns when they are gone.
    pub fn kill(&self) {
        self.process().kill();
    }

    /// Starts it again on the same port with the same files; if it runs, it is stopped first, and tells its clients.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn restart(&self) {
        let mut process = self.process();
        process.stop("INT");
        if let Err(error) = run(&self.program, self.port, self.speaks_tls, &mut process) {
            panic!("restarting the PostgreSQL server: {error}");
        }
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run(program: &Path, port: u16, speaks_tls: bool, process: &mut Process) -> Result<(), StartError> {
    let data = process.folder().join("data");
    let port = format!("port={port}");
    let mut settings = vec![
        port.as_str(),
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "fsync=off",
        "synchronous_commit=off",
        "full_page_writes=off",
        "max_connections=200",
        "shared_buffers=16MB",
        "autovacuum=off",
    ];
    if speaks_tls {
        settings.push("ssl=on"); // with files of the names above, which are the server's own choice
    }
    let mut arguments = vec![OsStr::new("-D"), data.as_os_str()];
    for setting in &settings {
        arguments.extend([OsStr::new("-c"), OsStr::new(*setting)]);
    }
    let lock_file = data.join("postmaster.pid");
    process.start(program, &arguments, |id| is_ready(&lock_file, id))
}

/// The server writes its process id into the first line of its lock file and its state into the eighth.
fn is_ready(lock_file: &Path, id: u32) -> bool {
    let Ok(text) = fs::read_to_string(lock_file) else {
        return false; // not written yet
    };
    let mut lines = text.lines();
    lines.next() == Some(&id.to_string()) && lines.nth(6).is_some_and(|state| state.trim() == "ready")
}
