//! Those who follow the live contexts while there are many: what they cost, and what those cost who do not read.

use std::ffi::OsString;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::Row;
use crate::millis;
use crate::start::resident_mebibytes;
use crate::support::client::Client;
use crate::support::events::EventStream;
use crate::support::instance::Instance;

/// Connections that are kept, each a context, if the system allows so many. The service itself takes 10 000.
const MOST: usize = 9900;
/// Files that the service, or this program, has open besides.
const OTHERS: usize = 200;

/// How long the processor's time is added up.
const SPAN: Duration = Duration::from_secs(10);
/// Ticks of the processor's time in a second, as Linux tells it.
const TICKS: f64 = 100.0;
/// Between two requests of one client.
const REST: Duration = Duration::from_millis(10);
/// Followers that do not read.
const UNREAD: usize = 24;

pub(crate) fn live(binary: &OsString) -> Vec<Row> {
    let mut service = Instance::start(binary, &[]);
    let pid = service.pid();
    let many = MOST.min(open_files().saturating_sub(OTHERS));
    let idle: Vec<_> = (0..many).map(|_| kept(&service)).collect();
    follow(&service, 1);
    let quiet = busy(pid);
    let stop = Arc::new(AtomicBool::new(false));
    let asking = ask_on_and_on(&service, &stop);
    let one = busy(pid);
    follow(&service, 7);
    let eight = busy(pid);
    let before = resident_mebibytes(pid);
    let unread: Vec<_> = (0..UNREAD)
        .map(|_| Client::begin(service.admin, "/debug/contexts.events"))
        .collect();
    service.until_metric("bequest_contexts_followers", 8 + UNREAD as u64);
    thread::sleep(SPAN);
    let after = resident_mebibytes(pid);
    stop.store(true, Relaxed);
    asking.join().expect("no panic");
    // To close thousands of connections takes its time, and is not what is measured.
    drop(idle);
    service.until_metric("bequest_connections", 0);
    let begun = Instant::now();
    service.signal("TERM");
    let status = service.exited();
    let took = begun.elapsed();
    drop(unread);
    vec![
        Row(
            "processor's time of the service, of one core, while nothing happens and one follows the live contexts",
            format!("{quiet:.1} % with {many} connections open"),
            "-".into(),
        ),
        Row(
            "the same while 90 requests a second come and go, and one follows; eight follow",
            format!("{one:.1} %; {eight:.1} %"),
            "-".into(),
        ),
        Row(
            "24 further followers that do not read, for 10 s: resident memory, and then SIGTERM: time to exit",
            format!(
                "{:+.1} MiB; {}, exit code {}",
                after - before,
                millis(took),
                status.code().unwrap_or(-1)
            ),
            "-".into(),
        ),
    ]
}

/// A connection on which one request was answered.
fn kept(service: &Instance) -> Client {
    let mut client = Client::connect(service.public).expect("the service accepts");
    ask(&mut client);
    client
}

fn ask(client: &mut Client) {
    client
        .send("GET", "/favicon.ico", &[])
        .expect("the socket takes it");
    client.answer().expect("an answer");
}

/// One request after the other, with a rest between them.
fn ask_on_and_on(service: &Instance, stop: &Arc<AtomicBool>) -> thread::JoinHandle<()> {
    let (mut client, stop) = (kept(service), Arc::clone(stop));
    thread::spawn(move || {
        while !stop.load(Relaxed) {
            ask(&mut client);
            thread::sleep(REST);
        }
    })
}

/// Followers that read until the service is gone.
fn follow(service: &Instance, followers: usize) {
    for _ in 0..followers {
        let mut stream = EventStream::follow(service.admin);
        stream.next().expect("an open stream").expect("the state");
        thread::spawn(move || while let Ok(Some(_)) = stream.next() {});
    }
}

/// How much of one core a process takes, in hundredths.
fn busy(pid: u32) -> f64 {
    let spent = || -> f64 {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Behind the name, which may hold anything; user's and system's time are the twelfth and thirteenth from there.
        let (_, rest) = text.rsplit_once(')').unwrap_or_default();
        let ticks = rest.split_whitespace().skip(11).take(2);
        ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS
    };
    let (before, begun) = (spent(), Instant::now());
    thread::sleep(SPAN);
    100.0 * (spent() - before) / begun.elapsed().as_secs_f64()
}

/// How many files this program may have open, and so may the service that it starts.
fn open_files() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let soft = limits.lines().find_map(|line| {
        line.strip_prefix("Max open files")?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    });
    soft.unwrap_or(OTHERS + 500)
}
