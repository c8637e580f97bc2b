//! Does the server notice that its client has left? Prints the answer for every case as a table in Markdown: this crate's
//! server, the same without watching sockets (as it is on systems other than Linux), and bare hyper, in one run; in clear and
//! with TLS.
//!
//! Run it with `cargo run --release -p bequest-http --features tls --example disconnect_matrix [RUNS]`. A handler waits; its client leaves
//! 5 ms after the handler has begun, and 300 ms are given to notice it.

mod cases;
mod servers;
mod stream;

use std::time::{Duration, Instant};

use bequest::Reason;
use cases::{Case, Client};
use servers::{Kind, Serving};

const KINDS: [Kind; 3] = [Kind::Bequest, Kind::BequestUnwatched, Kind::Hyper];

/// How long the client stays once the handler runs.
const STAY: Duration = Duration::from_millis(5);

/// How long the server may take before "not noticed".
const ENOUGH: Duration = Duration::from_millis(300);

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let runs = std::env::args()
        .nth(1)
        .and_then(|runs| runs.parse().ok())
        .unwrap_or(20);
    for tls in [false, true] {
        print_table(tls, runs).await?;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the table is what the program is for")]
async fn print_table(tls: bool, runs: usize) -> std::io::Result<()> {
    println!("\n{}\n", if tls { "With TLS:" } else { "In clear:" });
    println!("| client | leaves by | bequest-http | its reason | without the watch | bare hyper |");
    println!("|---|---|---|---|---|---|");
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
        let [ours, unwatched, hyper] = &cells[..] else {
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
            "| {}{note} | {} | {ours} | {reason} | {unwatched} | {hyper} |",
            case.name, case.leaves
        );
    }
    let [ours, unwatched, hyper] = noticed;
    println!(
        "\nOf the {} ordinary cases (the first rows, by close), noticed each time: {ours} by bequest-http, {unwatched} without \
         the watch, {hyper} by bare hyper. {runs} runs each.",
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

async fn measure(kind: Kind, case: &Case, runs: usize) -> std::io::Result<Measured> {
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
