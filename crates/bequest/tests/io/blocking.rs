//! The standard library's, on sockets of loopback.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bequest::io::{BlockingSocket, ShutDown, WithContext, canceled};
use bequest::{Context, Kind, Reason};

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let ours = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (theirs, _) = listener.accept().expect("somebody has connected");
    (ours, theirs)
}

/// A thread that does `work`, once it is about to begin.
fn thread_at<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    let (say, heard) = mpsc::channel();
    let thread = thread::spawn(move || {
        say.send(()).expect("somebody waits");
        work()
    });
    heard.recv().expect("it begins");
    thread
}

/// Whether nothing has come of a thread after all the others had their turn many times.
fn is_still_blocked<T>(thread: &thread::JoinHandle<T>) -> bool {
    for _ in 0..10_000 {
        thread::yield_now();
    }
    !thread.is_finished()
}

#[test]
fn a_blocked_read_ends_with_its_context() {
    let (ours, mut theirs) = pair();
    let ctx = Context::background().with_cancel();
    let mut socket = BlockingSocket::new(&ctx, ours);
    let reader = thread_at(move || socket.read(&mut [0; 8]));
    assert!(is_still_blocked(&reader));
    ctx.cancel_for(Reason::ClientGone);
    let error = reader.join().expect("no panic").unwrap_err();
    assert_eq!(canceled(&error).expect("an end").reason(), Reason::ClientGone);
    assert_eq!(theirs.read(&mut [0; 8]).expect("an end"), 0, "the peer sees it");
}

#[test]
fn control_a_bare_read_stays_blocked() {
    let (mut ours, mut theirs) = pair();
    let ctx = Context::background().with_cancel();
    let reader = thread_at(move || ours.read(&mut [0; 8]));
    ctx.cancel();
    assert!(is_still_blocked(&reader));
    theirs.write_all(b"x").expect("it is open");
    assert_eq!(reader.join().expect("no panic").expect("a byte"), 1);
}

#[test]
fn a_blocked_read_ends_at_its_deadline() {
    let (ours, _theirs) = pair();
    let ctx = Context::background().with_timeout(Duration::from_millis(30));
    let error = (&BlockingSocket::new(&ctx, ours)).read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(canceled(&error).expect("an end").is_from(&ctx));
}

#[test]
fn a_blocked_write_ends_with_its_context() {
    let (ours, _never_reads) = pair();
    let ctx = Context::background().with_cancel();
    let mut socket = BlockingSocket::new(&ctx, ours);
    let writer = thread_at(move || {
        let piece = [0; 1 << 16];
        loop {
            if let Err(error) = socket.write_all(&piece) {
                return error;
            }
        }
    });
    assert!(is_still_blocked(&writer));
    ctx.cancel();
    let error = writer.join().expect("no panic");
    assert_eq!(canceled(&error).expect("an end"), &Kind::Canceled);
}

#[cfg(unix)]
#[test]
fn a_blocked_read_of_a_unix_socket_ends_too() {
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let ctx = Context::background().with_cancel();
    let mut socket = BlockingSocket::new(&ctx, ours);
    let reader = thread_at(move || socket.read(&mut [0; 8]));
    ctx.cancel();
    assert!(canceled(&reader.join().expect("no panic").unwrap_err()).is_some());
}

#[test]
fn one_thread_reads_while_another_writes() {
    let (ours, mut theirs) = pair();
    let ctx = Context::background().with_cancel();
    let socket = BlockingSocket::new(&ctx, ours);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut text = [0; 4];
            (&socket).read_exact(&mut text).map(|()| text)
        });
        (&socket).write_all(b"ping").expect("it is open");
        let mut text = [0; 4];
        theirs.read_exact(&mut text).expect("it is open");
        theirs.write_all(&text).expect("it is open");
        assert_eq!(&reader.join().expect("no panic").expect("the echo"), b"ping");
    });
}

