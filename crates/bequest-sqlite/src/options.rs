//! How a database is opened.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use bequest::Context;

use crate::client::Database;
use crate::error::Error;
use crate::temporary::TemporaryFolder;

/// How a database is opened: [`Database::open`] with settings.
///
/// # Example
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use bequest::Context;
/// use bequest_sqlite::Options;
///
/// let ctx = Context::background();
/// let db = Options::temporary()?.readers(2).open(&ctx).await?;
/// assert_eq!(db.statistics().readers.threads, 2);
/// assert_eq!(db.statistics().writer.threads, 1);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Options {
    path: PathBuf,
    folder: Option<TemporaryFolder>,
    readers: usize,
    busy_limit: Duration,
}

/// What every connection of a database is opened with.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) path: PathBuf,
    pub(crate) busy_limit: Duration,
    /// Removed when the last connection is closed and the last handle dropped.
    pub(crate) _folder: Option<TemporaryFolder>,
}

impl Options {
    /// The database in the file at `path`, which is made if it is not there. Its folder must exist.
    pub fn new(path: impl Into<PathBuf>) -> Options {
        let cores = thread::available_parallelism().map_or(2, usize::from);
        Options {
            path: path.into(),
            folder: None,
            readers: cores.clamp(2, 8),
            busy_limit: Duration::from_secs(60),
        }
    }

    /// A new database in a folder of its own under the system's temporary folder; it is removed after the last handle
    /// has been dropped and the threads have ended.
    ///
    /// # Errors
    ///
    /// If the folder can not be made.
    pub fn temporary() -> Result<Options, Error> {
        let folder = TemporaryFolder::new()?;
        let options = Options::new(folder.path().join("database.sqlite"));
        Ok(Options {
            folder: Some(folder),
            ..options
        })
    }

    /// How many threads read, at least 1. If not set: one per core, from 2 to 8.
    pub fn readers(mut self, threads: usize) -> Options {
        self.readers = threads.max(1);
        self
    }

    /// How long a call waits for a lock that another connection to the file holds (another process, since this
    /// handle's own writes queue up), if its context does not end before. If not set: 60 seconds.
    ///
    /// It is a net under contexts without a deadline, not the limit to work with.
    pub fn busy_limit(mut self, limit: Duration) -> Options {
        self.busy_limit = limit;
        self
    }

    /// Opens the database and starts its threads.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped or `ctx` ends, the threads end and the file is closed. A new, empty file may be left.
    ///
    /// # Errors
    ///
    /// If the file can not be opened, is not a database, or is on a file system without shared memory: the text says
    /// which file. If `ctx` ends while another connection keeps the file locked. If a thread can not be started.
    pub async fn open(self, ctx: &Context) -> Result<Database, Error> {
        let settings = Settings {
            path: self.path,
            busy_limit: self.busy_limit,
            _folder: self.folder,
        };
        Database::start(ctx, settings, self.readers).await
    }
}
