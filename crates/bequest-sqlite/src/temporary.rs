//! A folder that is removed when its owner is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::Error;

/// A folder of our own under the system's temporary folder. Dropping it removes it with all that is in it.
#[derive(Debug)]
pub(crate) struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    pub(crate) fn new() -> Result<TemporaryFolder, Error> {
        loop {
            let path = std::env::temp_dir().join(name());
            match private_folder(&path) {
                Ok(()) => return Ok(TemporaryFolder(path)),
                // Somebody had the same idea; the next name differs.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::system("making a temporary folder", error)),
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // If it can not be removed, it is left to whatever cleans the temporary folder; nobody is left to be told.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A name that no other call has, in this process or, as far as the clock tells, any other.
fn name() -> String {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed); // only uniqueness is asked for
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.subsec_nanos());
    format!("bequest-sqlite-{}-{call}-{now:x}", process::id())
}

#[cfg(unix)]
fn private_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().mode(0o700).create(path)
}

#[cfg(not(unix))]
fn private_folder(path: &Path) -> io::Result<()> {
    fs::create_dir(path)
}
