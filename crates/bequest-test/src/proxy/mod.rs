//! A network that misbehaves on demand: a TCP proxy on loopback, between a client and a server under test.
//!
//! What lives here: a listener, two pumps for each connection, and the [`Faults`] that they are told to commit. What does not:
//! protocols. It moves bytes and knows nothing about them.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use bequest_test::proxy::{Faults, Proxy};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! use tokio::net::{TcpListener, TcpStream};
//!
//! let server = TcpListener::bind("127.0.0.1:0").await?;
//! let proxy = Proxy::start(server.local_addr()?).await?;
//! proxy.to_client(Faults::none().cut_after(3)); // of an answer only three bytes arrive
//!
//! let mut client = TcpStream::connect(proxy.address()).await?;
//! let (mut answering, _) = server.accept().await?;
//! answering.write_all(b"hello").await?;
//! let mut got = Vec::new();
//! client.read_to_end(&mut got).await?;
//! assert_eq!(got, b"hel");
//! # Ok(()) }
//! ```
//!
//! # What may be relied on
//!
//! 1. Bytes of one direction arrive in order, each once, or the connection is at its end.
//! 2. New faults hold at once, also for open connections and for bytes that are on their way.
//! 3. What a black hole has swallowed is kept, and arrives when it is healed, as TCP's own repetition would have it.
//! 4. Jitter comes from a generator seeded by the connection's number: the same run, the same delays.
//! 5. When the proxy is dropped, its port is closed and its connections are.

mod faults;
mod pump;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use pump::pump;

pub use faults::Faults;

/// A TCP proxy on a free loopback port. It passes everything on until it is told otherwise.
///
/// # Example: a server that has gone silent
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use bequest_test::proxy::{Faults, Proxy};
/// use std::time::Duration;
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// use tokio::net::{TcpListener, TcpStream};
///
/// let server = TcpListener::bind("127.0.0.1:0").await?;
/// let proxy = Proxy::start(server.local_addr()?).await?;
/// let mut client = TcpStream::connect(proxy.address()).await?;
/// let (mut answering, _) = server.accept().await?;
///
/// proxy.both(Faults::none().black_hole());
/// answering.write_all(b"late").await?; // taken by the network
/// let mut got = [0; 4];
/// assert!(tokio::time::timeout(Duration::from_millis(20), client.read_exact(&mut got)).await.is_err());
///
/// proxy.both(Faults::none());
/// client.read_exact(&mut got).await?;
/// assert_eq!(&got, b"late");
/// # Ok(()) }
/// ```
pub struct Proxy {
    address: SocketAddr,
    controls: Arc<Controls>,
    listening: JoinHandle<()>,
}

/// What the proxy's handle and its tasks share.
struct Controls {
    to_server: watch::Sender<Faults>,
    to_client: watch::Sender<Faults>,
    /// Counts the resets asked for; a connection ends when it changes.
    resets: watch::Sender<u64>,
    accepted: AtomicU64,
    open: AtomicUsize,
    /// Connections of which the server has not closed its side, and the most of them at once.
    served: AtomicUsize,
    most_served: AtomicUsize,
}

impl Proxy {
    /// Listens on a free port, and passes each connection on to `server`.
    ///
    /// # Errors
    ///
    /// If the system has no port left.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn start(server: SocketAddr) -> io::Result<Proxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let controls = Arc::new(Controls {
            to_server: watch::Sender::default(),
            to_client: watch::Sender::default(),
            resets: watch::Sender::default(),
            accepted: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            served: AtomicUsize::new(0),
            most_served: AtomicUsize::new(0),
        });
        let listening = tokio::spawn(listen(listener, server, Arc::clone(&controls)));
        Ok(Proxy {
            address,
            controls,
            listening,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What happens from now on to the bytes that clients send.
    pub fn to_server(&self, faults: Faults) {
        self.controls.to_server.send_replace(faults);
    }

    /// What happens from now on to the bytes that the server sends.
    pub fn to_client(&self, faults: Faults) {
        self.controls.to_client.send_replace(faults);
    }

    /// What happens from now on to the bytes of both directions.
    pub fn both(&self, faults: Faults) {
        self.to_server(faults);
        self.to_client(faults);
    }

    /// Resets each connection that is open, towards both ends. New ones are accepted.
    pub fn reset(&self) {
        self.controls.resets.send_modify(|number| *number += 1);
    }

    /// How many connections were ever accepted.
    pub fn accepted(&self) -> u64 {
        self.controls.accepted.load(Ordering::Relaxed)
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.controls.open.load(Ordering::Relaxed)
    }

    /// The most connections there ever were at once of which the server had not closed its side. A client that waits for
    /// that end before it makes the next connection is never counted twice.
    pub fn most_served(&self) -> usize {
        self.controls.most_served.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("address", &self.address)
            .field("to_server", &*self.controls.to_server.borrow())
            .field("to_client", &*self.controls.to_client.borrow())
            .field("accepted", &self.accepted())
            .field("open", &self.open())
            .field("most_served", &self.most_served())
            .finish()
    }
}

async fn listen(listener: TcpListener, server: SocketAddr, controls: Arc<Controls>) {
    // Aborted with this task, which owns it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // An error of `accept` is one connection's that left while it waited.
                let Ok((client, _)) = accepted else { continue };
                let number = controls.accepted.fetch_add(1, Ordering::Relaxed);
                connections.spawn(connection(client, server, Arc::clone(&controls), number));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Counted as open while it exists.
struct Open(Arc<Controls>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counted as served while it exists.
struct Served(Arc<Controls>);

impl Served {
    fn begin(controls: &Arc<Controls>) -> Served {
        let now = controls.served.fetch_add(1, Ordering::Relaxed) + 1;
        controls.most_served.fetch_max(now, Ordering::Relaxed);
        Served(Arc::clone(controls))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.0.served.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn connection(client: TcpStream, server: SocketAddr, controls: Arc<Controls>, number: u64) {
    controls.open.fetch_add(1, Ordering::Relaxed);
    let open = Open(controls);
    let controls = &open.0;
    let served = Served::begin(controls);
    let mut resets = controls.resets.subscribe();
    let Ok(server) = TcpStream::connect(server).await else {
        return reset(&client); // as the server itself would have refused
    };
    // Small pieces are sent as they come; without this the kernel would undo the slicing.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut client, mut server) = (client, server);
    let was_reset = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let up = pump(
            from_client,
            to_server,
            controls.to_server.subscribe(),
            2 * number,
            (),
        );
        let down = pump(
            from_server,
            to_client,
            controls.to_client.subscribe(),
            2 * number + 1,
            served,
        );
        tokio::select! {
            _ = async { tokio::try_join!(up, down) } => false,
            _ = resets.changed() => true,
        }
    };
    if was_reset {
        reset(&client);
        reset(&server);
    }
}

/// Has the socket end with a reset when it is dropped, whatever is still on its way.
fn reset(socket: &TcpStream) {
    // A socket that is already gone needs none.
    let _ = socket.set_zero_linger();
}
