//! A client of HTTP/1 made of a socket and nothing else.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::guard;

pub(crate) struct Http1 {
    pub(crate) stream: TcpStream,
    /// Read, and not yet part of an answer.
    buffer: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Http1 {
    pub(crate) async fn connect(addr: SocketAddr) -> Http1 {
        Http1 {
            stream: TcpStream::connect(addr).await.expect("the server accepts"),
            buffer: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.stream
            .write_all(text.as_bytes())
            .await
            .expect("the socket takes it");
    }

    /// Sends a whole request without a body.
    pub(crate) async fn request(&mut self, method: &str, path: &str) {
        self.send(&format!("{method} {path} HTTP/1.1\r\nhost: test\r\n\r\n"))
            .await;
    }

    /// Reads the next answer to a request that was not HEAD.
    pub(crate) async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        let announced = header(&answer.head, "content-length").map(|value| value.parse().expect("a number"));
        match announced {
            Some(length) => {
                guard("the body", self.fill(|buffer| buffer.len() >= length)).await;
                let body: Vec<u8> = self.buffer.drain(..length).collect();
                answer.body = String::from_utf8(body).expect("text");
            }
            None => answer.body = self.rest().await,
        }
        answer
    }

    /// Reads the head of the next answer.
    pub(crate) async fn head(&mut self) -> Answer {
        guard(
            "the head of an answer",
            self.fill(|buffer| end_of_head(buffer).is_some()),
        )
        .await;
        let end = end_of_head(&self.buffer).expect("a whole head before the end of the connection");
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let head = String::from_utf8(head).expect("text").to_lowercase();
        let status = head
            .split(' ')
            .nth(1)
            .expect("a status")
            .parse()
            .expect("a number");
        Answer {
            status,
            head,
            body: String::new(),
        }
    }

    /// Reads to the end of the connection.
    pub(crate) async fn rest(&mut self) -> String {
        guard("the end of the connection", self.fill(|_| false)).await;
        String::from_utf8(std::mem::take(&mut self.buffer)).expect("text")
    }

    /// Leaves with a reset instead of an orderly end.
    pub(crate) fn reset(self) {
        self.stream.set_zero_linger().expect("an open socket");
    }

    /// Reads until the condition holds or nothing more comes.
    async fn fill(&mut self, mut enough: impl FnMut(&[u8]) -> bool) {
        while !enough(&self.buffer) {
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

fn end_of_head(buffer: &[u8]) -> Option<usize> {
    buffer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map(|at| at + 4)
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let line = head.lines().find(|line| line.starts_with(&format!("{name}:")))?;
    Some(line.split_once(':')?.1.trim())
}
