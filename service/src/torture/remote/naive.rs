//! Clients as one writes them on the first day: a pool of connections that takes back whatever it is given.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bequest_postgres::tokio_postgres::Config;
use bytes::BytesMut;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::Failure;

/// How the bytes of one kind of server are written and read.
pub(super) trait Protocol: fmt::Debug + Send + Sync {
    fn connect(&self) -> impl Future<Output = io::Result<Wire>> + Send;

    /// Asks, and reads the whole answer, unless it is dropped half-way.
    fn ask(&self, wire: &mut Wire, question: &str)
    -> impl Future<Output = io::Result<Option<String>>> + Send;
}

/// A connection and what was read from it in advance.
#[derive(Debug)]
pub(super) struct Wire {
    socket: TcpStream,
    read: BytesMut,
}

/// A pool that does not look at what it is given back.
#[derive(Debug)]
pub(super) struct NaivePool<P: Protocol> {
    protocol: P,
    idle: Mutex<Vec<Wire>>,
}

/// Gives its connection back when it is dropped, in whatever state.
struct Borrowed<'a, P: Protocol> {
    pool: &'a NaivePool<P>,
    wire: Option<Wire>,
}

/// Redis, by its inline commands.
#[derive(Debug)]
pub(super) struct Redis(SocketAddr);

/// Postgres, by simple queries.
#[derive(Debug)]
pub(super) struct Postgres {
    address: SocketAddr,
    user: String,
    database: String,
    options: String,
}

impl<P: Protocol> NaivePool<P> {
    pub(super) fn new(protocol: P) -> Arc<NaivePool<P>> {
        Arc::new(NaivePool {
            protocol,
            idle: Mutex::default(),
        })
    }

    pub(super) async fn ask(&self, question: &str) -> io::Result<Option<String>> {
        let idle = self.idle().pop();
        let wire = match idle {
            Some(wire) => wire,
            None => self.protocol.connect().await?,
        };
        wire.socket.set_nodelay(true)?;
        let mut borrowed = Borrowed {
            pool: self,
            wire: Some(wire),
        };
        match &mut borrowed.wire {
            Some(wire) => self.protocol.ask(wire, question).await,
            None => Ok(None),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Wire>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P: Protocol> Drop for Borrowed<'_, P> {
    fn drop(&mut self) {
        self.pool.idle().extend(self.wire.take());
    }
}

impl Wire {
    async fn connect(address: SocketAddr) -> io::Result<Wire> {
        Ok(Wire {
            socket: TcpStream::connect(address).await?,
            read: BytesMut::new(),
        })
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.socket.read_buf(&mut self.read).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// The next line.
    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.read.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.read.split_to(end + 2);
                return String::from_utf8(line[..end].to_vec()).map_err(io::Error::other);
            }
            self.more().await?;
        }
    }

    /// The next message.
    async fn message(&mut self) -> io::Result<Message> {
        loop {
            if let Some(message) = Message::parse(&mut self.read)? {
                return Ok(message);
            }
            self.more().await?;
        }
    }
}

impl Redis {
    pub(super) fn new(address: SocketAddr) -> Redis {
        Redis(address)
    }
}

impl Protocol for Redis {
    async fn connect(&self) -> io::Result<Wire> {
        Wire::connect(self.0).await
    }

    async fn ask(&self, wire: &mut Wire, key: &str) -> io::Result<Option<String>> {
        wire.socket.write_all(format!("GET {key}\r\n").as_bytes()).await?;
        let length = wire.line().await?;
        if !length.starts_with('$') {
            return Err(io::Error::other(length));
        }
        wire.line().await.map(Some)
    }
}

impl Postgres {
    /// # Errors
    ///
    /// It knows no passwords.
    pub(super) fn of(config: Config) -> Result<Postgres, Failure> {
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let ip = match config.get_hosts().first() {
            Some(bequest_postgres::tokio_postgres::config::Host::Tcp(host)) => host.parse()?,
            _ => return Err("the naive client knows TCP only".into()),
        };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let user = text(config.get_user());
        Ok(Postgres {
            address: SocketAddr::new(ip, port),
            database: config.get_dbname().unwrap_or(&user).to_owned(),
            options: text(config.get_options()),
            user,
        })
    }
}

impl Protocol for Postgres {
    async fn connect(&self) -> io::Result<Wire> {
        let mut wire = Wire::connect(self.address).await?;
        let parameters = [
            ("user", &*self.user),
            ("database", &*self.database),
            ("options", &*self.options),
        ];
        let mut startup = BytesMut::new();
        frontend::startup_message(parameters, &mut startup)?;
        wire.socket.write_all(&startup).await?;
        loop {
            match wire.message().await? {
                Message::ReadyForQuery(_) => return Ok(wire),
                Message::ErrorResponse(_) => {
                    return Err(io::Error::other("the server refused the naive client"));
                }
                Message::AuthenticationCleartextPassword
                | Message::AuthenticationMd5Password(_)
                | Message::AuthenticationSasl(_) => {
                    return Err(io::Error::other(
                        "the naive client knows no passwords: --database must trust this host",
                    ));
                }
                _ => {}
            }
        }
    }

    async fn ask(&self, wire: &mut Wire, sql: &str) -> io::Result<Option<String>> {
        let mut query = BytesMut::new();
        frontend::query(sql, &mut query)?;
        wire.socket.write_all(&query).await?;
        let mut answer = None;
        loop {
            match wire.message().await? {
                Message::DataRow(row) => {
                    // Two bytes for the number of columns have been read; each value has its length before it.
                    let value = row.buffer().get(4..).unwrap_or_default();
                    answer = Some(String::from_utf8_lossy(value).into_owned());
                }
                Message::ReadyForQuery(_) => return Ok(answer),
                Message::ErrorResponse(_) => {
                    return Err(io::Error::other("the server refused the naive client's query"));
                }
                _ => {}
            }
        }
    }
}
