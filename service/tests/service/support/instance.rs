//! The real binary, started on free ports with a data folder of its own, and gone when its owner is.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use serde_json::Value;

use super::client::{self, Answer};
use super::{GUARD, access, until};

/// A running service. Dropping it kills it and removes its data.
#[derive(Debug)]
pub(crate) struct Instance {
    child: Child,
    pub(crate) public: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// Standard output: the addresses, then the access log.
    output: Lines,
    log: Lines,
    folder: Folder,
}

/// A temporary folder. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

/// What a process has written so far, line by line.
#[derive(Clone, Debug)]
pub(crate) struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The lines, and whether there will be no more.
    written: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

/// The binary as a command, untouched by the settings of whoever runs the tests.
pub(crate) fn command(binary: &OsStr) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BEQUEST_") {
            command.env_remove(name);
        }
    }
    command
}

impl Instance {
    /// Starts `binary` with `flags` and waits until it has printed its addresses.
    pub(crate) fn start(binary: impl AsRef<OsStr>, flags: &[&str]) -> Instance {
        let folder = Folder::new();
        let mut command = command(binary.as_ref());
        command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"]);
        command.arg(folder.path().join("data")).args(flags);
        command.env("BEQUEST_ACCESS_FORMAT", "extended");
        Instance::wait(command, folder, Stdio::null())
    }

    /// As [`of`](Instance::of), with this as its standard input.
    pub(crate) fn inheriting(command: Command, input: Stdio) -> Instance {
        Instance::wait(command, Folder::new(), input)
    }

    /// Starts a command that says by itself where to listen and where its data goes.
    pub(crate) fn of(command: Command) -> Instance {
        Instance::wait(command, Folder::new(), Stdio::null())
    }

    fn wait(command: Command, folder: Folder, input: Stdio) -> Instance {
        let (child, output, log) = spawn(command, input);
        let mut instance = Instance {
            child,
            public: SocketAddr::from(([0; 4], 0)),
            admin: SocketAddr::from(([0; 4], 0)),
            output,
            log,
            folder,
        };
        let printed = |nth| {
            instance
                .output
                .wait_for("its addresses", |lines| addresses(lines).nth(nth))
        };
        let addresses = (printed(0), printed(1));
        (instance.public, instance.admin) = addresses;
        instance
    }

    /// `GET` at the public listener.
    pub(crate) fn get(&self, target: &str) -> Answer {
        client::get(self.public, target)
    }

    /// `GET` at the admin listener.
    pub(crate) fn admin(&self, target: &str) -> Answer {
        client::get(self.admin, target)
    }

    /// The value of a metric.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = self.admin("/metrics").body;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = value.unwrap_or_else(|| panic!("no metric {name} in\n{text}"));
        value.parse().expect("a whole number")
    }

    /// Asserts that every handler was told of its end by its context and came to it by itself. Those that are not are
    /// dropped after their grace, which ends most things too, only later and less gently.
    pub(crate) fn assert_no_handler_was_dropped(&self) {
        self.until_metric("bequest_handlers_in_grace", 0);
        assert_eq!(self.metric("bequest_handlers_dropped_total"), 0);
    }

    /// Asks until a metric has this value.
    pub(crate) fn until_metric(&self, name: &str, value: u64) {
        until(&format!("{name} {value}"), || {
            (self.metric(name) == value).then_some(())
        });
    }

    /// Asks until `GET target` at the public listener answers JSON that meets the condition.
    pub(crate) fn until_json(&self, target: &str, holds: impl Fn(&Value) -> bool) -> Value {
        until(target, || {
            Some(self.get(target).json()).filter(|answer| holds(answer))
        })
    }

    /// The access line of the request with this target, once it has ended.
    pub(crate) fn request_line(&self, target: &str) -> Value {
        self.output.wait_for(&format!("the line of {target}"), |lines| {
            access_lines(lines).find(|line| line["target"] == target)
        })
    }

    /// The error line of an answer to this path.
    pub(crate) fn error_line(&self, path: &str) -> Value {
        self.log.wait_for(&format!("the error line of {path}"), |lines| {
            json_lines(lines).find(|line| line["API"] == path)
        })
    }

    /// The log line of an event of the process.
    pub(crate) fn event(&self, message: &str) -> Value {
        self.log.wait_for(&format!("the line {message:?}"), |lines| {
            json_lines(lines).find(|line| line["message"] == message)
        })
    }

    /// Everything that was logged so far, as text.
    pub(crate) fn logged(&self) -> String {
        self.log.get().0.join("\n")
    }

    /// All access lines.
    pub(crate) fn request_lines(&self) -> Vec<Value> {
        access_lines(&self.output.get().0).collect()
    }

    /// Where its data is.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, by its name without `SIG`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, &self.pid().to_string()])
            .status()
            .expect("kill runs");
        assert!(sent.success(), "SIG{name} was not sent");
    }

    /// Waits until the process has ended, without a limit and to the instant: for figures.
    pub(crate) fn exited(&mut self) -> ExitStatus {
        self.child.wait().expect("a child of ours")
    }

    /// Waits until the process has ended, and all it wrote has been read.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let status = until("the end of the process", || {
            self.child.try_wait().expect("a child of ours")
        });
        self.output.wait_for_end();
        self.log.wait_for_end();
        status
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // It may have ended already, which is as well.
        self.child.kill().ok();
        self.child.wait().ok();
        if thread::panicking() {
            eprintln!("what the service logged:\n{}", self.logged());
        }
    }
}

