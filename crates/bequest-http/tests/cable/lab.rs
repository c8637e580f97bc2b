//! Cables that can be pulled: pairs of virtual network cards between namespaces, which need no hardware and touch nothing of the
//! machine's own network.
//!
//! ```text
//! near (this process) ── switch ── far (a helper, which dials and serves)
//! ```
//!
//! A cable is pulled behind the switch, so that the near end keeps its link and is told nothing. Each namespace lives as long as the
//! process that holds it, and that as long as this one.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::far;

/// Which part of the program a process is.
pub(crate) const ROLE: &str = "BEQUEST_CABLE_ROLE";
/// The folder with the far helper's socket.
pub(crate) const FOLDER: &str = "BEQUEST_CABLE_FOLDER";

/// The namespaces, and the cables between them.
pub(crate) struct Lab {
    switch: Arc<Mutex<Shell>>,
    switch_id: u32,
    /// Ends with us.
    _far: Shell,
    far_id: u32,
    folder: PathBuf,
    laid: usize,
}

/// One cable, with a network of its own.
#[derive(Clone)]
pub(crate) struct Cable {
    number: usize,
    switch: Arc<Mutex<Shell>>,
    folder: PathBuf,
}

/// Where a cable is unplugged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Plug {
    /// Behind the switch: the near card still has its link.
    Far,
    /// At the near card, which loses its link.
    Near,
    /// Behind the switch, which is a router here, knows of it, and says so.
    Routed,
}

/// A shell in a namespace.
struct Shell {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// Runs this program again where it may make cables; `None`: it may not.
pub(crate) fn run_inside() -> Option<ExitCode> {
    const PROBE: &str = "ip link add a0 type veth peer name b0 && ip link add c0 type bridge \
        && echo 1 > /proc/sys/net/ipv4/ip_forward && nsenter --net=/proc/$$/ns/net true";
    let ways: [&[&str]; 2] = [&["--net"], &["--user", "--map-root-user", "--net"]];
    let way = ways.into_iter().find(|way| {
        let probe = Command::new("unshare")
            .args(*way)
            .args(["sh", "-c", PROBE])
            .stderr(Stdio::null())
            .status();
        probe.is_ok_and(|status| status.success())
    })?;
    let this = env::current_exe().expect("the test itself");
    let status = Command::new("unshare")
        .args(way)
        .arg(this)
        .args(env::args_os().skip(1))
        .env(ROLE, "near")
        .status()
        .expect("it was there a moment ago");
    Some(match status.success() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

impl Lab {
    /// The three namespaces, and nothing between them.
    pub(crate) fn new() -> Lab {
        let folder = env::temp_dir().join(format!("bequest-cable-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        let (mut switch, mut far) = (Shell::start(), Shell::start());
        let (switch_id, far_id) = (switch.child.id(), far.child.id());
        switch.run("echo 1 > /proc/sys/net/ipv4/ip_forward");
        // Both networks are on one wire; nobody is to be shown the shorter way.
        switch.run("for one in all default; do echo 0 > /proc/sys/net/ipv4/conf/$one/send_redirects; done");
        far.become_helper(&folder);
        Lab {
            switch: Arc::new(Mutex::new(switch)),
            switch_id,
            _far: far,
            far_id,
            folder,
            laid: 0,
        }
    }

    /// Lays one more cable.
    pub(crate) fn lay(&mut self) -> Cable {
        let (n, switch, far) = (self.laid, self.switch_id, self.far_id);
        self.laid += 1;
        let near = format!(
            "link add n{n} type veth peer name s{n} netns {switch}
             addr add 10.77.{n}.1/24 dev n{n}
             link set n{n} up
             route add 10.78.{n}.0/24 via 10.77.{n}.254"
        );
        batch(&mut Command::new("ip"), &near);
        let cable = Cable {
            number: n,
            switch: self.switch.clone(),
            folder: self.folder.clone(),
        };
        cable.switch(&format!(
            "ip -batch - <<'END'
             link add b{n} type bridge
             link set s{n} master b{n}
             link add c{n} type veth peer name f{n} netns {far}
             link set c{n} master b{n}
             link set s{n} up
             link set c{n} up
             link set b{n} up
             addr add 10.77.{n}.254/24 dev b{n}
             addr add 10.78.{n}.254/24 dev b{n}\nEND"
        ));
        let inside = format!("--net=/proc/{far}/ns/net");
        batch(
            Command::new("nsenter").args([&inside, "ip"]),
            &format!(
                "link set lo up
                 addr add 10.77.{n}.2/24 dev f{n}
                 addr add 10.78.{n}.2/24 dev f{n}
                 link set f{n} up"
            ),
        );
        cable
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // It is in the system's temporary folder.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Cable {
    /// The near end, with a free port.
    pub(crate) fn near(&self) -> SocketAddr {
        ([10, 77, self.octet(), 1], 0).into()
    }

    /// The far end, where a server listens.
    pub(crate) fn far(&self) -> SocketAddr {
        ([10, 77, self.octet(), 2], far::PORT).into()
    }

    /// A connection of the far helper's to `near`, and its bytes.
    pub(crate) async fn dial(&self, near: SocketAddr, how: &str) -> UnixStream {
        let mut relay = UnixStream::connect(self.folder.join(far::SOCKET))
            .await
            .expect("the helper listens");
        relay
            .write_all(format!("{near} {how}\n").as_bytes())
            .await
            .expect("the helper listens");
        relay
    }

    pub(crate) fn pull(&self, plug: Plug) {
        let n = self.number;
        self.switch(&match plug {
            Plug::Far => format!("ip link set c{n} down"),
            Plug::Near => format!("ip link set s{n} down"),
            Plug::Routed => format!("ip link set c{n} down && ip route add unreachable 10.78.{n}.2/32"),
        });
    }

    /// Plugs it in again.
    pub(crate) fn plug_in(&self) {
        self.switch(&format!("ip link set c{} up", self.number));
    }

    fn switch(&self, command: &str) {
        self.switch.lock().expect("no panic").run(command);
    }

    fn octet(&self) -> u8 {
        u8::try_from(self.number).expect("few cables")
    }
}

impl Shell {
    /// Starts a shell in a network namespace of its own.
    fn start() -> Shell {
        let mut child = Command::new("unshare")
            .args(["--net", "sh"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut shell = Shell { child, input, output };
        // It is in its namespace once it answers.
        shell.run("true");
        shell
    }

    fn run(&mut self, command: &str) {
        self.input
            .write_all(format!("{command}\necho $?\n").as_bytes())
            .expect("the shell is there");
        assert_eq!(self.answer(), "0", "{command}");
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the shell is there");
        line.trim_end().to_owned()
    }

    fn become_helper(&mut self, folder: &std::path::Path) {
        let this = env::current_exe().expect("the test itself");
        let command = format!(
            "{ROLE}=far {FOLDER}='{}' exec '{}'\n",
            folder.display(),
            this.display()
        );
        self.input
            .write_all(command.as_bytes())
            .expect("the shell is there");
        assert_eq!(self.answer(), far::READY);
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Gives commands to `ip`.
fn batch(ip: &mut Command, commands: &str) {
    let mut ip = ip
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("ip");
    let mut input = ip.stdin.take().expect("a pipe");
    input.write_all(commands.as_bytes()).expect("ip reads");
    drop(input);
    assert!(ip.wait().expect("ip").success(), "{commands}");
}
