//! A server's process, its folder, and the keeper that ends both.
//!
//! # Invariants
//!
//! 1. The keeper is started before the server and outlives this process. It is told the server's process id by a line on
//!    its standard input; the end of that input is its sign to kill the server and remove the folder.
//! 2. The server is a child of ours, so its process id names nobody else until we have reaped it.
//! 3. After an orderly end the keeper is told that no server is left, before the child is reaped.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::account::Account;
use super::error::StartError;

/// How long a server may take to start or to end.
const LIMIT: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Waits for the end of its input, then kills what the last line named, and removes the folder. A stopped process has
/// to go on to be able to die, and its children die by it.
const KEEPER: &str = r#"
server=
while read -r line; do server=$line; done
if [ -n "$server" ]; then
    kill -s QUIT "$server" 2>/dev/null && kill -s CONT "$server" 2>/dev/null
    tries=0
    while kill -0 "$server" 2>/dev/null && [ $tries -lt 100 ]; do tries=$((tries + 1)); sleep 0.05; done
    kill -s KILL "$server" 2>/dev/null
fi
rm -rf "$0"
"#;

/// A temporary folder with an account of its own, in which one server at a time runs.
#[derive(Debug)]
pub(super) struct Process {
    folder: PathBuf,
    account: Account,
    keeper: Child,
    /// `None` only while dropping.
    line: Option<ChildStdin>,
    server: Option<Child>,
}

impl Process {
    /// Makes the folder, `name` being part of its own name, under the first of `accounts` that there is.
    pub(super) fn prepare(name: &str, accounts: &[&str]) -> Result<Process, StartError> {
        let folder = make_folder(name).map_err(|error| StartError::system("making a folder", error))?;
        match keep(&folder, accounts) {
            Ok((account, mut keeper)) => Ok(Process {
                line: keeper.stdin.take(),
                folder,
                account,
                keeper,
                server: None,
            }),
            Err(error) => {
                fs::remove_dir_all(&folder)
                    .map_err(|error| StartError::system("removing a folder", error))?;
                Err(error)
            }
        }
    }

    /// The folder, which the server may write to.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs a program to its end, under the account.
    pub(super) fn run(&self, program: &Path, arguments: &[&OsStr]) -> Result<(), StartError> {
        let output = self
            .command(program, arguments)
            .output()
            .map_err(|error| StartError::system("running a program", error))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(StartError::refused(format!(
            "{}: {}: {said}",
            program.display(),
            output.status
        )))
    }

