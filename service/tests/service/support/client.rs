//! A client of HTTP/1 made of a socket and nothing else, which can leave at any moment.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::GUARD;

/// One connection. Dropping it is leaving.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    /// Read, and not yet part of an answer.
    buffer: Vec<u8>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

/// `GET` on a connection of its own.
pub(crate) fn get(addr: SocketAddr, target: &str) -> Answer {
    ask(addr, "GET", target, &[])
}

/// A request without a body, on a connection of its own.
pub(crate) fn ask(addr: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
    try_ask(addr, method, target, headers).expect("an answer")
}

/// As [`ask`], of a service that may be about to go.
pub(crate) fn try_ask(
    addr: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
) -> io::Result<Answer> {
    let mut client = Client::connect(addr)?;
    client.send(method, target, headers)?;
    client.answer()
}

impl Client {
    pub(crate) fn connect(addr: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(GUARD))?;
        stream.set_nodelay(true)?;
        Ok(Client {
            stream,
            buffer: Vec::new(),
        })
    }

    /// A connection with a request under way.
    pub(crate) fn begin(addr: SocketAddr, target: &str) -> Client {
        let mut client = Client::connect(addr).expect("the service accepts");
        client.send("GET", target, &[]).expect("the socket takes it");
        client
    }

    /// Sends a request without a body.
    pub(crate) fn send(&mut self, method: &str, target: &str, headers: &[(&str, &str)]) -> io::Result<()> {
        let mut text = format!("{method} {target} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            text.push_str("host: localhost\r\n");
        }
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        self.stream.write_all(text.as_bytes())
    }

    /// Reads the next answer. A connection that is closed before it is an error of kind `UnexpectedEof`, or what the
    /// system says.
    pub(crate) fn answer(&mut self) -> io::Result<Answer> {
        let mut answer = self.head()?;
        let length = answer
            .header("content-length")
            .and_then(|length| length.parse().ok());
        let length: usize = length.ok_or_else(|| broken("no content-length"))?;
        while self.buffer.len() < length {
            self.read_more()?;
        }
        answer.body = text(self.buffer.drain(..length).collect())?;
        Ok(answer)
    }

    /// Reads the head of the next answer.
    pub(crate) fn head(&mut self) -> io::Result<Answer> {
        let head = self.upto(b"\r\n\r\n")?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok(Answer {
            status: status.ok_or_else(|| broken("no status"))?,
            head,
            body: String::new(),
        })
    }

    /// Reads the next chunk of a body of unknown length; `None` is its orderly end.
    pub(crate) fn chunk(&mut self) -> io::Result<Option<String>> {
        let size = self.upto(b"\r\n")?;
        let size = usize::from_str_radix(size.trim_end(), 16).map_err(|_| broken("no size of a chunk"))?;
        while self.buffer.len() < size + 2 {
            self.read_more()?;
        }
        let chunk = self.buffer.drain(..size).collect();
        self.buffer.drain(..2);
        text(chunk).map(|text| (size > 0).then_some(text))
    }

    /// Reads up to this mark, and it.
    fn upto(&mut self, mark: &[u8]) -> io::Result<String> {
        let end = loop {
            match self.buffer.windows(mark.len()).position(|window| window == mark) {
                Some(end) => break end + mark.len(),
                None => self.read_more()?,
            }
        };
        text(self.buffer.drain(..end).collect())
    }

    fn read_more(&mut self) -> io::Result<()> {
        let mut chunk = [0; 4096];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.buffer.extend_from_slice(&chunk[..count]);
                    return Ok(());
                }
                // A read with a limit ends like this when the whole process was stopped and goes on.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body, which must be JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("{error} in the answer {:?}", self.body))
    }
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| broken("not UTF-8"))
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
