//! Clients that leave a long statement: how soon the database executes nothing any more.

use std::ffi::OsString;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::instance::Instance;
use crate::{Chance, Row, Spans, from_millis, naive};

const CLIENTS: usize = 50;
const LOOKS: Duration = Duration::from_micros(200);

pub(crate) fn leaving(binary: &OsString) -> Vec<Row> {
    let service = Instance::start(binary, &[]);
    let mut watch = Client::connect(service.public).expect("the service accepts");
    // With a rest between two looks: looking must not take the processor from what it looks at.
    let mut ask = || {
        thread::sleep(LOOKS);
        watch
            .send("GET", "/report/last", &[])
            .expect("the socket takes it");
        watch.answer().expect("an answer").json()
    };
    let mut chance = Chance(3);
    let (mut told, mut seen) = (Spans::default(), Spans::default());
    for _ in 0..CLIENTS {
        let client = Client::begin(service.public, "/report?ms=10000");
        while ask()["running"] == 0 {}
        thread::sleep(chance.below(Duration::from_millis(100)));
        drop(client);
        let left = Instant::now();
        let last = loop {
            let last = ask();
            if last["running"] == 0 {
                break last;
            }
        };
        seen.add(left.elapsed());
        told.add(from_millis(&last["stopped_after_ms"]));
    }
    let naive = naive::statements_after_leaving(CLIENTS);
    vec![
        Row(
            "report: from the client's close until no statement runs (50 clients, random instants)",
            seen.summary(),
            format!("still running 100 ms later: {naive} of {CLIENTS}"),
        ),
        Row(
            "report: from the context's end until the statement had returned",
            told.summary(),
            "never told".into(),
        ),
    ]
}
