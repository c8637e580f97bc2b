//! How a database is opened.

use std::fmt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use bequest::Context;
use rusqlite::Connection;

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
#[must_use = "options do nothing until they are opened"]
pub struct Options {
    path: PathBuf,
    folder: Option<TemporaryFolder>,
    readers: usize,
    busy_limit: Duration,
    set_up: Option<SetUp>,
}

/// What is done with every new connection.
pub(crate) struct SetUp(pub(crate) Box<Work>);

type Work = dyn Fn(&Connection) -> rusqlite::Result<()> + Send + Sync;

/// What every connection of a database is opened with.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) path: PathBuf,
    pub(crate) busy_limit: Duration,
    pub(crate) set_up: Option<SetUp>,
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
            set_up: None,
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

    /// What is done with every connection when it is opened, the writer's and each reader's, and any that replaces one:
    /// pragmas, functions (feature `functions`), collations, temporary tables, attached databases.
    ///
    /// Readers can not write to the file; [`Connection::is_readonly`] tells them apart. It is under the context of the call
    /// for which the connection is opened, and ends with it. It is not for the schema: what it writes to the file is not
    /// undone if it fails half-way. Hooks that it installs are replaced by this crate's own.
    ///
    /// # Example
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use bequest::Context;
    /// # use bequest_sqlite::Options;
    /// let ctx = Context::background();
    /// let options = Options::temporary()?.set_up(|conn| conn.pragma_update(None, "cache_size", -16_000)); // 16 MB
    /// let db = options.open(&ctx).await?;
    /// let size = db.query_one(&ctx, "PRAGMA cache_size", (), |row| row.get::<_, i64>(0)).await?;
    /// assert_eq!(size, -16_000);
    /// # Ok(()) }
    /// ```
    pub fn set_up<F>(mut self, work: F) -> Options
    where
        F: Fn(&Connection) -> rusqlite::Result<()> + Send + Sync + 'static,
    {
        self.set_up = Some(SetUp(Box::new(work)));
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
    /// which file. If `ctx` ends while another connection keeps the file locked. If the set-up fails. If a thread can not be started.
    pub async fn open(self, ctx: &Context) -> Result<Database, Error> {
        let settings = Settings {
            path: self.path,
            busy_limit: self.busy_limit,
            set_up: self.set_up,
            _folder: self.folder,
        };
        Database::start(ctx, settings, self.readers).await
    }
}

impl fmt::Debug for SetUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SetUp").finish_non_exhaustive()
    }
}
