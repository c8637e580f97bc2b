//! A termination signal while two hundred requests are open.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::instance::Instance;
use crate::support::until;
use crate::{Row, naive};

const OPEN: usize = 200;
/// How long requests may go on; the service then gives those that are told two seconds more.
const DRAIN: Duration = Duration::from_secs(3);
const GRACE: Duration = Duration::from_secs(2);

/// Every second request would be finished within the drain, the others would not.
pub(crate) fn open(binary: &OsString) -> Vec<Row> {
    let mut service = Instance::start(binary, &["--drain", "3s"]);
    let ms = |n| if n % 2 == 0 { 2000 } else { 60_000 };
    let target = |n| format!("/store?key={n}&ms={}", ms(n));
    let clients: Vec<_> = (0..OPEN)
        .map(|n| Client::begin(service.public, &target(n)))
        .collect();
    until("all requests to be open", || {
        (service.metric("bequest_requests") == OPEN as u64).then_some(())
    });
    service.signal("TERM");
    let begun = Instant::now();
    let status = service.ended();
    let took = begun.elapsed();

    let (mut answered, mut told, mut closed) = (0, 0, 0);
    for mut client in clients {
        match client.answer().map(|answer| answer.status) {
            Ok(200) => answered += 1,
            Ok(_) => told += 1,
            Err(_) => closed += 1,
        }
    }
    let lines = service.request_lines();
    let shut_down = lines.iter().filter(|line| line["end"] == "shutting down").count();
    let naive = naive::shutdown_with_an_endless_request(DRAIN + GRACE);
    vec![
        Row(
            "SIGTERM with 200 open requests, 3 s of drain: time to exit",
            format!(
                "{:.2} s, exit code {}",
                took.as_secs_f64(),
                status.code().unwrap_or(-1)
            ),
            naive,
        ),
        Row(
            "of those 200",
            format!(
                "answered {answered}, told with 503 {told}, closed without an answer {closed}; ended with \"shutting down\" {shut_down}"
            ),
            "-".into(),
        ),
    ]
}
