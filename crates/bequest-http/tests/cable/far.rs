//! The helper at the far end: it dials where it is told, and serves.

use std::collections::HashMap;
use std::convert::Infallible;
use std::env;
use std::io::Read;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bequest::Context;
use bequest_http::server::{Limits, Peer, RequestBody, Server, service_fn};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, UnixListener, UnixStream};

use super::lab::FOLDER;

pub(crate) const SOCKET: &str = "relay";
pub(crate) const READY: &str = "ready";
/// Where it serves.
pub(crate) const PORT: u16 = 8080;
/// How a relay is to read: at once, or a little at a time, through a small window.
pub(crate) const AT_ONCE: &str = "at-once";
pub(crate) const LITTLE_BY_LITTLE: &str = "little-by-little";
/// From the network behind the switch.
pub(crate) const ROUTED: &str = "routed";

/// Runs it until the process that has started it ends.
#[expect(clippy::print_stdout, reason = "whoever has started it waits for that")]
pub(crate) fn run() {
    std::thread::spawn(|| {
        // Ends when nobody can write there any more.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let folder = PathBuf::from(env::var_os(FOLDER).expect("a folder"));
        let relay = UnixListener::bind(folder.join(SOCKET)).expect("a new folder");
        let listener = TcpListener::bind(("0.0.0.0", PORT)).await.expect("a free port");
        println!("{READY}");
        tokio::spawn(serve(listener));
        loop {
            let (near, _) = relay.accept().await.expect("a socket");
            tokio::spawn(pass_on(near));
        }
    });
}

/// Dials the address in the first line, and passes on in both directions.
async fn pass_on(near: UnixStream) {
    let mut near = BufReader::new(near);
    let mut line = String::new();
    near.read_line(&mut line).await.expect("a line");
    let (addr, how) = line.trim_end().split_once(' ').expect("two words");
    let addr: SocketAddrV4 = addr.parse().expect("an address");
    let socket = TcpSocket::new_v4().expect("a socket");
    match how {
        LITTLE_BY_LITTLE => socket.set_recv_buffer_size(4096).expect("a small window"),
        ROUTED => {
            let [_, _, cable, _] = addr.ip().octets();
            let own = ([10, 78, cable, 2], 0).into();
            socket.bind(own).expect("an address of this end");
        }
        _ => {}
    }
    let mut far = socket.connect(addr.into()).await.expect("a listener");
    // Either side may be cut off at any time.
    let _ = match how {
        LITTLE_BY_LITTLE => {
            let (mut read, mut write) = far.split();
            let (mut from, mut to) = tokio::io::split(near);
            let up = tokio::io::copy(&mut from, &mut write);
            let down = async {
                let mut some = [0; 1024];
                loop {
                    let size = read.read(&mut some).await?;
                    if size == 0 {
                        return std::io::Result::Ok(());
                    }
                    to.write_all(&some[..size]).await?;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            };
            tokio::try_join!(up, down).map(drop)
        }
        _ => tokio::io::copy_bidirectional(&mut near, &mut far).await.map(drop),
    };
}

/// A server that answers by the number of the connection; or not at all; or begins, and goes no further; or says how many wait
/// over this cable.
async fn serve(listener: TcpListener) {
    let waiting: Arc<Mutex<HashMap<SocketAddr, usize>>> = Arc::default();
    let service = service_fn(move |request: Request<RequestBody>| {
        let waiting = waiting.clone();
        async move {
            let peer = request.extensions().get::<Peer>().expect("a peer");
            let (conn, cable) = (peer.conn().id(), SocketAddr::new(peer.conn().peer_addr().ip(), 0));
            let body = match request.uri().path() {
                "/wait" => {
                    *waiting.lock().expect("no panic").entry(cable).or_default() += 1;
                    std::future::pending().await
                }
                "/waiting" => text(*waiting.lock().expect("no panic").entry(cable).or_default()),
                "/begin" => {
                    let (mut sender, body) = http_body_util::channel::Channel::<Bytes, Infallible>::new(1);
                    tokio::spawn(async move {
                        // The client may have left.
                        let _ = sender.send_data(Bytes::from_static(b"a beginning")).await;
                        std::future::pending::<()>().await;
                    });
                    body.boxed()
                }
                _ => text(conn),
            };
            Response::new(body)
        }
    });
    let limits = Limits {
        idle: Duration::MAX,
        request: Duration::MAX,
        unreachable: Duration::MAX,
        ..Limits::default()
    };
    let server = Server::builder().limits(limits);
    // It ends with the process.
    let _ = server.serve(listener, service, &Context::background()).await;
}

fn text(number: impl ToString) -> BoxBody<Bytes, Infallible> {
    http_body_util::Full::new(number.to_string().into()).boxed()
}
