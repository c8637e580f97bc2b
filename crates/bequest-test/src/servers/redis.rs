//! A private Redis server.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::error::{self, StartError};
use super::process::Process;
use super::program;

/// How often another port is tried, when somebody else was quicker to take one.
const PORTS: usize = 5;
/// How long a server that accepts a connection may take to tell about itself, before it is asked anew.
const ANSWER: Duration = Duration::from_secs(1);

/// A private Redis server, gone when it is dropped.
///
/// It asks for no password and keeps nothing on the disk: what was in it is gone when it ends.
///
/// # Example
///
/// ```
/// use bequest_test::servers::Redis;
/// use std::net::TcpStream;
///
/// let Some(server) = Redis::start_or_leave_out() else { return };
/// assert!(TcpStream::connect(server.address()).is_ok());
/// assert_eq!(server.url(), format!("redis://{}/", server.address()));
///
/// server.kill();
/// assert!(TcpStream::connect(server.address()).is_err());
/// server.restart();
/// assert!(TcpStream::connect(server.address()).is_ok());
/// ```
#[derive(Debug)]
pub struct Redis {
    program: PathBuf,
    port: u16,
    process: Mutex<Process>,
}

impl Redis {
    /// Starts the server found in `PATH`, and waits until it answers.
    ///
    /// # Errors
    ///
    /// [`StartError::is_not_installed`], or whatever kept it from starting, with what it said.
    pub fn start() -> Result<Redis, StartError> {
        let program = program::find("redis-server", &[])?;
        let mut process = Process::prepare("redis", &["redis"])?;
        let mut tries = 1;
        let port = loop {
            let port = program::free_port()?;
            match run(&program, port, &mut process) {
                Ok(()) => break port,
                Err(_) if tries < PORTS && process.said().contains("in use") => tries += 1,
                Err(error) => return Err(error),
            }
        };
        Ok(Redis {
            program,
            port,
            process: Mutex::new(process),
        })
    }

    /// Starts a server, or says on the standard error stream that it is not installed.
    ///
    /// # Panics
    ///
    /// If it is installed and does not start, or is not installed and `BEQUEST_REQUIRE_SERVERS` is `1`.
    pub fn start_or_leave_out() -> Option<Redis> {
        error::or_leave_out("what needs a Redis server", Redis::start())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Its URL.
    pub fn url(&self) -> String {
        self.url_through(self.address())
    }

    /// Its URL by way of `address`, where a proxy listens.
    pub fn url_through(&self, address: SocketAddr) -> String {
        format!("redis://{address}/")
    }

    /// Stops it without ending it (`SIGSTOP`): it hangs, instead of failing. The system still accepts connections for it.
    pub fn freeze(&self) {
        self.process().signal("STOP");
    }

    /// Lets it go on after [`freeze`](Redis::freeze).
    pub fn thaw(&self) {
        self.process().signal("CONT");
    }

    /// Kills it at once (`SIGKILL`), and returns when it is gone.
    pub fn kill(&self) {
        self.process().kill();
    }

    /// Starts it again, empty, on the same port; if it runs, it is stopped first.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn restart(&self) {
        let mut process = self.process();
        process.stop("TERM");
        if let Err(error) = run(&self.program, self.port, &mut process) {
            panic!("restarting the Redis server: {error}");
        }
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run(program: &Path, port: u16, process: &mut Process) -> Result<(), StartError> {
    let port_text = port.to_string();
    let folder = process.folder().to_owned();
    let arguments = [
        ("--port", port_text.as_ref()),
        ("--bind", "127.0.0.1".as_ref()),
        ("--save", "".as_ref()),
        ("--appendonly", "no".as_ref()),
        ("--daemonize", "no".as_ref()),
        ("--dir", folder.as_os_str()),
    ];
    let arguments: Vec<&OsStr> = arguments
        .iter()
        .flat_map(|(name, value)| [OsStr::new(*name), value])
        .collect();
    let marker = |id| format!("process_id:{id}\r\n");
    process.start(program, &arguments, |id| {
        // Not whoever else may listen there: the one with this process id.
        about(port).is_ok_and(|text| text.contains(&marker(id)))
    })
}

/// What the server on `port` tells about itself.
fn about(port: u16) -> io::Result<String> {
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    socket.set_read_timeout(Some(ANSWER))?;
    socket.write_all(b"INFO server\r\nQUIT\r\n")?;
    let mut text = String::new();
    socket.read_to_string(&mut text)?;
    Ok(text)
}
