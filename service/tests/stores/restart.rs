//! Nodes that take over from one another under load, on one listening socket that all of them inherit.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::servers::Stores;
use crate::support::client::Client;
use crate::support::instance::{Folder, Instance, command};
use crate::support::until;
use crate::{BINARY, SESSION, session};

const CLIENTS: usize = 8;
const RESTARTS: usize = 6;

/// A node on an inherited socket, or on an address of its own.
fn start(stores: &Stores, data: &Folder, listen: &str, input: Stdio) -> Instance {
    let mut command = command(BINARY.as_ref());
    command.args(["--listen", listen, "--admin", "127.0.0.1:0", "--data"]);
    command.arg(data.path()).args(stores.flags());
    Instance::inheriting(command, input)
}

/// Asks until told to stop, each time on a new connection: how many were answered, and how many were not.
struct Load {
    answered: AtomicU64,
    lost: AtomicU64,
    stop: AtomicBool,
}

impl Load {
    fn new() -> Load {
        Load {
            answered: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        }
    }

    fn run(&self, addr: SocketAddr, id: &str) {
        while !self.stop.load(Ordering::SeqCst) {
            let counter = match ask(addr, id) {
                Ok(200) => &self.answered,
                Ok(status) => panic!("answered {status}"),
                Err(_) => &self.lost,
            };
            counter.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Ends the load however its scope is left: a failed assertion must not leave it running for ever.
    fn stopped_at_the_end(&self) -> StopAtEnd<'_> {
        StopAtEnd(self)
    }

    /// Waits for a hundred more answers, so that there is load before and after whatever comes next.
    fn goes_on(&self) {
        let before = self.answered.load(Ordering::SeqCst);
        until("answers", || {
            (self.answered.load(Ordering::SeqCst) > before + 100).then_some(())
        });
    }
}

struct StopAtEnd<'l>(&'l Load);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
    }
}

fn ask(addr: SocketAddr, id: &str) -> io::Result<u16> {
    let mut client = Client::connect(addr)?;
    client.send("GET", "/me", &[(SESSION, id), ("connection", "close")])?;
    Ok(client.answer()?.status)
}

#[test]
fn a_rolling_restart_on_one_socket_loses_nobody() {
    let Some(stores) = Stores::new() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    // A data folder for each: what is in it is a node's own, and what they share is on the servers.
    let folders = [Folder::new(), Folder::new()];
    let node = |place: usize| {
        let socket = OwnedFd::from(listener.try_clone().unwrap());
        start(&stores, &folders[place], "stdin", socket.into())
    };
    // Signed in while there is one: the embedded issuer is each node's own.
    let first = node(0);
    assert_eq!(first.public, addr, "it says where it listens");
    let (id, load) = (session(&first, "ann"), Load::new());
    let mut nodes = [first, node(1)];
    thread::scope(|scope| {
        let _stop = load.stopped_at_the_end();
        for _ in 0..CLIENTS {
            scope.spawn(|| load.run(addr, &id));
        }
        for restart in 0..RESTARTS {
            load.goes_on();
            let old = &mut nodes[restart % 2];
            old.signal("TERM");
            let status = old.ended();
            assert!(status.success(), "{status}");
            load.goes_on();
            *old = node(restart % 2);
        }
        load.goes_on();
    });
    let (answered, lost) = (load.answered.into_inner(), load.lost.into_inner());
    eprintln!("{RESTARTS} restarts: {answered} answered, {lost} lost");
    assert_eq!(lost, 0);
}

/// The naive way: the node that ends takes its socket with it, and the next one binds the address again.
#[test]
fn control_a_restart_that_binds_anew_loses_some() {
    let Some(stores) = Stores::new() else { return };
    let folder = Folder::new();
    let mut node = start(&stores, &folder, "127.0.0.1:0", Stdio::null());
    let addr = node.public;
    let (id, load) = (session(&node, "ann"), Load::new());
    thread::scope(|scope| {
        let _stop = load.stopped_at_the_end();
        for _ in 0..CLIENTS {
            scope.spawn(|| load.run(addr, &id));
        }
        load.goes_on();
        node.signal("TERM");
        assert!(node.ended().success());
        node = start(&stores, &folder, &addr.to_string(), Stdio::null());
        load.goes_on();
    });
    let (answered, lost) = (load.answered.into_inner(), load.lost.into_inner());
    eprintln!("one restart the naive way: {answered} answered, {lost} lost");
    assert!(lost > 0);
}

#[test]
fn what_is_no_listening_socket_is_refused() {
    let folder = Folder::new();
    let mut command = command(BINARY.as_ref());
    command.args(["--listen", "stdin", "--admin", "127.0.0.1:0", "--data"]);
    let output = command.arg(folder.path()).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("--listen stdin"),
        "{said}"
    );
}
