//! Under which account a server runs.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::error::StartError;

/// The account of a server; for anybody but root, their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Account(Option<Ids>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ids {
    user: u32,
    group: u32,
}

impl Account {
    /// The first of `names` that this system has, or `nobody`, if we are root. `folder` is one that we have just made,
    /// and so tells who we are.
    pub(super) fn choose(names: &[&str], folder: &Path) -> Result<Account, StartError> {
        let ours =
            fs::metadata(folder).map_err(|error| StartError::system("looking at the folder", error))?;
        if ours.uid() != 0 {
            return Ok(Account(None));
        }
        let accounts = fs::read_to_string("/etc/passwd")
            .map_err(|error| StartError::system("reading the accounts", error))?;
        names
            .iter()
            .chain(&["nobody"])
            .find_map(|name| find(&accounts, name))
            .map(|ids| Account(Some(ids)))
            .ok_or_else(|| {
                StartError::refused("root may not run it, and there is no other account to run it under")
            })
    }

    /// Hands `path` over to the account.
    pub(super) fn own(self, path: &Path) -> Result<(), StartError> {
        let Some(ids) = self.0 else { return Ok(()) };
        chown(path, Some(ids.user), Some(ids.group))
            .map_err(|error| StartError::system("handing the folder over", error))
    }

    /// Has `command` run under the account, without any of root's groups.
    pub(super) fn run(self, command: &mut Command) -> &mut Command {
        match self.0 {
            Some(ids) => command.uid(ids.user).gid(ids.group),
            None => command,
        }
    }
}

fn find(accounts: &str, name: &str) -> Option<Ids> {
    let line = accounts
        .lines()
        .find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    let user = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    (user != 0).then_some(Ids { user, group })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNTS: &str =
        "root:x:0:0:root:/root:/bin/sh\npost:x:7:7::/:\npostgres:x:101:104:,,,:/var/lib:/bin/bash\n";

    #[test]
    fn an_account_is_found_by_its_whole_name_and_is_never_root() {
        assert_eq!(
            find(ACCOUNTS, "postgres"),
            Some(Ids {
                user: 101,
                group: 104
            })
        );
        assert_eq!(find(ACCOUNTS, "postgre"), None);
        assert_eq!(find(ACCOUNTS, "root"), None);
    }
}
