//! Whatever a client sends, one request is one line.
//!
//! The seed is printed; `BEQUEST_TEST_SEED` repeats a run.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::middleware;
use axum::routing::any;
use bequest::Context;
use bequest_http::axum::Ctx;
use http::{HeaderValue, Method, Request, Uri, header};
use regex::Regex;
use serde_json::Value;
use tower_service::Service;

use crate::answer::{Code, HandlerStatus, respond, way_out};
use crate::domain::session::{Gender, Session, SessionHash, User};
use crate::log::access::{Format, Outcome, push_line_of};
use crate::log::errors::{ErrorLog, Which};
use crate::log::handler::Handler;
use crate::log::identify;
use crate::log::request;
use crate::log::settings::append;
use crate::log::sink::Sink;

const REQUESTS: usize = 100_000;

/// What log parsers know as the combined log format.
const COMBINED: &str = r#"^(?P<host>\S+) (?P<ident>\S+) (?P<user>\S+) \[(?P<time>\d{2}/\w{3}/\d{4}:\d{2}:\d{2}:\d{2} [+-]\d{4})\] "(?P<method>[^ "]+) (?P<target>[^ "]+) HTTP/(?P<version>\d(?:\.\d)?)" (?P<status>\d{3}) (?P<bytes>\d+|-) "(?P<referer>[^"]*)" "(?P<agent>[^"]*)"$"#;

/// What the extended form has after that: the reason, milliseconds taken and left, the request's id.
const EXTENSION: &str =
    r#"^ "(?P<reason>[^"]*)" (?P<took>\d+\.\d{3}) (?P<left>-|\d+\.\d{3}) (?P<id>[0-9a-f]{16}-\d+)$"#;

/// What a client may choose, as bad as it can be.
const NASTY: [&str; 24] = [
    "\"",
    "\\",
    "\n",
    "\r\n",
    "\t",
    "\0",
    "\u{1b}[2J",
    "\u{1b}]0;title\u{7}",
    "\u{9b}31m",
    "\u{202e}",
    "\u{2066}",
    "\u{200f}",
    "\u{2028}",
    "\u{feff}",
    "\u{7f}",
    "%0A",
    "%22",
    "\\x22",
    "\" 200 5 \"-\" \"",
    "취소",
    "🦀",
    "{\"Date\":1}",
    "'",
    " - - [",
];

/// A small generator of numbers that look random, the same for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    /// Text of a few nasty pieces between harmless ones, sometimes very long.
    fn text(&mut self) -> String {
        let pieces = if self.below(500) == 0 { 4000 } else { self.below(8) };
        (0..pieces)
            .map(|_| {
                if self.below(3) == 0 {
                    "plain"
                } else {
                    NASTY[self.below(NASTY.len())]
                }
            })
            .collect()
    }

    /// A header's value: any byte that may stand in one.
    fn header(&mut self) -> HeaderValue {
        let bytes: Vec<u8> = self
            .text()
            .bytes()
            .filter(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
            .collect();
        HeaderValue::from_bytes(&bytes).unwrap()
    }

    /// A target: as it comes if that is one, percent-encoded if it is not.
    fn target(&mut self) -> Uri {
        let text = self.text();
        let raw = format!("/echo/{text}");
        raw.parse().unwrap_or_else(|_| {
            let encoded: String = text
                .bytes()
                .take(1000)
                .map(|byte| format!("%{byte:02X}"))
                .collect();
            format!("/echo/{encoded}").parse().unwrap()
        })
    }

    fn method(&mut self) -> Method {
        let methods = ["GET", "POST", "DELETE", "PROPFIND", "M-SEARCH", "!#$%&'*+.^_`|~"];
        methods[self.below(methods.len())].parse().unwrap()
    }

    fn request(&mut self) -> Request<axum::body::Body> {
        let mut request = Request::builder().method(self.method()).uri(self.target());
        for name in ["referer", "user-agent", "accept", "traceparent", "x-request-id"] {
            if self.below(4) > 0 {
                request = request.header(name, self.header());
            }
        }
        request.body(axum::body::Body::empty()).unwrap()
    }

    fn session(&mut self) -> Arc<Session> {
        Arc::new(Session {
            id: SessionHash([u8::try_from(self.below(256)).unwrap(); 32]),
            user: User {
                id: self.text(),
                gender: Gender::Undisclosed,
                age: u8::try_from(self.below(256)).ok(),
            },
            login_time: SystemTime::UNIX_EPOCH + Duration::from_secs(self.next() % (1 << 33)),
        })
    }
}

