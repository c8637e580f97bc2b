//! Allocations and bytes for each request, and a steady run for callgrind: `peers-http-counts MODE PROTOCOL REQUESTS`.
//!
//! One connection, one request at a time, client and server in one process; the client allocates nothing while it counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use peers_http::{Mode, Protocol, serve};

struct Counting;

static CALLS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Relaxed);
        BYTES.fetch_add(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let parsed = match &words[..] {
        [mode, protocol, requests] => Mode::named(mode)
            .zip(Protocol::named(protocol))
            .zip(requests.parse().ok()),
        _ => None,
    };
    let Some(((mode, protocol), requests)) = parsed else {
        eprintln!("usage: peers-http-counts hyper|by-hand|off|on|listed http1|http2 REQUESTS");
        std::process::exit(2);
    };
    let mut client = Client::connect(serve(mode, protocol), protocol);
    // What is made once for a connection is made before.
    (0..100).for_each(|_| client.request());
    let (calls, bytes) = (CALLS.load(Relaxed), BYTES.load(Relaxed));
    (0..requests).for_each(|_| client.request());
    let each =
        |counter: &AtomicUsize, before: usize| (counter.load(Relaxed) - before) as f64 / f64::from(requests);
    println!("{:.2} {:.0}", each(&CALLS, calls), each(&BYTES, bytes));
    std::process::exit(0);
}

struct Client {
    stream: TcpStream,
    protocol: Protocol,
    next_stream: u32,
    buffer: [u8; 4096],
}

impl Client {
    fn connect(addr: std::net::SocketAddr, protocol: Protocol) -> Client {
        let mut stream = TcpStream::connect(addr).expect("a server");
        stream.set_nodelay(true).expect("an open socket");
        if protocol == Protocol::Http2 {
            stream
                .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                .expect("open");
            // SETTINGS without a setting, and a window for all that is to come.
            stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).expect("open");
            stream
                .write_all(&[0, 0, 4, 8, 0, 0, 0, 0, 0, 0x3f, 0, 0, 0])
                .expect("open");
            // The acknowledgement of the server's settings, which come anyway.
            stream.write_all(&[0, 0, 0, 4, 1, 0, 0, 0, 0]).expect("open");
        }
        Client {
            stream,
            protocol,
            next_stream: 1,
            buffer: [0; 4096],
        }
    }

    fn request(&mut self) {
        match self.protocol {
            Protocol::Http1 => self.http1(),
            Protocol::Http2 => self.http2(),
        }
    }

    fn http1(&mut self) {
        self.stream
            .write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
            .expect("open");
        let mut have = 0;
        while !self.buffer[..have].ends_with(b"hello, world") {
            have += self.read(have);
        }
    }

    fn http2(&mut self) {
        // GET / on http, as indexed fields, and the authority as a literal.
        const BLOCK: &[u8] = &[0x82, 0x86, 0x84, 0x01, 4, b't', b'e', b's', b't'];
        let stream = self.next_stream;
        self.next_stream += 2;
        let mut frame = [0; 9 + BLOCK.len()];
        frame[..5].copy_from_slice(&[0, 0, 9, 1, 5]);
        frame[5..9].copy_from_slice(&stream.to_be_bytes());
        frame[9..].copy_from_slice(BLOCK);
        self.stream.write_all(&frame).expect("open");
        let mut have = 0;
        loop {
            have += self.read(have);
            // The end of the stream: its last bytes are the body, behind a frame of DATA.
            if self.buffer[..have].ends_with(b"hello, world") {
                return;
            }
            // An empty last frame may follow the body.
            if have >= 9 && self.buffer[have - 9..have - 4] == [0, 0, 0, 0, 1] {
                return;
            }
        }
    }

    fn read(&mut self, have: usize) -> usize {
        let read = self.stream.read(&mut self.buffer[have..]).expect("open");
        assert!(read > 0, "the server closed the connection");
        read
    }
}