impl Folder {
    pub(crate) fn new() -> Folder {
        static CALLS: AtomicU64 = AtomicU64::new(0);
        let call = CALLS.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("bequest-service-{}-{call}", std::process::id()));
        std::fs::create_dir(&path).expect("a folder of this name is nobody else's");
        Folder(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left to whatever cleans the temporary folder.
        std::fs::remove_dir_all(&self.0).ok();
    }
}

impl Lines {
    /// Reads `source` to its end on a thread of its own.
    pub(crate) fn of(source: impl Read + Send + 'static) -> Lines {
        let lines = Lines(Arc::default());
        let theirs = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(source).lines().map_while(Result::ok) {
                theirs.get().0.push(line);
                theirs.0.changed.notify_all();
            }
            theirs.get().1 = true;
            theirs.0.changed.notify_all();
        });
        lines
    }

    /// Waits until `find` finds something in the lines.
    pub(crate) fn wait_for<T>(&self, what: &str, find: impl Fn(&[String]) -> Option<T>) -> T {
        let missing = |state: &mut (Vec<String>, bool)| !state.1 && find(&state.0).is_none();
        let (state, _) = self
            .0
            .changed
            .wait_timeout_while(self.get(), GUARD, missing)
            .unwrap_or_else(PoisonError::into_inner);
        find(&state.0).unwrap_or_else(|| panic!("waited for {what}; there was\n{}", state.0.join("\n")))
    }

    /// All there is once there will be no more.
    pub(crate) fn whole(&self) -> String {
        self.wait_for_end();
        self.get().0.join("\n")
    }

    /// Waits until there will be no more.
    fn wait_for_end(&self) {
        let (state, _) = self
            .0
            .changed
            .wait_timeout_while(self.get(), GUARD, |state| !state.1)
            .unwrap_or_else(PoisonError::into_inner);
        assert!(state.1, "the process holds its output open");
    }

    fn get(&self) -> MutexGuard<'_, (Vec<String>, bool)> {
        self.0.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn spawn(mut command: Command, input: Stdio) -> (Child, Lines, Lines) {
    command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let output = Lines::of(child.stdout.take().expect("piped"));
    let log = Lines::of(child.stderr.take().expect("piped"));
    (child, output, log)
}

/// The addresses in what it printed: the public listener's, then the admin listener's, then more.
fn addresses(lines: &[String]) -> impl Iterator<Item = SocketAddr> {
    lines.iter().filter_map(|line| {
        let rest = line.trim_start().strip_prefix("http://")?;
        rest.split('/').next()?.parse().ok()
    })
}

fn access_lines(lines: &[String]) -> impl Iterator<Item = Value> {
    lines.iter().filter_map(|line| access::read(line))
}

fn json_lines(lines: &[String]) -> impl Iterator<Item = Value> {
    lines.iter().filter_map(|line| serde_json::from_str(line).ok())
}