/// A folder that is gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        let path = std::env::temp_dir().join(format!("bequest-log-{}-{:x}", std::process::id(), seed()));
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn sink(&self, name: &'static str) -> Arc<Sink> {
        let path = self.0.join(name);
        Arc::new(Sink::start(name, Box::new(move || append(&path))).unwrap())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn seed() -> u64 {
    let given = std::env::var("BEQUEST_TEST_SEED").ok();
    given.map_or_else(
        || RandomState::new().hash_one(0),
        |seed| seed.parse().expect("a number"),
    )
}

/// A router that answers in the words of its client.
fn echo() -> Router {
    let answer = async |Ctx(ctx): Ctx, uri: Uri| {
        respond!(&ctx, HandlerStatus::new(Code::NoJob, format!("no job {uri}")))
    };
    Router::new()
        .route("/echo/{*rest}", any(answer))
        .layer(middleware::from_fn(way_out))
}

#[tokio::test]
async fn one_request_is_one_line_whatever_its_client_sends() {
    let seed = seed();
    eprintln!("seed {seed}");
    let (mut random, folder) = (Random(seed), Folder::new());
    let (access, errors) = (folder.sink("access.log"), folder.sink("error.log"));
    let log: Arc<dyn Handler> = Arc::new(ErrorLog {
        sink: Arc::clone(&errors),
        which: Which::Non200,
        personal: true,
    });
    let (background, mut service) = (Context::background(), echo());
    let extension = Regex::new(EXTENSION).unwrap();
    let mut agents = Vec::with_capacity(REQUESTS);
    for number in 0..REQUESTS {
        let (mut head, body) = random.request().into_parts();
        let ctx = request::remember(&background, &head, ([192, 0, 2, 7], 1).into(), &log);
        identify(&ctx, random.session());
        agents.push(
            head.headers
                .get(header::USER_AGENT)
                .map(|agent| agent.as_bytes().to_vec())
                .unwrap_or_default(),
        );
        head.extensions.insert(ctx.clone());
        let response = service.call(Request::from_parts(head, body)).await.unwrap();
        let reason = random.text();
        let outcome = Outcome {
            status: response.status().as_u16(),
            bytes: number as u64,
            reason: &reason,
            elapsed: Duration::from_nanos(random.next() >> 20),
            left: (number % 2 == 0).then(|| Duration::from_nanos(random.next() >> 20)),
        };
        let (request, mut line, mut longer) = (request::of(&ctx).unwrap(), String::new(), String::new());
        push_line_of(&mut line, request, &outcome, Format::Combined);
        push_line_of(&mut longer, request, &outcome, Format::Extended);
        extension_is_read(&line, &longer, &reason, &extension);
        access.write(&line);
        if number % 1000 == 0 {
            access.flush(&background).await.unwrap();
            errors.flush(&background).await.unwrap();
        }
    }
    access.close(&background).await.unwrap();
    errors.close(&background).await.unwrap();
    assert_eq!((access.counts().lost, errors.counts().lost), (0, 0));
    access_lines_are_read(&folder.0.join("access.log"), &agents);
    error_lines_are_read(&folder.0.join("error.log"));
}

/// The extended form is the combined one and a little more, on the same line.
fn extension_is_read(line: &str, longer: &str, reason: &str, extension: &Regex) {
    let rest = longer
        .strip_prefix(line.trim_end_matches('\n'))
        .unwrap_or_else(|| panic!("{longer}"));
    let rest = rest.strip_suffix('\n').unwrap();
    let fields = extension.captures(rest).unwrap_or_else(|| panic!("{rest}"));
    if reason.len() <= crate::log::escape::LONGEST {
        assert_eq!(unescaped(&fields["reason"]), reason.as_bytes());
    }
}

fn access_lines_are_read(path: &Path, agents: &[Vec<u8>]) {
    let combined = Regex::new(COMBINED).unwrap();
    let text = fs::read_to_string(path).unwrap();
    assert!(
        text.bytes()
            .all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte))
    );
    assert_eq!(text.lines().count(), REQUESTS);
    for ((number, line), agent) in text.lines().enumerate().zip(agents) {
        let fields = combined
            .captures(line)
            .unwrap_or_else(|| panic!("line {number}: {line}"));
        assert_eq!(fields["bytes"].parse(), Ok(number));
        if agent.len() <= crate::log::escape::LONGEST {
            assert_eq!(unescaped(&fields["agent"]), *agent, "line {number}");
        }
    }
}

/// What was quoted, from its `\xHH`.
fn unescaped(field: &str) -> Vec<u8> {
    let mut parts = field.split("\\x");
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    bytes
}

fn error_lines_are_read(path: &Path) {
    let text = fs::read_to_string(path).unwrap();
    let is_calm =
        |c: char| c == '\n' || !(c.is_control() || ('\u{200b}'..='\u{206f}').contains(&c) || c == '\u{feff}');
    assert!(
        text.chars().all(is_calm),
        "a line would do something to a terminal"
    );
    assert_eq!(text.lines().count(), REQUESTS);
    let mut ids = BTreeSet::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["StatusCode"].as_u64().unwrap() >= 400);
        ids.insert(line["RequestID"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids.len(), REQUESTS, "each line is another request's");
    match Command::new("jq")
        .args(["-n", "reduce inputs as $line (0; . + 1)"])
        .arg(path)
        .output()
    {
        Ok(counted) => {
            assert!(
                counted.status.success(),
                "{}",
                String::from_utf8_lossy(&counted.stderr)
            );
            assert_eq!(
                String::from_utf8_lossy(&counted.stdout).trim(),
                REQUESTS.to_string()
            );
        }
        Err(error) => {
            eprintln!("left out: jq is not installed ({error}), so serde_json alone has read the error lines")
        }
    }
}

/// The control: the same requests, written as a naive logger writes them.
#[test]
fn control_naive_lines_are_broken() {
    let seed = seed();
    eprintln!("seed {seed}");
    let (mut random, combined) = (Random(seed), Regex::new(COMBINED).unwrap());
    let mut naive = String::new();
    let requests = 1000;
    for _ in 0..requests {
        let (request, session) = (random.request(), random.session());
        let agent = request
            .headers()
            .get(header::USER_AGENT)
            .map(|agent| String::from_utf8_lossy(agent.as_bytes()).into_owned());
        let target = request.uri().path();
        naive += &format!(
            "192.0.2.7 - {} [29/Jul/2017:10:08:30 +0000] \"{} {target} HTTP/1.1\" 404 0 \"\" \"{}\"\n",
            session.user.id,
            request.method(),
            agent.unwrap_or_default(),
        );
    }
    let read = naive.lines().filter(|line| combined.is_match(line)).count();
    let lines = naive.lines().count();
    eprintln!("{requests} requests are {lines} lines, of which {read} can be read");
    assert!(lines > requests, "some requests are several lines");
    assert!(
        read < requests,
        "and not every line can be read: {read} of {requests}"
    );
}
