//! Says what a bare `cargo test` leaves out, why, and what runs it. A program of its own, because the test harness hides
//! what passing tests print.

#![expect(clippy::print_stdout, reason = "printing is all it does")]

use std::env;
use std::path::Path;

/// A check that `cargo test` does not make.
struct LeftOut {
    what: &'static str,
    why: &'static str,
    run: &'static str,
}

const ALWAYS: [LeftOut; 5] = [
    LeftOut {
        what: "the page in a browser",
        why: "needs Chromium and Node",
        run: "ci/page.sh",
    },
    LeftOut {
        what: "model checking of the core",
        why: "is built with --cfg loom",
        run: "ci/loom.sh",
    },
    LeftOut {
        what: "the core without features",
        why: "the workspace is built with the features that its members need",
        run: "cargo test -p bequest --no-default-features --lib --tests",
    },
    LeftOut {
        what: "formatting, lints, documentation, licences",
        why: "they are no tests",
        run: "ci/lint.sh",
    },
    LeftOut {
        what: "the figures",
        why: "they measure a release build and assert nothing",
        run: "ci/figures.sh",
    },
];

const README: LeftOut = LeftOut {
    what: "the commands of README.md",
    why: "curl or bash is not installed",
    run: "cargo test -p bequest-service --test readme, once they are",
};

const JQ: LeftOut = LeftOut {
    what: "a second reader of the 100 000 error lines",
    why: "jq is not installed",
    run: "cargo test -p bequest-service --bin bequest log::tests::random, once it is",
};

fn main() {
    let readme = (!is_installed("curl") || !is_installed("bash")).then_some(README);
    let jq = (!is_installed("jq")).then_some(JQ);
    println!("\nleft out by a bare `cargo test` (ci/test.sh runs all but the figures):");
    for LeftOut { what, why, run } in ALWAYS.iter().chain(&readme).chain(&jq) {
        println!("  {what}: {why}\n      {run}");
    }
    println!();
}

fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| Path::new(&folder).join(program).is_file())
}
