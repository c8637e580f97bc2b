//! Blobs end with their context, between two pieces, and what was written is rolled back.

mod common;

use std::io::{self, Read, Seek, SeekFrom};
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use bequest_sqlite::rusqlite::{self, Connection, MAIN_DB};
use bequest_sqlite::{Blob, Database, Step};
use common::{ROOT, database, eventually, rows, told, within};

const SIZE: usize = 300_000;

/// A database with a blob in its first row, whose bytes count.
async fn with_blob() -> Database {
    let db = database().await;
    let bytes: Vec<u8> = (0..SIZE).map(|number| number as u8).collect();
    within(db.execute(&ROOT, "INSERT INTO t VALUES (?1)", [bytes]))
        .await
        .unwrap();
    db
}

/// Reads the blob again and again, telling `turns` how often.
fn read_for_ever(turns: &AtomicU64, blob: &mut (impl Read + Seek)) -> io::Result<()> {
    loop {
        blob.seek(SeekFrom::Start(0))?;
        io::copy(blob, &mut io::sink())?;
        // Only ever counted up, and looked at by whoever waits for more.
        turns.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_blob_is_read_and_written_whole_and_in_parts() {
    let db = with_blob().await;
    let write = db.write(&ROOT, |tx| {
        let mut blob = Blob::open_mut(tx, "t", "x", 1)?;
        assert_eq!((blob.len(), blob.is_empty()), (SIZE, false));
        blob.write_at(&[7; 200_000], 50_000)?;
        blob.seek(SeekFrom::Start(290_000)).unwrap();
        blob.copy_from(&mut io::repeat(9).take(10_000))
    });
    assert_eq!(within(write).await.unwrap(), 10_000);
    let read = db.read(&ROOT, |conn| {
        let mut blob = Blob::open(conn, "t", "x", 1)?;
        let mut part = vec![0; 250_000];
        blob.read_at(&mut part, 40_000)?;
        let mut whole = Vec::new();
        blob.copy_to(&mut whole)?;
        Ok((part, whole))
    });
    let (part, whole) = within(read).await.unwrap();
    let expected: Vec<u8> = (0..SIZE)
        .map(|at| match at {
            50_000..250_000 => 7,
            290_000.. => 9,
            at => at as u8,
        })
        .collect();
    assert!(whole == expected && part == expected[40_000..290_000]);
}

#[tokio::test]
async fn what_does_not_fit_or_is_not_there_is_an_error() {
    let db = with_blob().await;
    let beyond = db.write(&ROOT, |tx| Blob::open_mut(tx, "t", "x", 1)?.write_at(&[1], SIZE));
    assert!(within(beyond).await.unwrap_err().sqlite().is_some());
    let much = db.write(&ROOT, |tx| {
        Blob::open_mut(tx, "t", "x", 1)?.copy_from(&mut io::repeat(1).take(SIZE as u64 + 1))
    });
    let error = within(much).await.unwrap_err();
    assert!(!error.is_canceled(), "{error}");
    let first = db.read(&ROOT, |conn| {
        let mut byte = [9];
        Blob::open(conn, "t", "x", 1)?
            .read_at(&mut byte, 0)
            .map(|()| byte)
    });
    assert_eq!(within(first).await.unwrap(), [0], "rolled back");
    let absent = db.read(&ROOT, |conn| Blob::open(conn, "t", "x", 2).map(|blob| blob.len()));
    assert!(within(absent).await.is_err());
    let broken = db.read(&ROOT, |conn| {
        let mut full: &mut [u8] = &mut [0; 10];
        Blob::open(conn, "t", "x", 1)?.copy_to(&mut full)
    });
    let error = within(broken).await.unwrap_err();
    assert!(matches!(
        error.sqlite(),
        Some(rusqlite::Error::FromSqlConversionFailure(..))
    ));
}

#[tokio::test]
async fn reading_a_blob_ends_with_the_context() {
    let db = with_blob().await;
    let turns = Arc::new(AtomicU64::new(0));
    let request = ROOT.with_cancel();
    let counted = Arc::clone(&turns);
    let read = db.read(&request, move |conn| {
        let mut blob = Blob::open(conn, "t", "x", 1)?;
        // Swallowed: what was cut off is no answer all the same.
        Ok(read_for_ever(&counted, &mut blob).is_err())
    });
    let leave = async {
        eventually("it reads", || turns.load(Ordering::Relaxed) > 3).await;
        request.cancel();
    };
    let (answer, ()) = within(async { tokio::join!(read, leave) }).await;
    let error = answer.unwrap_err();
    assert!(error.canceled().unwrap().is_from(&request));
    assert_eq!(error.step(), Step::Running);
    assert_eq!(db.statistics().running(), 0);
    assert_eq!(rows(&db).await, 1);
    assert_eq!(db.statistics().readers.discarded, 0);
}

/// SQLite's own reading of a blob asks nobody.
#[tokio::test]
async fn control_the_drivers_blob_is_read_on_after_the_cancel() {
    let db = with_blob().await;
    let turns = Arc::new(AtomicU64::new(0));
    let (enough, is_enough) = mpsc::channel::<()>();
    let request = ROOT.with_cancel();
    let counted = Arc::clone(&turns);
    let read = db.read(&request, move |conn| {
        let mut blob = conn.blob_open(MAIN_DB, "t", "x", 1, true)?;
        while is_enough.try_recv().is_err() {
            blob.seek(SeekFrom::Start(0)).unwrap();
            io::copy(&mut blob, &mut io::sink()).unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    });
    let leave = async {
        eventually("it reads", || turns.load(Ordering::Relaxed) > 3).await;
        request.cancel();
        let then = turns.load(Ordering::Relaxed);
        eventually("it reads on", || turns.load(Ordering::Relaxed) > then + 100).await;
        enough.send(()).unwrap();
    };
    let (answer, ()) = within(async { tokio::join!(read, leave) }).await;
    answer.unwrap();
}

#[tokio::test]
async fn d10_writing_a_blob_that_is_cancelled_is_rolled_back() {
    let db = with_blob().await;
    for drops in [true, false] {
        let (begun, beginning) = mpsc::channel();
        let request = ROOT.with_cancel();
        let mut write = Box::pin(db.write(&request, move |tx: &rusqlite::Transaction<'_>| {
            tx.execute("INSERT INTO t VALUES (zeroblob(10))", ())?;
            let mut blob = Blob::open_mut(tx, "t", "x", 1)?;
            loop {
                blob.write_at(&[0xff; SIZE], 0)?;
                let _ = begun.send(()); // whoever has left need not be told
            }
            #[expect(unreachable_code, reason = "it gives the work its type")]
            Ok(())
        }));
        let leave = async {
            told(&beginning).await;
            request.cancel();
        };
        if drops {
            common::poll_once(&mut write).await;
            told(&beginning).await;
            drop(write);
        } else {
            let (answer, ()) = within(async { tokio::join!(write, leave) }).await;
            assert!(answer.unwrap_err().is_canceled());
        }
        let first = db.read(&ROOT, |conn| {
            let mut bytes = [0; 3];
            Blob::open(conn, "t", "x", 1)?
                .read_at(&mut bytes, 0)
                .map(|()| bytes)
        });
        assert_eq!(within(first).await.unwrap(), [0, 1, 2]);
        assert_eq!(rows(&db).await, 1);
    }
    let lane = db.statistics().writer;
    assert_eq!((lane.rolled_back, lane.discarded), (2, 0), "{lane:?}");
}

/// It would hold its snapshot for ever.
#[tokio::test]
async fn a_connection_with_a_leaked_blob_is_replaced() {
    let db = with_blob().await;
    let leak = db.read(&ROOT, |conn: &Connection| {
        let _leaked = ManuallyDrop::new(Blob::open(conn, "t", "x", 1)?);
        Ok(())
    });
    within(leak).await.unwrap();
    assert_eq!(db.statistics().readers.discarded, 1);
    within(db.execute(&ROOT, "INSERT INTO t VALUES (3)", ()))
        .await
        .unwrap();
    assert_eq!(rows(&db).await, 2, "the next user sees the newest state");
}
