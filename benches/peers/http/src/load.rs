//! The load generators: wrk for HTTP/1, h2load for HTTP/2.

use std::process::Command;

use peers_http::Protocol;

/// How servers are loaded.
pub struct Load(Protocol);

/// What a load generator saw.
pub struct Outcome {
    pub requests: u64,
    pub per_second: f64,
    /// In milliseconds.
    pub p99: f64,
}

impl Load {
    pub fn of(protocol: Protocol) -> Load {
        Load(protocol)
    }

    pub fn describe(&self) -> &'static str {
        match self.0 {
            Protocol::Http1 => "wrk, 1 thread, 32 connections kept alive, 1 s a turn",
            Protocol::Http2 => "h2load, 1 thread, 4 connections of 8 streams, 1 s a turn",
        }
    }

    pub fn run(&self, addr: &str) -> Outcome {
        let url = format!("http://{addr}/");
        match self.0 {
            Protocol::Http1 => {
                let text = run(Command::new("wrk").args(["-t1", "-c32", "-d1s", "--latency", &url]));
                // With the blank: there are other numbers that end so.
                let p99 = word_after(&text, " 99%");
                Outcome {
                    requests: number_before(&text, " requests in "),
                    per_second: word_after(&text, "Requests/sec:").parse().expect("a number"),
                    p99: millis(p99),
                }
            }
            Protocol::Http2 => {
                let log = std::env::temp_dir().join(format!("peers-http-{}.log", std::process::id()));
                // It adds to what is there.
                let _ = std::fs::remove_file(&log);
                let file = format!("--log-file={}", log.display());
                let text = run(Command::new("h2load").args(["-t1", "-c4", "-m8", "-D1", &file, &url]));
                let mut took: Vec<f64> = std::fs::read_to_string(&log)
                    .expect("a log")
                    .lines()
                    .filter_map(|line| line.split('\t').nth(2)?.parse().ok())
                    .collect();
                took.sort_by(f64::total_cmp);
                let _ = std::fs::remove_file(&log);
                Outcome {
                    requests: took.len() as u64,
                    per_second: text
                        .lines()
                        .find_map(|line| {
                            line.strip_prefix("finished in ")?
                                .split(", ")
                                .nth(1)?
                                .split(' ')
                                .next()
                        })
                        .and_then(|number| number.parse().ok())
                        .expect("requests per second"),
                    p99: took[took.len() * 99 / 100] / 1e3,
                }
            }
        }
    }
}

fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {text}");
    assert!(!text.contains("Socket errors"), "{text}");
    text
}

fn word_after<'a>(text: &'a str, mark: &str) -> &'a str {
    let (_, rest) = text
        .split_once(mark)
        .unwrap_or_else(|| panic!("no {mark} in {text}"));
    rest.split_whitespace().next().expect("a word")
}

/// The number in front of this mark.
fn number_before(text: &str, mark: &str) -> u64 {
    let (before, _) = text
        .split_once(mark)
        .unwrap_or_else(|| panic!("no {mark} in {text}"));
    let number = before.split_whitespace().last().expect("a number");
    number.parse().expect("a number")
}

/// wrk's way of writing times.
fn millis(time: &str) -> f64 {
    let (number, unit) = time.split_at(time.find(|c: char| c.is_ascii_alphabetic()).expect("a unit"));
    let number: f64 = number.parse().expect("a number");
    match unit {
        "us" => number / 1e3,
        "ms" => number,
        "s" => number * 1e3,
        unit => panic!("an unknown unit: {unit}"),
    }
}
