//! Private servers: they start, hang, die, come back, and leave nothing behind.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use bequest_test::servers::{Postgres, Redis, RedisCluster};

/// A test that takes this long hangs.
const HANGS: Duration = Duration::from_secs(20);
/// "May I speak TLS?": whoever accepts connections answers it with one byte.
const QUESTION: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

#[test]
fn a_server_runs_under_an_account_of_its_own_and_leaves_nothing_behind() {
    let Some(server) = Postgres::start_or_leave_out() else {
        return;
    };
    let folder = folder_of(&format!("{server:?}"));
    assert!(fs::metadata(&folder).unwrap().is_dir());
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::MetadataExt;
        assert_ne!(
            fs::metadata(format!("{folder}/data/postmaster.pid"))
                .unwrap()
                .uid(),
            0
        );
    }
    let address = server.address();
    drop(server);
    assert!(fs::metadata(&folder).is_err(), "{folder} was left");
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_frozen_server_hangs_until_it_thaws() {
    let Some(server) = Postgres::start_or_leave_out() else {
        return;
    };
    assert_eq!(ask(&server, HANGS), Some(b'N'));
    server.freeze();
    assert_eq!(ask(&server, Duration::from_millis(100)), None);
    server.thaw();
    assert_eq!(ask(&server, HANGS), Some(b'N'));
}

#[test]
fn a_killed_server_comes_back_on_the_same_port() {
    let Some(server) = Postgres::start_or_leave_out() else {
        return;
    };
    let address = server.address();
    server.freeze();
    server.kill();
    assert!(TcpStream::connect(address).is_err());
    server.restart();
    assert_eq!(ask(&server, HANGS), Some(b'N'));
    server.freeze();
    server.restart();
    assert_eq!((server.address(), ask(&server, HANGS)), (address, Some(b'N')));
}

