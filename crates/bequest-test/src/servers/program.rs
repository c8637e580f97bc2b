//! Where programs are, and which port is free.

use std::env;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use super::error::StartError;

/// The program `name`, from `PATH` or one of `folders`.
pub(super) fn find(name: &'static str, folders: &[PathBuf]) -> Result<PathBuf, StartError> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(folders.iter().cloned())
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .ok_or(StartError::not_installed(name))
}

/// The folders `parent/*/child`, the highest number first: Debian has one for each version.
pub(super) fn versions(parent: &Path, child: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new(); // another system, or not installed
    };
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    found.sort_by_key(|folder| {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        std::cmp::Reverse(name.parse::<u32>().unwrap_or(0))
    });
    found.into_iter().map(|folder| folder.join(child)).collect()
}

/// A port on loopback that nobody listens on at the moment.
pub(super) fn free_port() -> Result<u16, StartError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| StartError::system("looking for a free port", error))
}

/// Two ports on loopback that nobody listens on at the moment.
pub(super) fn free_ports() -> Result<[u16; 2], StartError> {
    let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    // Both are held before either is let go, so they differ.
    let held = free().and_then(|first| Ok([first.local_addr()?.port(), free()?.local_addr()?.port()]));
    held.map_err(|error| StartError::system("looking for free ports", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_not_installed() {
        assert!(find("sh", &[]).unwrap().is_absolute());
        assert!(find("no such program", &[]).unwrap_err().is_not_installed());
    }

    #[test]
    fn the_newest_version_comes_first() {
        let parent = env::temp_dir().join(format!("bequest-versions-{}", std::process::id()));
        for version in ["9", "15", "14"] {
            fs::create_dir_all(parent.join(version)).unwrap();
        }
        let found = versions(&parent, "bin");
        fs::remove_dir_all(&parent).unwrap();
        assert_eq!(found, ["15/bin", "14/bin", "9/bin"].map(|end| parent.join(end)));
    }
}
