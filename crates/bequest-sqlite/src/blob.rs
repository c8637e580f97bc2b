//! Blobs, read and written in pieces, each of which is a look at the context.
//!
//! SQLite reads and writes a blob's pieces without its virtual machine, so none of the hooks of a connection is asked: a loop
//! over them would run to its end. What does ask is the preparing of a statement. So one is prepared before each piece, the
//! smallest that there is; it costs a few microseconds, beside 64 KiB of reading or writing.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom, Write};

use rusqlite::types::Type;
use rusqlite::{Connection, MAIN_DB, blob};

/// How much is read or written between two looks at the context, in bytes.
const PIECE: usize = 64 * 1024;

/// A blob that is read or written piece by piece, and stops when the context of its work does.
///
/// It is opened within the work of [`Database::read`](crate::Database::read) or [`write`](crate::Database::write), never
/// all of it in memory, and its size can not change: to write one, insert a `zeroblob` first, in the same transaction.
/// When the context ends, the next piece is an error, and the work's answer is the context's end, whatever the work made of
/// the error; what was written is rolled back.
///
/// # Example
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use bequest::Context;
/// use bequest_sqlite::{Blob, Database};
///
/// let ctx = Context::background();
/// let db = Database::temporary(&ctx).await?;
/// db.execute_batch(&ctx, "CREATE TABLE photo (id INTEGER PRIMARY KEY, data BLOB)").await?;
///
/// let mut upload = &b"as many bytes as announced"[..];
/// let id = db.write(&ctx, move |tx| {
///     tx.execute("INSERT INTO photo (data) VALUES (zeroblob(?1))", [upload.len() as i64])?;
///     let id = tx.last_insert_rowid();
///     Blob::open_mut(tx, "photo", "data", id)?.copy_from(&mut upload)?;
///     Ok(id)
/// }).await?;
///
/// let text = db.read(&ctx, move |conn| {
///     let mut blob = Blob::open(conn, "photo", "data", id)?;
///     let mut text = vec![0; 8];
///     blob.read_at(&mut text, 8)?;
///     Ok(text)
/// }).await?;
/// assert_eq!(text, b"bytes as");
/// # Ok(()) }
/// ```
pub struct Blob<'conn> {
    conn: &'conn Connection,
    blob: blob::Blob<'conn>,
}

impl<'conn> Blob<'conn> {
    /// Opens the blob in `column` of the row `row` (its `rowid`), for reading.
    ///
    /// # Errors
    ///
    /// If there is no such row, or no blob or text in it; if the context has ended.
    pub fn open(
        conn: &'conn Connection,
        table: &str,
        column: &str,
        row: i64,
    ) -> rusqlite::Result<Blob<'conn>> {
        let blob = conn.blob_open(MAIN_DB, table, column, row, true)?;
        Ok(Blob { conn, blob })
    }

    /// As [`open`](Blob::open), for reading and writing.
    ///
    /// # Errors
    ///
    /// As there; if the column is part of an index or a foreign key.
    pub fn open_mut(
        conn: &'conn Connection,
        table: &str,
        column: &str,
        row: i64,
    ) -> rusqlite::Result<Blob<'conn>> {
        let blob = conn.blob_open(MAIN_DB, table, column, row, false)?;
        Ok(Blob { conn, blob })
    }

    /// Its size in bytes.
    pub fn len(&self) -> usize {
        self.blob.len()
    }

    /// Whether its size is nothing.
    pub fn is_empty(&self) -> bool {
        self.blob.is_empty()
    }

    /// Fills `buffer` with what stands at `position` and after it.
    ///
    /// # Errors
    ///
    /// If that is beyond the blob's end; if the row was changed meanwhile; if the context has ended.
    pub fn read_at(&self, buffer: &mut [u8], position: usize) -> rusqlite::Result<()> {
        let mut at = position;
        for piece in buffer.chunks_mut(PIECE) {
            self.look()?;
            self.blob.read_at_exact(piece, at)?;
            at += piece.len();
        }
        Ok(())
    }

    /// Writes `bytes` over what stands at `position` and after it.
    ///
    /// # Errors
    ///
    /// If that goes beyond the blob's end; if the row was changed meanwhile; if the context has ended.
    pub fn write_at(&mut self, bytes: &[u8], position: usize) -> rusqlite::Result<()> {
        let mut at = position;
        for piece in bytes.chunks(PIECE) {
            self.look()?;
            self.blob.write_all_at(piece, at)?;
            at += piece.len();
        }
        Ok(())
    }

    /// Hands what is left, from the present position on, to `sink`, and returns how many bytes that were.
    ///
    /// # Errors
    ///
    /// As [`read_at`](Blob::read_at); what the sink said.
    pub fn copy_to(&mut self, sink: &mut impl Write) -> rusqlite::Result<u64> {
        self.copy(|blob| io::copy(blob, sink))
            .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, error.into()))?
    }

    /// Writes all that `source` has, from the present position on, and returns how many bytes that were.
    ///
    /// # Errors
    ///
    /// As [`write_at`](Blob::write_at); what the source said.
    pub fn copy_from(&mut self, source: &mut impl Read) -> rusqlite::Result<u64> {
        self.copy(|blob| io::copy(source, blob))
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?
    }

    /// The inner error is SQLite's, the outer one somebody else's.
    fn copy(&mut self, copy: impl FnOnce(&mut Self) -> io::Result<u64>) -> io::Result<rusqlite::Result<u64>> {
        match copy(self) {
            Ok(bytes) => Ok(Ok(bytes)),
            Err(error) => error.downcast::<rusqlite::Error>().map(Err),
        }
    }

    /// Has the connection look at the context of its work.
    fn look(&self) -> rusqlite::Result<()> {
        self.conn.prepare("SELECT 1").map(drop)
    }
}

impl Read for Blob<'_> {
    /// Reads at most 64 KiB.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.look().map_err(io::Error::other)?;
        let most = buffer.len().min(PIECE);
        self.blob.read(&mut buffer[..most])
    }
}

impl Write for Blob<'_> {
    /// Writes at most 64 KiB; nothing at the blob's end.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.look().map_err(io::Error::other)?;
        self.blob.write(&bytes[..bytes.len().min(PIECE)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.blob.flush()
    }
}

impl Seek for Blob<'_> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.blob.seek(position)
    }
}

impl fmt::Debug for Blob<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blob")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