#[test]
fn a_socket_taken_back_outlives_the_context() {
    let (ours, mut theirs) = pair();
    let ctx = Context::background().with_cancel();
    let mut taken = BlockingSocket::new(&ctx, ours).into_inner().expect("it lives");
    ctx.cancel();
    taken.write_all(b"x").expect("it was not shut down");
    theirs.read_exact(&mut [0]).expect("it came");

    let error = BlockingSocket::new(&ctx, taken).into_inner().unwrap_err();
    assert_eq!(error, Kind::Canceled);
    assert_eq!(theirs.read(&mut [0]).expect("an end"), 0, "shut down at once");

    let (ours, _theirs) = pair();
    let never = Context::background();
    BlockingSocket::new(&never, ours)
        .into_inner()
        .expect("nothing can end it");
}

#[test]
fn an_end_of_the_stream_before_that_of_the_context_is_the_streams() {
    let (ours, theirs) = pair();
    let ctx = Context::background().with_cancel();
    let mut socket = BlockingSocket::new(&ctx, ours);
    drop(theirs);
    assert_eq!(socket.read(&mut [0]).expect("the end"), 0);
    ctx.cancel();
    assert!(canceled(&socket.read(&mut [0]).unwrap_err()).is_some());
    assert!(canceled(&socket.read(&mut []).unwrap_err()).is_some());
}

#[test]
fn a_long_copy_ends_between_two_pieces() {
    /// Cancels within its nth read; how many bytes it has given.
    struct CancelsAfter(bequest::Canceller, usize, usize);
    impl Read for CancelsAfter {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 -= 1;
            if self.1 == 0 {
                self.0.cancel();
            }
            buffer.fill(b'x');
            self.2 += buffer.len();
            Ok(buffer.len())
        }
    }
    let ctx = Context::background().with_cancel();
    let mut out = Vec::new();
    let mut reader = WithContext::new(&ctx, CancelsAfter(ctx.canceller(), 3, 0));
    let error = io::copy(&mut reader, &mut out).unwrap_err();
    assert!(canceled(&error).is_some());
    assert_eq!(out.len(), reader.get_ref().2, "what was read was handed out");
}

#[test]
fn pieces_go_in_and_out_together_and_end_with_the_context_too() {
    let (ours, mut theirs) = pair();
    let ctx = Context::background().with_cancel();
    let mut socket = BlockingSocket::new(&ctx, ours);
    let pieces = [IoSlice::new(b"one"), IoSlice::new(b"two")];
    assert_eq!(socket.write_vectored(&pieces).expect("room"), 6);
    let mut seen = [0; 6];
    theirs.read_exact(&mut seen).expect("it came");
    assert_eq!(&seen, b"onetwo");

    let (mut first, mut second) = ([0; 3], [0; 3]);
    let mut both = WithContext::new(&ctx, &b"onetwo"[..]);
    let mut buffers = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
    assert_eq!(both.read_vectored(&mut buffers).expect("text"), 6);
    let mut out = WithContext::new(&ctx, Vec::new());
    assert_eq!(out.write_vectored(&pieces).expect("room"), 6);

    ctx.cancel();
    for error in [
        socket.write_vectored(&pieces).unwrap_err(),
        both.read_vectored(&mut buffers).unwrap_err(),
        out.write_vectored(&pieces).unwrap_err(),
    ] {
        assert!(canceled(&error).is_some());
    }
    assert_eq!(out.into_inner(), b"onetwo");
}

#[test]
fn the_end_is_found_below_other_errors() {
    let ctx = Context::background().with_cancel();
    ctx.cancel();
    let inner = WithContext::new(&ctx, io::empty()).read(&mut [0]).unwrap_err();
    let outer = io::Error::new(ErrorKind::InvalidData, inner);
    assert_eq!(canceled(&outer).expect("an end"), &Kind::Canceled);
}

#[test]
fn what_was_read_when_the_context_ended_is_handed_out() {
    /// Cancels within its read.
    struct CancelsWithin(bequest::Canceller);
    impl ShutDown for CancelsWithin {
        fn shut_down(&self) -> io::Result<()> {
            Ok(())
        }
    }
    impl Read for &CancelsWithin {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.cancel();
            buffer[0] = b'x';
            Ok(1)
        }
    }
    let ctx = Context::background().with_cancel();
    let mut socket = BlockingSocket::new(&ctx, CancelsWithin(ctx.canceller()));
    assert_eq!(socket.read(&mut [0; 8]).expect("a byte"), 1);
    assert!(canceled(&socket.read(&mut [0; 8]).unwrap_err()).is_some());
}
