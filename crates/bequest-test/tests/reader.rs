//! The reader that stops with its context, of `examples/reader.rs`, and the one that only looks before each read.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use bequest::{Context, Kind, Reason};
use bequest_test::{Clock, Leak};

#[allow(dead_code, reason = "its `main` is for running it by itself")]
#[path = "../examples/reader.rs"]
mod example;
use example::{ContextReader, why};

#[test]
fn it_reads_as_its_inner_reader_does() {
    let mut reader = ContextReader::new(&Context::background(), &b"123456"[..]);
    let mut three = [0; 3];
    for expected in [b"123", b"456"] {
        assert_eq!((reader.read(&mut three).unwrap(), &three), (3, expected));
    }
    assert_eq!(
        reader.read(&mut three).unwrap(),
        0,
        "the end of the data is no error"
    );
}

#[test]
fn after_a_cancel_it_reads_nothing_and_says_why() {
    let scope = Context::background().with_cancel();
    let mut reader = ContextReader::new(&scope, &b"123456"[..]);
    let mut three = [0; 3];
    assert_eq!(reader.read(&mut three).unwrap(), 3);
    scope.cancel();
    let error = reader.read(&mut three).unwrap_err();
    assert_eq!(why(&error), Some((Kind::Canceled, Reason::Explicit)));
    assert_eq!(&three, b"123", "the buffer is as it was");
    // An error that readers do not retry on.
    assert_eq!(
        reader.read_to_end(&mut Vec::new()).unwrap_err().kind(),
        ErrorKind::Other
    );
}

#[test]
fn after_a_deadline_the_error_is_a_timeout() {
    let clock = Clock::new();
    let scope = clock.context().with_timeout(Duration::from_secs(1));
    let mut reader = ContextReader::new(&scope, &b"123456"[..]);
    clock.advance(Duration::from_secs(1));
    assert_eq!(reader.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
}

#[test]
fn a_blocked_read_is_interrupted() {
    let leak = Leak::watch();
    let scope = leak.context().with_cancel();
    let (stream, _peer) = pair();
    let other = stream.try_clone().unwrap();
    let (inner, entered) = Telling::new(stream);
    let mut reader =
        ContextReader::interrupted_by(&scope, inner, move || other.shutdown(Shutdown::Both).unwrap());
    let blocked = thread::spawn(move || reader.read(&mut [0; 3]));
    entered.recv().unwrap();
    scope.cancel_for(Reason::ClientGone);
    let error = blocked.join().unwrap().unwrap_err();
    assert_eq!(why(&error), Some((Kind::Canceled, Reason::ClientGone)));
    drop(scope);
    leak.assert_none();
}

/// Negative control: the same read without the interrupt goes on after the cancel, until the peer writes.
#[test]
fn control_looking_before_each_read_does_not_interrupt() {
    let scope = Context::background().with_cancel();
    let (stream, mut peer) = pair();
    let (inner, entered) = Telling::new(stream);
    let mut reader = ContextReader::new(&scope, inner);
    let blocked = thread::spawn(move || reader.read(&mut [0; 3]));
    entered.recv().unwrap();
    scope.cancel();
    peer.write_all(b"789").unwrap();
    assert_eq!(blocked.join().unwrap().unwrap(), 3, "it was reading all the time");
}

/// A reader that tells when a read has begun.
struct Telling(TcpStream, Sender<()>);

impl Telling {
    fn new(stream: TcpStream) -> (Telling, Receiver<()>) {
        let (tell, told) = channel();
        (Telling(stream, tell), told)
    }
}

impl Read for Telling {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1.send(()).expect("the test listens");
        self.0.read(buffer)
    }
}

/// Two ends of a connection on the loopback device. A read that is not interrupted fails after 20 seconds.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (stream, peer)
}
