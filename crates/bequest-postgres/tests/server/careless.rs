//! A pooler that pools by transaction and passes cancels on too late: what some that are in between do, in the small.
//!
//! It has one connection to the server, which a client has for a transaction, and whoever asks next has after it. Its
//! clients are given cancel keys of its own. It closes the connection of a cancel request as soon as it has read it, as if
//! the cancel had been done, and passes it on when the test says so. It speaks the simple protocol, in which each question has
//! an answer with an end.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// What a packet without a kind begins with: a session, or the cancel of one.
const SESSION: [u8; 4] = 196_608_u32.to_be_bytes();
const CANCEL: [u8; 4] = 80_877_102_u32.to_be_bytes();
const TRANSACTION_OVER: u8 = b'I';

/// A process and its secret, by which a cancel names a session.
type CancelKey = [u8; 8];

/// Which connection to the server a cancel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// The one that its client's session has when the request is passed on; a session that has left has none.
    AtLast,
    /// The one that it had when the request came, whoever has that now.
    AtOnce,
}

/// The pooler, gone when it is dropped.
pub(crate) struct Pooler {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

struct Shared {
    server: SocketAddr,
    named: Named,
    /// The connection to the server: had by one transaction at a time, in the order in which they ask.
    link: tokio::sync::Mutex<Link>,
    state: Mutex<State>,
    sessions: AtomicU64,
}

/// Guarded by `Shared::state`.
#[derive(Default)]
struct State {
    /// The clients' sessions, by the key that each was given, and the key of the server's session that it has.
    sessions: HashMap<CancelKey, Option<CancelKey>>,
    /// Cancels that were taken and not passed on.
    held: Vec<Held>,
}

struct Held {
    session: CancelKey,
    at_once: Option<CancelKey>,
}

/// A session at the server.
struct Link {
    socket: TcpStream,
    key: CancelKey,
    /// What it was told at its beginning, but for the key: it is told to every client.
    greeting: Vec<u8>,
}

impl Pooler {
    pub(crate) async fn start(server: SocketAddr, named: Named) -> Pooler {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            server,
            named,
            link: tokio::sync::Mutex::new(Link::open(server).await.unwrap()),
            state: Mutex::default(),
            sessions: AtomicU64::new(1),
        });
        let listening = tokio::spawn(listen(listener, Arc::clone(&shared)));
        Pooler {
            address,
            shared,
            listening,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.address)
    }

    /// How many cancels it has taken and not passed on.
    pub(crate) fn held(&self) -> usize {
        self.shared.lock().held.len()
    }

    /// Passes on what it has taken, and returns when the server has done it: how many there was somebody to cancel for.
    pub(crate) async fn pass_on(&self) -> usize {
        let named: Vec<CancelKey> = {
            let mut state = self.shared.lock();
            let held = std::mem::take(&mut state.held);
            let now = |held: Held| match self.shared.named {
                Named::AtLast => state.sessions.get(&held.session).copied().flatten(),
                Named::AtOnce => held.at_once,
            };
            held.into_iter().filter_map(now).collect()
        };
        for key in &named {
            let mut socket = TcpStream::connect(self.shared.server).await.unwrap();
            socket.write_all(&packet(CANCEL, key)).await.unwrap();
            assert_eq!(
                socket.read(&mut [0; 1]).await.unwrap(),
                0,
                "the server has done it"
            );
        }
        named.len()
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    async fn open(server: SocketAddr) -> io::Result<Link> {
        let mut socket = TcpStream::connect(server).await?;
        socket
            .write_all(&packet(SESSION, b"user\0postgres\0database\0postgres\0\0"))
            .await?;
        let (mut key, mut greeting) = (CancelKey::default(), Vec::new());
        loop {
            let frame = frame(&mut socket).await?;
            match frame[0] {
                b'K' => key = frame[5..13].try_into().unwrap(),
                b'Z' => break,
                _ => greeting.extend(frame),
            }
        }
        Ok(Link {
            socket,
            key,
            greeting,
        })
    }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    // Aborted with this task, which owns it.
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            // Whoever left is gone, and the session with them.
            let _ = connection(&shared, client).await;
        });
    }
}

/// Noted as long as it exists.
struct Session<'a> {
    shared: &'a Shared,
    key: CancelKey,
}

impl Session<'_> {
    fn has(&self, server: Option<CancelKey>) {
        self.shared.lock().sessions.insert(self.key, server);
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.shared.lock().sessions.remove(&self.key);
    }
}

async fn connection(shared: &Shared, mut client: TcpStream) -> io::Result<()> {
    let length = client.read_u32().await?;
    let mut opening = vec![0; length as usize - 4];
    client.read_exact(&mut opening).await?;
    if opening[..4] == CANCEL {
        let session = opening[4..12].try_into().unwrap();
        let mut state = shared.lock();
        let at_once = state.sessions.get(&session).copied().flatten();
        state.held.push(Held { session, at_once });
        return Ok(());
    }
    let key = shared.sessions.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let session = Session { shared, key };
    session.has(None);
    let mut greeting = shared.link.lock().await.greeting.clone();
    greeting.extend([b'K', 0, 0, 0, 12]);
    greeting.extend(key);
    greeting.extend([b'Z', 0, 0, 0, 5, TRANSACTION_OVER]);
    client.write_all(&greeting).await?;
    loop {
        let mut question = frame(&mut client).await?;
        if question[0] == b'X' {
            return Ok(());
        }
        let mut link = shared.link.lock().await;
        session.has(Some(link.key));
        while answer(&question, &mut link.socket, &mut client).await? != TRANSACTION_OVER {
            question = frame(&mut client).await?;
        }
        session.has(None);
    }
}

/// Has the server answer, and returns the state that it is in then.
async fn answer(question: &[u8], server: &mut TcpStream, client: &mut TcpStream) -> io::Result<u8> {
    assert!(matches!(question[0], b'Q' | b'S'), "each of its own answer");
    server.write_all(question).await?;
    loop {
        let frame = frame(server).await?;
        let is_last = frame[0] == b'Z';
        // The answer is read to its end, also if its client has left.
        let told = client.write_all(&frame).await;
        if is_last {
            return told.map(|()| frame[5]);
        }
    }
}

/// A kind, a length that counts itself, and what it says.
async fn frame(socket: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 5];
    socket.read_exact(&mut frame).await?;
    let length = u32::from_be_bytes(frame[1..5].try_into().unwrap());
    frame.resize(length as usize + 1, 0);
    socket.read_exact(&mut frame[5..]).await?;
    Ok(frame)
}

fn packet(kind: [u8; 4], body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(8 + body.len()).unwrap().to_be_bytes();
    [&length, &kind, body].concat()
}
