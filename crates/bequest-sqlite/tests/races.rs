//! A cancel that comes late must not hit the next user of the connection.

mod common;

use std::sync::mpsc;
use std::thread;

use bequest::Canceller;
use bequest_sqlite::rusqlite::{Connection, ErrorCode};
use common::{ROOT, database, within};

/// A few thousand steps of SQLite's virtual machine.
const SHORT: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?1) SELECT max(i) FROM n";

const ROUNDS: usize = 3000;

/// One user is cancelled at about the end of a query; the next user's query is queued right behind it, on the same
/// connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_cancel_never_hits_the_next_user() {
    let db = database().await;
    let (tell, told) = mpsc::channel::<(Canceller, usize)>();
    let canceller = thread::spawn(move || {
        for (canceller, delay) in told {
            for _ in 0..delay {
                std::hint::spin_loop();
            }
            canceller.cancel();
        }
    });

    let (mut finished, mut cancelled, mut delay) = (0, 0, 1000);
    for round in 0..ROUNDS {
        let request = ROOT.with_cancel();
        tell.send((request.canceller(), delay)).unwrap();
        let first = db.query_one(&request, SHORT, [400], |row| row.get::<_, i64>(0));
        let next = db.query_one(&ROOT, SHORT, [401], |row| row.get::<_, i64>(0));
        let (first, next) = within(async { tokio::join!(first, next) }).await;
        assert_eq!(next.expect("a stranger's cancel"), 401, "round {round}");
        // Whatever the machine, the delay settles where the cancel meets the end of the query.
        delay = if first.is_ok() {
            delay * 7 / 8
        } else {
            delay * 9 / 8 + 10
        };
        match first {
            Ok(400) => finished += 1,
            Ok(other) => panic!("somebody else's answer: {other}"),
            Err(error) if error.is_canceled() => cancelled += 1,
            Err(error) => panic!("{error}"),
        }
    }
    drop(tell);
    canceller.join().unwrap();
    assert_eq!(finished + cancelled, ROUNDS);
    assert!(
        finished > 0 && cancelled > 0,
        "no race: {finished} finished, {cancelled} cancelled"
    );
    assert_eq!(db.statistics().running(), 0);
}

/// The control, with the race held still: the first query has ended, the second runs, and the first user's cancel
/// arrives by way of the connection's interrupt handle.
#[test]
fn control_a_late_interrupt_kills_the_next_query() {
    let mut conn = Connection::open_in_memory().unwrap();
    let cancel_of_the_first = conn.get_interrupt_handle();
    let first: i64 = conn.query_row(SHORT, [400], |row| row.get(0)).unwrap();
    assert_eq!(first, 400);

    let (running, runs) = mpsc::channel();
    let (interrupted, goes_on) = mpsc::channel();
    let late = thread::spawn(move || {
        runs.recv().unwrap();
        cancel_of_the_first.interrupt();
        interrupted.send(()).unwrap();
    });
    let mut waited = false;
    let wait_once = move || {
        if !std::mem::replace(&mut waited, true) {
            running.send(()).unwrap();
            goes_on.recv().unwrap();
        }
        false
    };
    conn.progress_handler(1000, Some(wait_once)).unwrap();
    let second = conn
        .query_row(SHORT, [4000], |row| row.get::<_, i64>(0))
        .unwrap_err();
    assert_eq!(second.sqlite_error_code(), Some(ErrorCode::OperationInterrupted));
    late.join().unwrap();
}
