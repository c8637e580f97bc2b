//! Does the server notice that its client has left? Prints the answer for every case as a table in Markdown: this crate's
//! server, the same without watching sockets (as it is on systems other than Linux), and bare hyper, in one run.
//!
//! Run it with `cargo run --release -p bequest-http --example disconnect_matrix [RUNS]`. A handler waits; its client leaves
//! 5 ms after the handler has begun, and 300 ms are given to notice it.

mod cases;
mod servers;

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
#[expect(clippy::print_stdout, reason = "the table is what the program is for")]
async fn main() -> std::io::Result<()> {
    let runs = std::env::args()
        .nth(1)
        .and_then(|runs| runs.parse().ok())
        .unwrap_or(20);
    println!("| client | leaves by | bequest-http | its reason | without the watch | bare hyper |");
    println!("|---|---|---|---|---|---|");
    let mut noticed = KINDS.map(|_| 0);
    for case in Case::all() {
        let [ours, unwatched, hyper] = [
            measure(Kind::Bequest, &case, runs).await?,
            measure(Kind::BequestUnwatched, &case, runs).await?,
            measure(Kind::Hyper, &case, runs).await?,
        ];
        let note = if case.is_beyond() {
            " (more than is read ahead)"
        } else {
            ""
        };
        let reason = ours
            .reason
            .map_or_else(|| "-".to_owned(), |reason| reason.to_string());
        println!(
            "| {}{note} | {} | {ours} | {reason} | {unwatched} | {hyper} |",
            case.name, case.leaves
        );
    }
    let ordinary = Case::ordinary();
    for (count, kind) in noticed.iter_mut().zip(KINDS) {
        for case in &ordinary {
            *count += usize::from(measure(kind, case, runs).await?.always());
        }
    }
    let [ours, unwatched, hyper] = noticed;
    println!();
    println!(
        "Of the {} ordinary cases (the first rows, by close), noticed each time: {ours} by bequest-http, {unwatched} without \
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
    let mut server = Serving::start(kind).await?;
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
            server = Serving::start(kind).await?;
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
