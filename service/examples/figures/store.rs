//! Clients that leave a slow fetch: how soon it stops, and whether anything is written for nobody.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::instance::Instance;
use crate::{Chance, Row, Spans, from_millis, naive};

const CLIENTS: usize = 50;
/// Clients that leave around the instant of the write, and how long the fetch takes that they leave.
const AROUND: usize = 200;
const SHORT_MS: u64 = 50;

/// Each of the clients leaves a fetch of five seconds at some instant of its first half second.
pub(crate) fn leaving(binary: &OsString) -> Vec<Row> {
    let mut service = Instance::start(binary, &[]);
    let mut watch = Client::connect(service.public).expect("the service accepts");
    let mut chance = Chance(1);
    let (mut told, mut seen) = (Spans::default(), Spans::default());
    for n in 0..CLIENTS {
        let client = Client::begin(service.public, &format!("/store?key=left-{n}&ms=5000"));
        let key = format!("left-{n}");
        service.until_json("/store/last", |last| last["key"] == key.as_str());
        thread::sleep(chance.below(Duration::from_millis(500)));
        drop(client);
        let left = Instant::now();
        let last = loop {
            watch
                .send("GET", "/store/last", &[])
                .expect("the socket takes it");
            let last = watch.answer().expect("an answer").json();
            if last["state"] != "running" {
                break last;
            }
        };
        seen.add(left.elapsed());
        told.add(from_millis(&last["stopped_after_ms"]));
    }
    stop(&mut service);
    let written = keys(&service.data()).len();
    let naive = naive::writes_after_leaving(CLIENTS);
    vec![
        Row(
            "store: from the client's close until the fetch is seen stopped (50 clients, random instants)",
            seen.summary(),
            "runs to its end".into(),
        ),
        Row(
            "store: from the context's end until the fetch had stopped",
            told.summary(),
            "never told".into(),
        ),
        Row(
            "store: written after the client had left",
            format!("{written} of {CLIENTS}"),
            format!("{naive} of {CLIENTS}"),
        ),
    ]
}

/// Clients that leave at some instant around the write: those whose commit was under way when they left are counted
/// honestly. No server can avoid that window; it can only keep it short.
pub(crate) fn around_the_write(binary: &OsString) -> Vec<Row> {
    let mut service = Instance::start(binary, &[]);
    let mut chance = Chance(2);
    for n in 0..AROUND {
        let client = Client::begin(service.public, &around(n));
        thread::sleep(chance.below(Duration::from_millis(2 * SHORT_MS)));
        drop(client);
        service.request_line(&around(n));
    }
    let lines = service.request_lines();
    let departed: HashSet<_> = lines
        .iter()
        .filter(|line| line["end"] == "client disconnected")
        .filter_map(|line| line["target"].as_str())
        .collect();
    stop(&mut service);
    let written = keys(&service.data());
    let both = (0..AROUND)
        .filter(|n| departed.contains(around(*n).as_str()) && written.contains(&format!("around-{n}")))
        .count();
    vec![Row(
        "store: written though the client was seen to leave, when 200 leave around the instant of the write",
        format!(
            "{both} of {} seen to leave ({} written in all)",
            departed.len(),
            written.len()
        ),
        "-".into(),
    )]
}

fn around(n: usize) -> String {
    format!("/store?key=around-{n}&ms={SHORT_MS}")
}

fn stop(service: &mut Instance) {
    service.signal("TERM");
    service.ended();
}

fn keys(data: &Path) -> HashSet<String> {
    let database = rusqlite::Connection::open(data.join("service.sqlite")).expect("the database");
    let mut all = database.prepare("SELECT key FROM answers").expect("the table");
    let rows = all.query_map([], |row| row.get(0)).expect("rows");
    rows.map(|key| key.expect("a key")).collect()
}
