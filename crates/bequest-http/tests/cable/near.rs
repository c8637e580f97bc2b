//! All trials at once, each with a cable of its own, and what became of them.

use std::future::Future;
use std::process::ExitCode;

use bequest_http::server::Limits;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::client::{self, Call, Protocol};
use super::control::{self, Means};
use super::lab::{Cable, Lab, Plug};
use super::served::{Work, only};
use super::server;
use super::trial::{Outcome, limit};

/// The trials that have begun.
struct Trials {
    lab: Lab,
    begun: Vec<(&'static str, JoinHandle<Outcome>)>,
}

#[expect(clippy::print_stdout, reason = "the figures")]
pub(crate) fn run() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let well = runtime.block_on(async {
        let (tell, noticed) = watch::channel(false);
        let mut trials = Trials {
            lab: Lab::new(),
            begun: Vec::new(),
        };
        trials.of_the_server();
        trials.of_the_client();
        trials.of_the_system();
        let ours = std::mem::take(&mut trials.begun);
        trials.controls(&noticed);
        let controls = std::mem::take(&mut trials.begun);

        println!("a cable is pulled; unreachable after {} s", limit().as_secs());
        let mut well = print(ours).await;
        tell.send(true).expect("somebody waits");
        println!("and what is not to be taken for that, and controls");
        well &= print(controls).await;
        well
    });
    match well {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Prints the outcomes; says whether all are as they should be.
#[expect(clippy::print_stdout, reason = "the figures")]
async fn print(trials: Vec<(&'static str, JoinHandle<Outcome>)>) -> bool {
    let mut well = true;
    for (name, trial) in trials {
        let (after, said) = match trial.await {
            Ok(Outcome { after, said }) => (after, said),
            // The panic has been printed.
            Err(_) => (None, "FAILED".to_owned()),
        };
        well &= said != "FAILED";
        let after = after.map_or(String::new(), |after| format!("{:.2} s", after.as_secs_f64()));
        println!("  {name:<62} {after:>7}  {said}");
    }
    well
}

impl Trials {
    fn begin<F>(&mut self, name: &'static str, trial: impl FnOnce(Cable) -> F)
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let cable = self.lab.lay();
        self.begun.push((name, tokio::spawn(trial(cable))));
    }

    fn of_the_server(&mut self) {
        let alone = || only(limit());
        let as_by_default = || Limits {
            write_stall: limit(),
            ..only(limit())
        };
        self.begin("HTTP/1, a handler that waits", |cable| {
            server::http1(cable, Work::Wait, alone(), Plug::Far)
        });
        self.begin("HTTP/1, the same, and the near card has lost its link", |cable| {
            server::http1(cable, Work::Wait, alone(), Plug::Near)
        });
        self.begin("HTTP/1, the same, and a router says so", |cable| {
            server::http1(cable, Work::Wait, alone(), Plug::Routed)
        });
        self.begin("HTTP/1, a large answer", |cable| {
            server::http1(cable, Work::Large, alone(), Plug::Far)
        });
        self.begin("HTTP/1, the same, stalled writes have the same limit", |cable| {
            server::http1(cable, Work::Large, as_by_default(), Plug::Far)
        });
        self.begin("HTTP/1, one piece of an answer", |cable| {
            server::http1(cable, Work::Pieces, alone(), Plug::Far)
        });
        self.begin("HTTP/1, a request's body", |cable| {
            server::http1(cable, Work::Read, alone(), Plug::Far)
        });
        self.begin("HTTP/1, changed to another protocol, a piece of that", |cable| {
            server::http1(cable, Work::Upgrade, alone(), Plug::Far)
        });
        self.begin("HTTP/1, between two requests", |cable| {
            server::idle(cable, Plug::Far)
        });
        self.begin("HTTP/1, the same, and a router says so", |cable| {
            server::idle(cable, Plug::Routed)
        });
        self.begin("HTTP/1, another's loop, a handler that waits", |cable| {
            server::introduced(cable, Work::Wait, Plug::Far)
        });
        self.begin("HTTP/1, another's loop, one piece of an answer", |cable| {
            server::introduced(cable, Work::Pieces, Plug::Far)
        });
        self.begin("HTTP/1, the same, and a router says so", |cable| {
            server::introduced(cable, Work::Pieces, Plug::Routed)
        });
        self.begin("HTTP/1 in TLS, a handler that waits", |cable| {
            server::within_tls(cable, Work::Wait)
        });
        self.begin("HTTP/1 in TLS, a large answer", |cable| {
            server::within_tls(cable, Work::Large)
        });
        self.begin("HTTP/2, a handler that waits", |cable| {
            server::http2(cable, Work::Wait, alone())
        });
        self.begin("HTTP/2, a large answer", |cable| {
            server::http2(cable, Work::Large, alone())
        });
        self.begin("HTTP/2, the same, stalled writes have the same limit", |cable| {
            server::http2(cable, Work::Large, as_by_default())
        });
    }

    fn of_the_client(&mut self) {
        for (name, protocol, call) in [
            (
                "client, HTTP/1, waits for an answer",
                Protocol::Http1,
                Call::Answer,
            ),
            (
                "client, HTTP/1, waits for the rest of one",
                Protocol::Http1,
                Call::Rest,
            ),
            (
                "client, HTTP/1, on a connection that was kept",
                Protocol::Http1,
                Call::Kept,
            ),
            (
                "client, HTTP/2, waits for an answer",
                Protocol::Http2,
                Call::Answer,
            ),
            (
                "client, HTTP/2, on a connection that was kept",
                Protocol::Http2,
                Call::Kept,
            ),
        ] {
            self.begin(name, |cable| client::falls_silent(cable, protocol, call));
        }
    }

    fn of_the_system(&mut self) {
        for (name, means, plug) in [
            ("a bare socket, keepalive", Means::Keepalive, Plug::Far),
            (
                "a bare socket, keepalive, and its card has lost its link",
                Means::Keepalive,
                Plug::Near,
            ),
            ("a bare socket, TCP_USER_TIMEOUT", Means::UserTimeout, Plug::Far),
            (
                "the same, and its card has lost its link",
                Means::UserTimeout,
                Plug::Near,
            ),
            ("the same, and a router says so", Means::UserTimeout, Plug::Routed),
        ] {
            self.begin(name, |cable| control::word(cable, means, plug));
        }
    }

    fn controls(&mut self, noticed: &watch::Receiver<bool>) {
        self.begin("plugged in again, a handler that waits", |cable| {
            server::plugged_in_again(cable, Work::Wait)
        });
        self.begin("plugged in again, a large answer", |cable| {
            server::plugged_in_again(cable, Work::Large)
        });
        self.begin("a client that reads nothing", server::reads_nothing);
        self.begin("a client that reads little at a time", |cable| {
            server::slow(cable, noticed.clone())
        });
        self.begin(
            "the same, with TCP_USER_TIMEOUT in our place",
            control::user_timeout,
        );
        self.begin("no limit, a handler that waits", |cable| {
            control::without_limit(cable, Work::Wait, noticed.clone())
        });
        self.begin("no limit, a large answer", |cable| {
            control::without_limit(cable, Work::Large, noticed.clone())
        });
        self.begin("hyper alone, a handler that waits", |cable| {
            control::hyper(cable, Work::Wait, noticed.clone())
        });
        self.begin("hyper alone, a large answer", |cable| {
            control::hyper(cable, Work::Large, noticed.clone())
        });
        for (name, protocol) in [
            ("client, no limit, HTTP/1", Protocol::Http1),
            ("client, no limit, HTTP/2", Protocol::Http2),
        ] {
            self.begin(name, |cable| {
                client::without_limit(cable, protocol, noticed.clone())
            });
        }
        for (name, protocol, call) in [
            (
                "hyper's client, HTTP/1, waits for an answer",
                Protocol::Http1,
                Call::Answer,
            ),
            (
                "hyper's client, HTTP/1, on a connection that was kept",
                Protocol::Http1,
                Call::Kept,
            ),
            (
                "hyper's client, HTTP/2, on a connection that was kept",
                Protocol::Http2,
                Call::Kept,
            ),
        ] {
            self.begin(name, |cable| {
                client::hyper(cable, protocol, call, noticed.clone())
            });
        }
    }
}
