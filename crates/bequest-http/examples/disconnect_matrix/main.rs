//! Does the server notice that its client has left? Prints the answer for every case as a table in Markdown: this crate's
//! server, the same without watching sockets (as it is on systems other than Linux), and bare hyper, in one run; in clear and
//! with TLS.
//!
//! Run it with `cargo run --release -p bequest-http --features tls --example disconnect_matrix [RUNS [plain|tls]]`. A handler waits; its client leaves
//! 5 ms after the handler has begun, and 100 ms are given to notice it. Where `go` is found, the same
//! handler runs on Go's net/http as well.

mod cases;
mod go;
mod servers;
mod stream;

use std::time::{Duration, Instant};

use bequest::Reason;
use cases::{Case, Client};
use servers::{Kind, Serving};

const KINDS: [Kind; 4] = [Kind::Bequest, Kind::BequestUnwatched, Kind::Hyper, Kind::Go];

/// How long the client stays once the handler runs.
const STAY: Duration = Duration::from_millis(5);

/// How long the server may take before "not noticed".
const ENOUGH: Duration = Duration::from_millis(100);

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let runs = std::env::args()
        .nth(1)
        .and_then(|runs| runs.parse().ok())
        .unwrap_or(20);
    let which = std::env::args().nth(2);
    for (name, tls) in [("plain", false), ("tls", true)] {
        if which.as_ref().is_none_or(|which| which == name) {
            print_table(tls, runs).await?;
        }
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the table is what the program is for")]
async fn print_table(tls: bool, runs: usize) -> std::io::Result<()> {
    println!("\n{}\n", if tls { "With TLS:" } else { "In clear:" });
    println!(
        "| client | leaves by | bequest-http | its reason | without the watch | bare hyper | {} |",
        go_version().await?
    );
    println!("|---|---|---|---|---|---|---|");
    let ordinary = Case::ordinary(tls);
    let mut noticed = KINDS.map(|_| 0);
    for case in Case::all(tls) {
        let mut cells = Vec::new();
        for (count, kind) in noticed.iter_mut().zip(KINDS) {
            let measured = measure(kind, &case, runs).await?;
            if ordinary.contains(&case) {
                *count += usize::from(measured.always());
            }
            cells.push(measured);
        }
        let [ours, unwatched, hyper, go] = &cells[..] else {
            unreachable!("one cell for each kind")
        };
        let note = if case.is_beyond() {
            " (more than is read ahead)"
        } else {
            ""
        };
        let reason = ours.reason;
        let reason = reason.map_or_else(|| "-".to_owned(), |reason| reason.to_string());
        println!(
            "| {}{note} | {} | {ours} | {reason} | {unwatched} | {hyper} | {go} |",
            case.name, case.leaves
        );
    }
    let [ours, unwatched, hyper, go] = noticed;
    println!(
        "\nOf the {} ordinary cases (the first rows, by close), noticed each time: {ours} by bequest-http, {unwatched} without \
         the watch, {hyper} by bare hyper, {go} by Go. {runs} runs each.",
        ordinary.len()
    );
    Ok(())
}

/// How long it took to notice, of the runs in which it was noticed.
struct Measured {
    took: Vec<Duration>,
    runs: usize,
    /// Of the last run.
    reason: Option<Reason>,
}

/// The version of Go; `no Go here` where its column stays empty.
async fn go_version() -> std::io::Result<String> {
    if go::program().is_none() {
        return Ok("no Go here".to_owned());
    }
    let (_addr, version, mut child) = go::start(false, tokio::sync::mpsc::unbounded_channel().0).await?;
    child.kill()?;
    child.wait()?;
    Ok(format!("net/http, {version}"))
}

async fn measure(kind: Kind, case: &Case, runs: usize) -> std::io::Result<Measured> {
    if kind == Kind::Go && go::program().is_none() {
        let (took, reason) = (Vec::new(), None);
        return Ok(Measured { took, runs, reason });
    }
    let mut server = Serving::start(kind, case.tls).await?;
    let (mut took, mut reason) = (Vec::new(), None);
    for _ in 0..runs {
        let mut client = Client::begin(server.addr, case).await?;
        let running = server.next().await;
        client.go_on(case).await?;
        tokio::time::sleep(STAY).await;
        let left = Instant::now();
        let _remains = client.leave(case.leaves);
        if let Ok(Ok(notice)) = tokio::time::timeout(ENOUGH, running).await {
            took.push(notice.at.saturating_duration_since(left));
            reason = notice.reason;
        } else {
            // What was not noticed goes on, and is no part of the next run.
            server = Serving::start(kind, case.tls).await?;
        }
    }
    took.sort_unstable();
    Ok(Measured { took, runs, reason })
}

impl Measured {
    fn always(&self) -> bool {
        self.took.len() == self.runs
    }

    fn quantile(&self, of_hundred: usize) -> Duration {
        self.took[(self.took.len() * of_hundred / 100).min(self.took.len() - 1)]
    }
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.took.is_empty() {
            return write!(f, "**0/{}**", self.runs);
        }
        let millis = |quantile: Duration| quantile.as_secs_f64() * 1e3;
        let (p50, p99) = (millis(self.quantile(50)), millis(self.quantile(99)));
        write!(
            f,
            "{}/{}, p50 {p50:.2} ms, p99 {p99:.2} ms",
            self.took.len(),
            self.runs
        )
    }
}