    /// Writes a file that only the account can read.
    pub(super) fn write(&self, path: &Path, text: &str) -> Result<(), StartError> {
        let write = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)?;
            file.write_all(text.as_bytes())
        };
        write().map_err(|error| StartError::system("writing a file", error))?;
        self.account.own(path)
    }

    /// Starts the server, and waits until `ready` says so of its process id.
    pub(super) fn start(
        &mut self,
        program: &Path,
        arguments: &[&OsStr],
        mut ready: impl FnMut(u32) -> bool,
    ) -> Result<(), StartError> {
        let system = |error| StartError::system("starting the server", error);
        let log = File::create(self.log()).map_err(system)?;
        let server = self
            .command(program, arguments)
            .stdout(log.try_clone().map_err(system)?)
            .stderr(log)
            .spawn()
            .map_err(system)?;
        let id = server.id();
        self.server = Some(server);
        self.tell_keeper(Some(id)).map_err(system)?;
        let deadline = Instant::now() + LIMIT;
        while !ready(id) {
            if let Some(status) = self.exited() {
                return Err(StartError::refused(format!(
                    "{}: {status}: {}",
                    program.display(),
                    self.said()
                )));
            }
            if Instant::now() > deadline {
                return Err(StartError::refused(format!("it is not ready: {}", self.said())));
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Sends `signal` to the server and to all its children.
    pub(super) fn signal(&self, signal: &str) {
        let Some(server) = &self.server else { return };
        let mut ids = vec![server.id()];
        ids.extend(children(server.id()));
        kill(signal, &ids);
    }

    /// Kills the server and all its children, as a crash of the machine would, and waits until they are gone.
    pub(super) fn kill(&mut self) {
        let Some(server) = &self.server else { return };
        let mut orphans = children(server.id());
        self.signal("KILL");
        self.wait();
        // Children are born until their parent is dead; those few see that it is, and end by themselves.
        let deadline = Instant::now() + LIMIT;
        while !orphans.is_empty() && Instant::now() < deadline {
            orphans.retain(|id| is_alive(*id));
            thread::sleep(LOOK);
        }
    }

    /// Asks the server to end, by `signal`, and waits until it has.
    pub(super) fn stop(&mut self, signal: &str) {
        let Some(server) = &self.server else { return };
        kill(signal, &[server.id()]);
        // What is frozen could not hear it.
        self.signal("CONT");
        self.wait();
    }

    /// What the server has written to its output since it was started.
    pub(super) fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn wait(&mut self) {
        let deadline = Instant::now() + LIMIT;
        while self.exited().is_none() && self.server.is_some() {
            if Instant::now() > deadline {
                self.signal("KILL");
            }
            thread::sleep(LOOK);
        }
    }

    /// The status of a server that has ended, once.
    fn exited(&mut self) -> Option<ExitStatus> {
        let status = self.server.as_mut()?.try_wait().ok().flatten()?;
        self.server = None;
        // A keeper that is gone has nobody left to kill either.
        let _ = self.tell_keeper(None);
        Some(status)
    }

    fn tell_keeper(&mut self, server: Option<u32>) -> io::Result<()> {
        let line = server.map_or(String::from("\n"), |id| format!("{id}\n"));
        match &mut self.line {
            Some(keeper) => keeper.write_all(line.as_bytes()),
            None => Ok(()),
        }
    }

    fn command(&self, program: &Path, arguments: &[&OsStr]) -> Command {
        let mut command = Command::new(program);
        self.account.run(&mut command);
        command
            .args(arguments)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            // Of its own, so that a signal from the terminal ends the test and not its server.
            .process_group(0);
        command
    }

    fn log(&self) -> PathBuf {
        self.folder.join("server.log")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            kill("QUIT", &[server.id()]);
        }
        // Whoever ignores the first, as all do that a script's background job starts, hears the second.
        self.stop("TERM");
        self.line = None;
        // It removes the folder; there is nothing to do about it if it was killed.
        let _ = self.keeper.wait();
    }
}

fn make_folder(name: &str) -> io::Result<PathBuf> {
    /// Only ever counted up: no two folders of this process share a number.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = env::temp_dir().join(format!("bequest-{name}-{}-{number}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| folder),
        }
    }
}

fn keep(folder: &Path, accounts: &[&str]) -> Result<(Account, Child), StartError> {
    let account = Account::choose(accounts, folder)?;
    account.own(folder)?;
    let mut command = Command::new("sh");
    account.run(&mut command);
    let keeper = command
        .args([OsStr::new("-c"), OsStr::new(KEEPER), folder.as_os_str()])
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| StartError::system("starting the keeper", error))?;
    Ok((account, keeper))
}

/// Signals what is still there; a process that has ended meanwhile is what was wanted, or is noticed by who waits.
fn kill(signal: &str, ids: &[u32]) {
    let ids = ids.iter().map(u32::to_string);
    let _ = Command::new("sh")
        .args(["-c", r#"kill -s "$0" "$@""#, signal])
        .args(ids)
        .stderr(Stdio::null())
        .status();
}

fn children(parent: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return listed_children(parent);
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|id| status(*id).is_some_and(|(_, its_parent)| its_parent == parent))
        .collect()
}

/// The children, on a system without `/proc`.
fn listed_children(parent: u32) -> Vec<u32> {
    let Ok(output) = Command::new("pgrep").arg("-P").arg(parent.to_string()).output() else {
        return Vec::new();
    };
    let listed = String::from_utf8_lossy(&output.stdout);
    listed
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .collect()
}

fn is_alive(id: u32) -> bool {
    status(id).is_some_and(|(state, _)| state != 'Z')
}

/// The state and the parent of a process, from the system's table.
fn status(id: u32) -> Option<(char, u32)> {
    let line = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name comes before, in parentheses, and may hold anything.
    let mut fields = line.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}
