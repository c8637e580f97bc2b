//! `bequest torture stores`, at a scale at which a test can wait for it: every promise holds, and every control fails.
//!
//! The binary starts servers of its own. Where they are not installed, it says so, and the test is left out, unless
//! `BEQUEST_REQUIRE_SERVERS` is `1`.

mod given;
mod scenes;

#[allow(
    dead_code,
    reason = "shared with other test binaries, and each uses a part of it"
)]
#[path = "../service/support/mod.rs"]
mod support;

use std::env;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use support::instance::{Folder, command};

/// `bequest torture stores`, and the file it writes its numbers to.
struct Torture {
    command: Command,
    folder: Folder,
}

impl Torture {
    fn of(scene: &str, scale: &str) -> Torture {
        let folder = Folder::new();
        let mut command = command(env!("CARGO_BIN_EXE_bequest").as_ref());
        command.args(["torture", "stores", "--scene", scene, "--scale", scale, "--json"]);
        command.arg(folder.path().join("figures.json"));
        Torture { command, folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("figures.json")
    }

    /// What was written, as JSON.
    fn written(&self) -> Value {
        let text = std::fs::read_to_string(self.file()).expect("the figures are written");
        serde_json::from_str(&text).expect("they are JSON")
    }

    /// Lets it play to its end. `None` where a server is not installed and may be left out.
    fn play(&mut self) -> Option<(Output, Value)> {
        let output = self.command.output().expect("the binary runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        if errors.contains("is not installed") {
            assert!(errors.contains("apt-get install"), "it says what to do: {errors}");
            let required = env::var_os("BEQUEST_REQUIRE_SERVERS").is_some_and(|value| value == "1");
            assert!(!required, "{errors}");
            // Not `eprintln!`: the harness would swallow it, and nobody would know what was left out.
            let _ = writeln!(io::stderr(), "left out: {errors}");
            return None;
        }
        assert!(
            output.status.success(),
            "{}{errors}",
            String::from_utf8_lossy(&output.stdout)
        );
        let written = self.written();
        Some((output, written))
    }
}
