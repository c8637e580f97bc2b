//! One direction of one connection.
//!
//! Two halves, so that a delay takes nothing from the throughput: one reads and notes when each piece is due, the
//! other waits for that instant and writes. The queue between them is bounded, so a reader that does not read still
//! holds its sender back.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::Faults;

/// The most that is read at once.
const PIECE: usize = 16 * 1024;
/// The most pieces on their way.
const PIECES: usize = 64;

/// What is on its way: bytes, or the end if there are none.
struct Piece {
    due: Instant,
    bytes: Vec<u8>,
}

/// Moves bytes until the end of the stream has arrived too. An error is the end of the whole connection. `open` is dropped
/// when the end has been read, and before it is passed on.
pub(super) async fn pump<T>(
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    faults: watch::Receiver<Faults>,
    seed: u64,
    open: T,
) -> io::Result<()> {
    let (queue, queued) = mpsc::channel(PIECES);
    tokio::try_join!(
        receive(from, queue, faults.clone(), seed, open),
        deliver(to, queued, faults)
    )?;
    Ok(())
}

async fn receive<T>(
    mut from: ReadHalf<'_>,
    queue: mpsc::Sender<Piece>,
    faults: watch::Receiver<Faults>,
    seed: u64,
    open: T,
) -> io::Result<()> {
    let mut open = Some(open);
    let mut random = Random(seed);
    let mut due = Instant::now();
    loop {
        let mut bytes = Vec::with_capacity(PIECE);
        let length = from.read_buf(&mut bytes).await?;
        let now = *faults.borrow();
        due = due.max(Instant::now() + now.latency + random.up_to(now.jitter));
        let piece = Piece { due, bytes };
        if length == 0 {
            open.take();
        }
        if queue.send(piece).await.is_err() || length == 0 {
            return Ok(());
        }
    }
}

async fn deliver(
    mut to: WriteHalf<'_>,
    mut queued: mpsc::Receiver<Piece>,
    mut faults: watch::Receiver<Faults>,
) -> io::Result<()> {
    let mut delivered = 0;
    while let Some(Piece { due, bytes }) = queued.recv().await {
        sleep_until(due).await;
        if bytes.is_empty() {
            passable(&mut faults).await?;
            return to.shutdown().await;
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let now = passable(&mut faults).await?;
            let left = now.cut_after.map(|cut| cut.saturating_sub(delivered));
            let length = slice(rest.len(), now, left);
            if length > 0 {
                to.write_all(&rest[..length]).await?;
            }
            delivered += length as u64;
            rest = &rest[length..];
            if left == Some(length as u64) || left == Some(0) {
                return Err(io::Error::other("cut"));
            }
            if let Some((_, gap)) = now.slice {
                sleep(gap).await;
            }
        }
    }
    Ok(())
}

/// The faults, as soon as there is no black hole among them.
async fn passable(faults: &mut watch::Receiver<Faults>) -> io::Result<Faults> {
    let now = faults.wait_for(|faults| !faults.black_hole).await;
    now.map(|faults| *faults).map_err(io::Error::other)
}

fn slice(length: usize, now: Faults, left: Option<u64>) -> usize {
    let size = now.slice.map_or(length, |(size, _)| size.get().min(length));
    match left {
        Some(left) => size.min(usize::try_from(left).unwrap_or(usize::MAX)),
        None => size,
    }
}

/// SplitMix64: small, even, and the same everywhere.
struct Random(u64);

impl Random {
    fn up_to(&mut self, most: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        // The upper 53 bits are as many as a float can hold exactly.
        most.mul_f64((mixed >> 11) as f64 / (1u64 << 53) as f64)
    }
}
