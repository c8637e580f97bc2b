//! Asking the system what it has heard of a peer of TCP: `sock_diag(7)` of Linux, which `ss` asks as well.
//!
//! # Invariants
//!
//! 1. The question is about one connection, so that it costs the same however many there are, and needs no right.
//! 2. What cannot be found out, for whatever reason, is `None`, and never an end of anything.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// A socket through which the system is asked.
#[derive(Debug)]
pub(crate) struct SockDiag(Mutex<Asking>);

#[derive(Debug)]
struct Asking {
    socket: Socket,
    /// The number of the last question, by which its answer is known.
    asked: u32,
}

/// What the system has heard of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    /// How long ago anything came of it, an acknowledgement included.
    pub(crate) quiet: Duration,
    /// How often the system has repeated or asked something since then.
    pub(crate) unanswered: u8,
}

const AF_NETLINK: i32 = 16;
const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const INET_DIAG_INFO: u16 = 2;
const IPPROTO_TCP: u8 = 6;
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// The sizes of `nlmsghdr`, `inet_diag_msg` and `rtattr`.
const HEADER: usize = 16;
const MESSAGE: usize = 72;
const ATTRIBUTE: usize = 4;

impl SockDiag {
    /// Opens it; `None` where there is no such thing, or it is not for us.
    pub(crate) fn open() -> Option<SockDiag> {
        if !cfg!(target_os = "linux") {
            return None;
        }
        let protocol = Protocol::from(NETLINK_SOCK_DIAG);
        let socket = Socket::new(Domain::from(AF_NETLINK), Type::RAW, Some(protocol)).ok()?;
        socket.set_nonblocking(true).ok()?;
        Some(SockDiag(Mutex::new(Asking { socket, asked: 0 })))
    }

    /// What the system has heard on the connection between these addresses. It waits for nothing.
    pub(crate) fn ask(&self, local: SocketAddr, peer: SocketAddr) -> Option<Heard> {
        let mut asking = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asking.asked = asking.asked.wrapping_add(1);
        let number = asking.asked;
        asking.socket.send(&question(number, local, peer)).ok()?;
        let mut answer = [0; 2048];
        // The answer is there before the question's call returns. One that nobody took may stand before it.
        loop {
            let size = (&asking.socket).read(&mut answer).ok()?;
            let answer = answer.get(..size)?;
            if u32_at(answer, 8)? == number {
                return heard(answer);
            }
        }
    }
}

/// A `nlmsghdr` and an `inet_diag_req_v2` for one connection, and for its `tcp_info`.
fn question(number: u32, local: SocketAddr, peer: SocketAddr) -> Vec<u8> {
    let (family, interface) = match local {
        SocketAddr::V4(_) => (2, 0),
        SocketAddr::V6(local) => (10, local.scope_id()),
    };
    let mut body = vec![family, IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), 0];
    // In every state.
    body.extend(u32::MAX.to_ne_bytes());
    body.extend(local.port().to_be_bytes());
    body.extend(peer.port().to_be_bytes());
    body.extend(sixteen(local.ip()));
    body.extend(sixteen(peer.ip()));
    body.extend(interface.to_ne_bytes());
    body.extend(NO_COOKIE);

    let length = u32::try_from(HEADER + body.len()).expect("it is short");
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    bytes.extend(number.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(body);
    bytes
}

fn sixteen(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V6(ip) => ip.octets(),
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            bytes
        }
    }
}

/// Reads an answer. `None`: an error, or an answer without what was asked for.
fn heard(answer: &[u8]) -> Option<Heard> {
    if u16_at(answer, 4)? != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    let length = usize::try_from(u32_at(answer, 0)?).ok()?;
    let mut rest = answer.get(HEADER + MESSAGE..length)?;
    loop {
        let (length, kind) = (usize::from(u16_at(rest, 0)?), u16_at(rest, 2)?);
        let value = rest.get(ATTRIBUTE..length)?;
        if kind == INET_DIAG_INFO {
            return heard_of(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

/// Reads a `tcp_info`: `tcpi_retransmits`, `tcpi_probes`, `tcpi_last_data_recv` and `tcpi_last_ack_recv`.
fn heard_of(info: &[u8]) -> Option<Heard> {
    let quiet = u32_at(info, 52)?.min(u32_at(info, 56)?);
    Some(Heard {
        quiet: Duration::from_millis(quiet.into()),
        unanswered: (*info.get(2)?).max(*info.get(3)?),
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn connected(addr: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(addr).expect("a free port");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("a listener");
        (listener.accept().expect("a client").0, client)
    }

    fn ask(sock_diag: &SockDiag, stream: &TcpStream) -> Option<Heard> {
        let addr = (stream.local_addr(), stream.peer_addr());
        sock_diag.ask(addr.0.expect("an address"), addr.1.expect("an address"))
    }

    #[test]
    fn the_system_says_when_it_has_heard_of_a_peer() {
        let sock_diag = SockDiag::open().expect("every system of these has it");
        for addr in ["127.0.0.1:0", "[::1]:0"] {
            let (server, client) = connected(addr);
            for stream in [&server, &client] {
                let heard = ask(&sock_diag, stream).expect("an open connection");
                assert_eq!(heard.unanswered, 0, "{addr}: {heard:?}");
                assert!(heard.quiet < Duration::from_secs(60), "{addr}: {heard:?}");
            }
        }
    }

    #[test]
    fn on_a_listener_for_both_families_it_says_so_as_well() {
        let listener = TcpListener::bind("[::]:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let _client = TcpStream::connect(("127.0.0.1", port)).expect("a listener");
        let (server, _) = listener.accept().expect("a client");
        assert!(server.peer_addr().expect("an address").is_ipv6());
        let sock_diag = SockDiag::open().expect("every system of these has it");
        assert!(ask(&sock_diag, &server).is_some());
    }

    #[test]
    fn of_a_connection_that_is_not_there_it_says_nothing() {
        let sock_diag = SockDiag::open().expect("every system of these has it");
        let nobody = ([127, 0, 0, 1], 1).into();
        assert_eq!(sock_diag.ask(nobody, nobody), None);
        let (server, _client) = connected("127.0.0.1:0");
        assert!(ask(&sock_diag, &server).is_some(), "and goes on answering");
    }

    #[test]
    fn whatever_else_it_may_say_is_nothing() {
        for size in 0..300 {
            for byte in [0, 1, 4, 20, 0xff] {
                assert_eq!(heard(&vec![byte; size]), None);
            }
        }
        // An answer whose length is that of something else, and one that is cut.
        let mut answer = vec![0; HEADER + MESSAGE + ATTRIBUTE];
        answer[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        for length in [0_u32, 16, 88, 92, 1000, u32::MAX] {
            answer[0..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(heard(&answer), None);
        }
    }
}
