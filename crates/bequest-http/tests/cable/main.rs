//! Peers that fall silent for real: a cable is pulled amid a request, on Linux, between namespaces of the network.
//!
//! It has a harness of its own, as all cases wait at once for seconds that are the system's and cannot be moved, and as it runs
//! itself again where it may make cables. Where it may not, it says so and passes; with `BEQUEST_REQUIRE_SERVERS=1` that is a
//! failure. What it prints are the figures.

#[cfg(target_os = "linux")]
mod client;
#[cfg(target_os = "linux")]
mod control;
#[cfg(target_os = "linux")]
mod far;
#[cfg(target_os = "linux")]
mod lab;
#[cfg(target_os = "linux")]
mod near;
#[cfg(target_os = "linux")]
mod served;
#[cfg(target_os = "linux")]
mod server;
#[cfg(target_os = "linux")]
mod trial;

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    // What a listing of tests asks for, or one of other tests: this is one.
    let mut names = env::args().skip(1).filter(|arg| !arg.starts_with('-'));
    let is_wanted = names.next().is_none_or(|first| {
        std::iter::once(first)
            .chain(names)
            .any(|name| "pulled_cables".contains(&name))
    });
    if !is_wanted || env::args().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    run()
}

#[cfg(target_os = "linux")]
fn run() -> ExitCode {
    match env::var(lab::ROLE).as_deref() {
        Ok("near") => near::run(),
        Ok("far") => {
            far::run();
            ExitCode::SUCCESS
        }
        _ => lab::run_inside().unwrap_or_else(left_out),
    }
}

#[cfg(not(target_os = "linux"))]
fn run() -> ExitCode {
    eprintln!("left out: pulled cables, which are made of what Linux has");
    ExitCode::SUCCESS
}

#[cfg(target_os = "linux")]
fn left_out() -> ExitCode {
    let what = "pulled cables, as that takes `unshare`, `ip` and the right to make namespaces of the network";
    if env::var(bequest_test::servers::REQUIRE).is_ok_and(|value| value == "1") {
        eprintln!("not to be left out: {what}");
        return ExitCode::FAILURE;
    }
    eprintln!("left out: {what}");
    ExitCode::SUCCESS
}
