//! A search back end of the test's own, which answers what it is told, or nothing at all.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::GUARD;

/// What it does with a question.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Manner {
    /// Answers with this status line and body.
    Answer(&'static str, &'static str),
    /// Closes the connection without a word.
    Close,
    /// Says nothing, and waits for the other side to go.
    Hang,
}

/// The back end. It answers as long as its process lives, which is the test's.
#[derive(Debug)]
pub(crate) struct Backend {
    addr: SocketAddr,
    speaks_tls: bool,
    events: Receiver<Event>,
}

/// What it saw.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A question, by its target.
    Asked(String),
    /// The other side closed the connection before it had an answer.
    Abandoned,
}

impl Backend {
    pub(crate) fn start(manner: Manner) -> Backend {
        Backend::begin(manner, None)
    }

    /// One that speaks TLS, for `localhost`.
    pub(crate) fn start_with_tls(manner: Manner, tls: ServerConfig) -> Backend {
        Backend::begin(manner, Some(Arc::new(tls)))
    }

    fn begin(manner: Manner, tls: Option<Arc<ServerConfig>>) -> Backend {
        let speaks_tls = tls.is_some();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("a bound socket");
        let (tell, events) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (tell, tls) = (tell.clone(), tls.clone());
                thread::spawn(move || match tls {
                    Some(tls) => {
                        let session = ServerConnection::new(tls).expect("a configuration");
                        serve(StreamOwned::new(session, stream), manner, &tell);
                    }
                    None => serve(stream, manner, &tell),
                });
            }
        });
        Backend {
            addr,
            speaks_tls,
            events,
        }
    }

    pub(crate) fn url(&self) -> String {
        match self.speaks_tls {
            true => format!("https://localhost:{}/", self.addr.port()),
            false => format!("http://{}/", self.addr),
        }
    }

    /// What it saw next.
    pub(crate) fn next(&self) -> Event {
        self.events
            .recv_timeout(GUARD)
            .expect("something happens at the back end")
    }
}

/// One question on one connection. An error is a peer that has gone; what matters of that was told before.
fn serve(mut stream: impl Read + Write, manner: Manner, tell: &Sender<Event>) {
    let mut lines = BufReader::new(&mut stream).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    if lines.find(String::is_empty).is_none() {
        return;
    }
    drop(lines);
    let target = first.split(' ').nth(1).unwrap_or_default();
    tell.send(Event::Asked(target.to_string())).ok();
    match manner {
        Manner::Close => {}
        Manner::Answer(status, body) => {
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            stream.write_all(format!("{head}{body}").as_bytes()).ok();
        }
        Manner::Hang => {
            if let Ok(0) | Err(_) = stream.read(&mut [0; 1]) {
                tell.send(Event::Abandoned).ok();
            }
        }
    }
}
