//! `bequest`, the reference service: a store, a search, a report and jobs that stop when nobody wants the answer.
//!
//! What is here: settings, a runtime, an exit code. [`app`] puts the parts together; [`domain`] knows what they do.

mod answer;
mod app;
mod domain;
mod identity;
mod jobs;
mod log;
mod routes;
mod search;
mod session;
mod settings;
mod store;
mod token;
mod torture;
mod trust;

use std::process::ExitCode;
use std::time::Duration;

use crate::settings::Command;

/// How long the blocking threads may take to notice that it is over: each checks its context every few milliseconds.
const LAST_WAIT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let settings = settings::Settings::read();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&error),
    };
    let outcome = match settings.command.clone() {
        None => runtime.block_on(app::run(settings)).map(|()| true),
        Some(Command::Torture(what)) => runtime.block_on(torture::run(what)),
    };
    runtime.shutdown_timeout(LAST_WAIT);
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => refuse(&*error),
    }
}

fn refuse(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("bequest: {error}");
    ExitCode::FAILURE
}
