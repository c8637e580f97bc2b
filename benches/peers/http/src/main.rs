//! What a context for each request costs: process CPU of the server for each request, beside bare hyper with the same
//! handler. Run by `ci/bench.sh http [ROUNDS]`, which says what it needs.
//!
//! Each server is a process of its own, so that the load generator's work is not counted. In each round every server is
//! loaded in turn, in an order that changes; what is printed is the median over the rounds of hyper's figure divided by ours
//! in the same round.

mod load;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use load::Load;
use peers_http::{Mode, Protocol, serve};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", mode, protocol] => {
            let mode = Mode::named(mode).expect("a mode");
            println!("{}", serve(mode, Protocol::named(protocol).expect("a protocol")));
            loop {
                std::thread::park();
            }
        }
        [] => compare(15),
        [rounds] => compare(rounds.parse().expect("a number of rounds")),
        _ => {
            eprintln!("usage: peers-http [ROUNDS]");
            std::process::exit(2);
        }
    }
}

/// A server in a process of its own.
struct Server {
    mode: Mode,
    addr: String,
    child: Child,
}

impl Server {
    fn start(mode: Mode, protocol: Protocol) -> Server {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .args(["serve", mode.name(), protocol.name()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let mut addr = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut addr).expect("an address");
        Server {
            mode,
            addr: addr.trim().to_owned(),
            child,
        }
    }

    /// Nanoseconds on a processor so far, over all threads (`/proc/PID/task/*/schedstat`).
    fn cpu(&self) -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it lives");
        let of_task = |task: std::io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            stat.split(' ').next()?.parse::<u64>().ok()
        };
        tasks.filter_map(of_task).sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().expect("it lives");
        self.child.wait().expect("killed");
    }
}

/// What one server did in one round.
#[derive(Clone, Copy)]
struct Round {
    cpu: f64,
    per_second: f64,
    p99: f64,
}

fn compare(rounds: usize) {
    for protocol in Protocol::ALL {
        let load = Load::of(protocol);
        println!("\n{}: {}, {rounds} rounds\n", protocol.name(), load.describe());
        let servers = Mode::ALL.map(|mode| Server::start(mode, protocol));
        let mut measured = Mode::ALL.map(|_| Vec::new());
        for server in &servers {
            load.run(&server.addr);
        }
        for round in 0..rounds {
            for turn in 0..servers.len() {
                let which = (round + turn) % servers.len();
                let server = &servers[which];
                let before = server.cpu();
                let outcome = load.run(&server.addr);
                let cpu = (server.cpu() - before) as f64 / outcome.requests as f64;
                measured[which].push(Round {
                    cpu,
                    per_second: outcome.per_second,
                    p99: outcome.p99,
                });
            }
        }
        print_table(&servers, &measured);
    }
}

fn print_table(servers: &[Server], measured: &[Vec<Round>]) {
    println!("| server | CPU a request | hyper's / its | requests/s | hyper's share | p99 |");
    println!("|---|---|---|---|---|---|");
    let hyper = &measured[0];
    for (server, rounds) in servers.iter().zip(measured) {
        let ratio = median(rounds.iter().zip(hyper).map(|(own, hyper)| hyper.cpu / own.cpu));
        let share = median(
            rounds
                .iter()
                .zip(hyper)
                .map(|(own, hyper)| own.per_second / hyper.per_second),
        );
        println!(
            "| {} | {:.2} µs | {ratio:.3} | {:.0} | {share:.3} | {:.2} ms |",
            server.mode.name(),
            median(rounds.iter().map(|round| round.cpu)) / 1e3,
            median(rounds.iter().map(|round| round.per_second)),
            median(rounds.iter().map(|round| round.p99)),
        );
    }
    let of = |mode| {
        let at = servers.iter().position(|server| server.mode == mode);
        &measured[at.expect("every mode has a server")]
    };
    let same_handler = of(Mode::ByHand)
        .iter()
        .zip(of(Mode::On))
        .map(|(by_hand, on)| by_hand.cpu / on.cpu);
    println!(
        "\nthe same handler on both, CPU a request: by-hand's / on's is {:.3}",
        median(same_handler)
    );
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