/// The keeper's work: this test runs itself anew, and kills that process.
#[test]
fn a_killed_test_leaves_no_server() {
    const VICTIM: &str = "BEQUEST_TEST_VICTIM";
    if env::var_os(VICTIM).is_some() {
        let Some(server) = Postgres::start_or_leave_out() else {
            return;
        };
        let (address, folder) = (server.address(), folder_of(&format!("{server:?}")));
        writeln!(io::stdout(), "\n{address} {folder}.").unwrap();
        loop {
            thread::park();
        }
    }
    if Postgres::start_or_leave_out().is_none() {
        return;
    }
    let mut victim = Command::new(env::current_exe().unwrap())
        .args(["a_killed_test_leaves_no_server", "--exact", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut output = victim.stdout.take().unwrap();
    while !said.contains("127.0.0.1") || !said.trim_end().ends_with('.') {
        let mut piece = [0; 256];
        let length = output.read(&mut piece).unwrap();
        assert_ne!(length, 0, "{said}");
        said += &String::from_utf8_lossy(&piece[..length]);
    }
    let line = said.lines().find(|line| line.starts_with("127.0.0.1")).unwrap();
    let (address, folder) = line.trim_end_matches('.').split_once(' ').unwrap();
    assert!(TcpStream::connect(address).is_ok());
    victim.kill().unwrap();
    victim.wait().unwrap();
    eventually("the folder is gone", || fs::metadata(folder).is_err());
    assert!(TcpStream::connect(address).is_err());
}

/// The folder, from the server's `Debug`.
fn folder_of(debug: &str) -> String {
    debug
        .split_once("folder: \"")
        .and_then(|(_, rest)| rest.split_once('"'))
        .map(|(folder, _)| folder.to_string())
        .expect("Debug tells the folder")
}

/// What the server answers within `limit`.
fn ask(server: &Postgres, limit: Duration) -> Option<u8> {
    let mut socket = TcpStream::connect(server.address()).unwrap();
    socket.write_all(&QUESTION).unwrap();
    socket.set_read_timeout(Some(limit)).unwrap();
    let mut answer = [0];
    socket.read_exact(&mut answer).ok().map(|()| answer[0])
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + HANGS;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_redis_server_hangs_dies_comes_back_empty_and_leaves_nothing_behind() {
    let Some(server) = Redis::start_or_leave_out() else {
        return;
    };
    let folder = folder_of(&format!("{server:?}"));
    assert_eq!(tell(&server, "SET k v\r\n", HANGS).as_deref(), Some("+OK\r\n"));

    server.freeze();
    assert_eq!(tell(&server, "GET k\r\n", Duration::from_millis(100)), None);
    server.thaw();
    assert_eq!(tell(&server, "EXISTS k\r\n", HANGS).as_deref(), Some(":1\r\n"));

    server.kill();
    assert!(TcpStream::connect(server.address()).is_err());
    server.restart();
    assert_eq!(tell(&server, "EXISTS k\r\n", HANGS).as_deref(), Some(":0\r\n"));

    let address = server.address();
    drop(server);
    assert!(fs::metadata(&folder).is_err(), "{folder} was left");
    assert!(TcpStream::connect(address).is_err());
}

/// What Redis answers to a short command within `limit`.
fn tell(server: &Redis, command: &str, limit: Duration) -> Option<String> {
    let mut socket = TcpStream::connect(server.address()).unwrap();
    socket.write_all(command.as_bytes()).unwrap();
    socket.set_read_timeout(Some(limit)).unwrap();
    let mut answer = [0; 64];
    let length = socket.read(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer[..length]).into_owned())
}

#[test]
fn a_redis_cluster_comes_together_and_a_replica_takes_the_place_of_its_primary() {
    let Some(cluster) = RedisCluster::start_or_leave_out(3, 1) else {
        return;
    };
    assert_eq!(cluster.nodes().len(), 6);
    // `foo` is in slot 12182, which is the third's.
    let (primary, replica) = (cluster.primary_of(12182), cluster.replica_of(2));
    assert_eq!(tell(primary, "SET foo v\r\n", HANGS).as_deref(), Some("+OK\r\n"));
    let moved = tell(&cluster.nodes()[0], "GET foo\r\n", HANGS).unwrap();
    assert_eq!(moved, format!("-MOVED 12182 {}\r\n", primary.address()));
    eventually("it is replicated", || {
        let answer = tell(replica, "READONLY\r\nGET foo\r\n", HANGS).unwrap();
        answer.ends_with("$1\r\nv\r\n")
    });
    primary.kill();
    eventually("the replica has taken its place", || {
        tell(replica, "GET foo\r\n", HANGS).as_deref() == Some("$1\r\nv\r\n")
    });
    primary.restart();
    eventually("it has its place again, as a replica", || {
        tell(primary, "GET foo\r\n", HANGS) == Some(format!("-MOVED 12182 {}\r\n", replica.address()))
    });
}

#[test]
fn a_slot_can_be_moved() {
    let Some(cluster) = RedisCluster::start_or_leave_out(2, 0) else {
        return;
    };
    let (first, second) = (&cluster.nodes()[0], &cluster.nodes()[1]);
    assert_eq!(tell(second, "SET foo v\r\n", HANGS).as_deref(), Some("+OK\r\n"));
    cluster.begin_move(12182, 1, 0);
    // Another key of the slot, which is not there.
    let ask = format!("-ASK 12182 {}\r\n", first.address());
    assert_eq!(tell(second, "GET {foo}2\r\n", HANGS), Some(ask));
    assert_eq!(tell(second, "GET foo\r\n", HANGS).as_deref(), Some("$1\r\nv\r\n"));
    cluster.finish_move(12182, 1, 0);
    let moved = format!("-MOVED 12182 {}\r\n", first.address());
    assert_eq!(tell(second, "GET foo\r\n", HANGS), Some(moved));
    assert_eq!(tell(first, "GET foo\r\n", HANGS).as_deref(), Some("$1\r\nv\r\n"));
}
