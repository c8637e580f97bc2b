//! A private Redis server.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, fs};

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
    ports: Ports,
    settings: Vec<OsString>,
    process: Mutex<Process>,
}

/// What a server needs to speak TLS: for [`Redis::start_with_tls`].
///
/// Each in PEM. Where they come from is the test's choice, such as the crate `rcgen`.
#[derive(Clone, Copy)]
pub struct Pem<'a> {
    /// The server's certificate, for `127.0.0.1`.
    pub certificate: &'a str,
    /// Its key.
    pub key: &'a str,
    /// By whom the clients' certificates must be signed; `None`: clients need none.
    pub clients_authority: Option<&'a str>,
}

/// Where one server listens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) plain: u16,
    /// The second port, for TLS or for the other nodes of a cluster; not every server listens there.
    pub(super) other: u16,
}

impl Redis {
    /// Starts the server found in `PATH`, and waits until it answers.
    ///
    /// # Errors
    ///
    /// [`StartError::is_not_installed`], or whatever kept it from starting, with what it said.
    pub fn start() -> Result<Redis, StartError> {
        Redis::start_with(|_, _| Ok(Vec::new()))
    }

    /// Starts a server that speaks TLS at [`tls_address`](Redis::tls_address), and plainly at
    /// [`address`](Redis::address).
    ///
    /// # Errors
    ///
    /// As [`start`](Redis::start); a server that was built without TLS refuses its settings.
    pub fn start_with_tls(pem: Pem<'_>) -> Result<Redis, StartError> {
        Redis::start_with(|ports, folder| {
            let file = |name: &str, text: &str| {
                let path = folder.join(name);
                fs::write(&path, text).map_err(|error| StartError::system("writing a file", error))?;
                Ok(path.into_os_string())
            };
            let mut settings = vec![
                "--tls-port".into(),
                ports.other.to_string().into(),
                "--tls-cert-file".into(),
                file("server.crt", pem.certificate)?,
                "--tls-key-file".into(),
                file("server.key", pem.key)?,
                "--tls-ca-cert-file".into(),
                file("clients.crt", pem.clients_authority.unwrap_or(pem.certificate))?,
                "--tls-auth-clients".into(),
            ];
            settings.push(
                if pem.clients_authority.is_some() {
                    "yes"
                } else {
                    "no"
                }
                .into(),
            );
            Ok(settings)
        })
    }

    /// Starts a server with what `settings` makes of its ports and its folder.
    pub(super) fn start_with(
        settings: impl Fn(Ports, &Path) -> Result<Vec<OsString>, StartError>,
    ) -> Result<Redis, StartError> {
        let program = program::find("redis-server", &[])?;
        let mut process = Process::prepare("redis", &["redis"])?;
        let mut tries = 1;
        loop {
            let [plain, other] = program::free_ports()?;
            let ports = Ports { plain, other };
            let settings = settings(ports, process.folder())?;
            match run(&program, plain, &settings, &mut process) {
                Ok(()) => {
                    return Ok(Redis {
                        program,
                        ports,
                        settings,
                        process: Mutex::new(process),
                    });
                }
                Err(_) if tries < PORTS && is_taken(&process.said()) => tries += 1,
                Err(error) => return Err(error),
            }
        }
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
        (Ipv4Addr::LOCALHOST, self.ports.plain).into()
    }

    /// Where it speaks TLS, if it was started by [`start_with_tls`](Redis::start_with_tls).
    pub fn tls_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.other).into()
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

    /// Starts it again, empty, on the same port; if it runs, it is stopped first. A node of a cluster knows its place
    /// again.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn restart(&self) {
        let mut process = self.process();
        process.stop("TERM");
        if let Err(error) = run(&self.program, self.ports.plain, &self.settings, &mut process) {
            panic!("restarting the Redis server: {error}");
        }
    }

    pub(super) fn ports(&self) -> Ports {
        self.ports
    }

    /// What it answers to a command, as it stands on the wire.
    pub(super) fn tell(&self, command: &str) -> io::Result<String> {
        tell(self.ports.plain, command)
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run(program: &Path, port: u16, settings: &[OsString], process: &mut Process) -> Result<(), StartError> {
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
    let mut arguments: Vec<&OsStr> = arguments
        .iter()
        .flat_map(|(name, value)| [OsStr::new(*name), value])
        .collect();
    arguments.extend(settings.iter().map(OsString::as_os_str));
    let marker = |id| format!("process_id:{id}\r\n");
    process.start(program, &arguments, |id| {
        // Not whoever else may listen there: the one with this process id.
        tell(port, "INFO server").is_ok_and(|text| text.contains(&marker(id)))
    })
}

/// Whether somebody else was quicker to take a port.
fn is_taken(said: &str) -> bool {
    said.contains("in use") || said.contains("Failed listening")
}

/// What the server on `port` answers to `command`.
fn tell(port: u16, command: &str) -> io::Result<String> {
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    socket.set_read_timeout(Some(ANSWER))?;
    socket.write_all(format!("{command}\r\nQUIT\r\n").as_bytes())?;
    let mut text = String::new();
    socket.read_to_string(&mut text)?;
    Ok(text)
}

impl fmt::Debug for Pem<'_> {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pem")
            .field("certificate", &self.certificate)
            .field("clients_authority", &self.clients_authority)
            .finish_non_exhaustive()
    }
}
