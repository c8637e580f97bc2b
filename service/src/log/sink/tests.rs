//! A log whose disk is slow, full or gone.

use super::*;
use std::sync::mpsc;

/// What was written, and a gate before each write: the next message says what becomes of it.
struct Gated {
    written: Arc<Mutex<Vec<u8>>>,
    next: mpsc::Receiver<Verdict>,
}

enum Verdict {
    /// Everything from now on.
    Open,
    /// This many bytes, and then an error.
    FailAfter(usize),
}

/// A sink whose writes wait for verdicts.
fn gated(most: usize) -> (Sink, mpsc::Sender<Verdict>, Arc<Mutex<Vec<u8>>>) {
    let (tell, next) = mpsc::channel();
    let written = Arc::new(Mutex::new(Vec::new()));
    let mut once = Some(Gated {
        written: Arc::clone(&written),
        next,
    });
    let open = move || match once.take() {
        Some(gated) => Ok(Box::new(gated) as Box<dyn Write + Send>),
        None => Err(io::Error::other("there is only one")),
    };
    (
        Sink::with_limit("test", Box::new(open), most).unwrap(),
        tell,
        written,
    )
}

impl Write for Gated {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = self.written.lock().unwrap();
        match self.next.recv() {
            Ok(Verdict::FailAfter(0)) => Err(io::ErrorKind::StorageFull.into()),
            Ok(Verdict::FailAfter(some)) => {
                let some = some.min(bytes.len());
                written.extend_from_slice(&bytes[..some]);
                Ok(some)
            }
            // The sender is gone or says so: all is well.
            Ok(Verdict::Open) | Err(_) => {
                written.extend_from_slice(bytes);
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_slow_disk_stalls_nobody_and_loses_nothing() {
    let ctx = Context::background();
    let (sink, verdict, written) = gated(1 << 20);
    for number in 0..1000 {
        sink.write(&format!("line {number}\n"));
    }
    // Nothing is let through yet, and all of them have been taken.
    assert_eq!(
        sink.counts(),
        Counts {
            accepted: 1000,
            ..Counts::default()
        }
    );
    let impatient = ctx.with_timeout(Duration::from_millis(20));
    assert!(sink.flush(&impatient).await.unwrap_err().is_from(&impatient));
    drop(verdict);
    sink.flush(&ctx).await.unwrap();
    let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
    let expected: String = (0..1000).map(|number| format!("line {number}\n")).collect();
    assert_eq!(text, expected);
}

/// The control: who writes the file itself waits for it.
#[test]
fn control_a_direct_write_waits_for_the_disk() {
    let (verdict, next) = mpsc::channel();
    let mut gate = Gated {
        written: Arc::default(),
        next,
    };
    let (done, is_done) = mpsc::channel();
    let (begun, has_begun) = mpsc::channel();
    let request = thread::spawn(move || {
        begun.send(()).unwrap();
        gate.write_all(b"line\n").unwrap();
        done.send(()).unwrap();
    });
    has_begun.recv().unwrap();
    assert!(
        is_done.try_recv().is_err(),
        "no request gets past a disk that does not answer"
    );
    verdict.send(Verdict::Open).unwrap();
    request.join().unwrap();
    is_done.recv().unwrap();
}

#[tokio::test]
async fn a_torn_line_is_completed_and_the_failure_counted() {
    let ctx = Context::background();
    let (sink, verdict, written) = gated(1 << 20);
    verdict.send(Verdict::FailAfter(3)).unwrap();
    verdict.send(Verdict::FailAfter(0)).unwrap();
    sink.write("first\n");
    while sink.counts().failures == 0 {
        tokio::task::yield_now().await;
    }
    sink.write("second\n");
    // Whoever made room may say so with a SIGHUP; otherwise it is tried again by itself.
    sink.reopen();
    drop(verdict);
    sink.flush(&ctx).await.unwrap();
    assert_eq!(*written.lock().unwrap(), b"first\nsecond\n");
    let counts = sink.counts();
    assert_eq!((counts.accepted, counts.lost), (2, 0));
    assert_eq!(
        counts.failures, 2,
        "the write, and the reopening that found nothing"
    );
}

#[tokio::test]
async fn a_full_queue_loses_lines_and_counts_them() {
    let ctx = Context::background();
    let (sink, verdict, written) = gated(64);
    for _ in 0..100 {
        sink.write("0123456789\n");
    }
    let counts = sink.counts();
    assert_eq!(counts.accepted + counts.lost, 100);
    assert!(counts.lost >= 85, "{counts:?}");
    drop(verdict);
    sink.close(&ctx).await.unwrap();
    let lines = written.lock().unwrap().len() as u64 / 11;
    assert_eq!(lines, counts.accepted);
    sink.write("too late\n");
    assert_eq!(sink.counts().lost, counts.lost + 1, "a closed log takes nothing");
}
