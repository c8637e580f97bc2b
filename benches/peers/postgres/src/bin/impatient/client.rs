//! Clients on a socket: one that waits for its answer, and one that leaves.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Result;

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Asks, and leaves without an answer after `patience`.
pub(crate) async fn leave(address: SocketAddr, path: &'static str, patience: Duration) -> Result<()> {
    let mut socket = request(address, path).await?;
    match tokio::time::timeout(patience, socket.read_u8()).await {
        Err(_) => Ok(()),
        Ok(_) => Err("it was answered before it could leave".into()),
    }
}

/// Asks, and waits for the whole answer.
pub(crate) async fn ask(address: SocketAddr, path: &str) -> Result<Answer> {
    let mut socket = request(address, path).await?;
    let mut text = String::new();
    socket.read_to_string(&mut text).await?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("no answer")?;
    let status = head.split(' ').nth(1).ok_or("no status")?.parse()?;
    Ok(Answer {
        status,
        body: body.to_owned(),
    })
}

async fn request(address: SocketAddr, path: &str) -> Result<TcpStream> {
    let mut socket = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: peers\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    Ok(socket)
}
