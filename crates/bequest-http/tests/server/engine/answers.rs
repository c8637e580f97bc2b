//! Answers: their fields, where they end, how their bodies fail.

use bytes::Bytes;
use h2::Reason;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Empty};

use super::super::common::{TestBody, full};
use super::body::{Caused, Step, Steps, data, failure, pause, wait};
use super::client::Client;
use super::stage::{Cue, always, differs, same};

/// An answer, and what the client sees of it.
struct Case {
    name: &'static str,
    answer: fn(&Cue) -> Response<TestBody>,
    sees: &'static str,
}

const fn case(name: &'static str, answer: fn(&Cue) -> Response<TestBody>, sees: &'static str) -> Case {
    Case { name, answer, sees }
}

/// A text, with this status and these fields.
fn with(status: u16, fields: &[(&'static str, &'static str)], text: &'static str) -> Response<TestBody> {
    let mut response = full(text);
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    for (name, value) in fields {
        let value = HeaderValue::from_static(value);
        response.headers_mut().append(*name, value);
    }
    response
}

fn length(length: &'static str, mut response: Response<TestBody>) -> Response<TestBody> {
    let length = HeaderValue::from_static(length);
    response.headers_mut().insert("content-length", length);
    response
}

fn nothing() -> Response<TestBody> {
    Response::new(
        Empty::<Bytes>::new()
            .map_err(|never| match never {})
            .boxed_unsync(),
    )
}

/// A body of unknown length.
fn steps(steps: impl IntoIterator<Item = Step>) -> Response<TestBody> {
    Steps::new(steps).answer()
}

fn trailers() -> Step {
    Step::Trailers("x-end", "well")
}

async fn get(client: &mut Client) {
    client.get(1).await;
    client.over(1).await;
}

async fn play(cases: &[Case], script: impl AsyncFn(&mut Client) + Copy) {
    for case in cases {
        let sees = format!("1: {}", case.sees);
        same(case.name, always(case.answer), script, &[&sees]).await;
    }
}

#[tokio::test]
async fn fields() {
    let cases = [
        case(
            "a date and a length",
            |_| full("hello"),
            r#"200 [content-length: 5; date: now], "hello" END"#,
        ),
        case(
            "a date of its own",
            |_| with(200, &[("date", "then")], "hello"),
            r#"200 [content-length: 5; date: then], "hello" END"#,
        ),
        case(
            "a length of its own",
            |_| with(200, &[("content-length", "5")], "hello"),
            r#"200 [content-length: 5; date: now], "hello" END"#,
        ),
        case(
            "a length of its own before a body of unknown length",
            |_| length("5", steps([data("hel"), data("lo")])),
            r#"200 [content-length: 5; date: now], "hello", "" END"#,
        ),
        case(
            "a length that is too long",
            |_| with(200, &[("content-length", "6")], "hello"),
            r#"200 [content-length: 6; date: now], "hello" END"#,
        ),
        case(
            "a length that is too short",
            |_| with(200, &[("content-length", "4")], "hello"),
            r#"200 [content-length: 4; date: now], "hello" END"#,
        ),
        case(
            "a length before no body",
            |_| with(200, &[("content-length", "0")], ""),
            "200 [content-length: 0; date: now] END",
        ),
        case(
            "an unknown length",
            |_| steps([data("hello")]),
            r#"200 [date: now], "hello", "" END"#,
        ),
        case(
            "an exact size",
            |_| Steps::new([data("hello")]).of_size(5).answer(),
            r#"200 [content-length: 5; date: now], "hello", "" END"#,
        ),
        case(
            "any",
            |_| {
                let fields = [
                    ("set-cookie", "a=b"),
                    ("x-empty", ""),
                    ("set-cookie", "c=d"),
                    ("server", "test"),
                ];
                with(404, &fields, "no")
            },
            "404 [content-length: 2; date: now; server: test; set-cookie: a=b; set-cookie: c=d; x-empty: ], \"no\" END",
        ),
        case(
            "a large one",
            |_| {
                let mut response = full("hello");
                let large = HeaderValue::from_str(&"x".repeat(20_000)).expect("a value");
                response.headers_mut().insert("x-large", large);
                response
            },
            r#"200 [content-length: 5; date: now; x-large: 20000 bytes], "hello" END"#,
        ),
        case(
            "those of HTTP/1",
            |_| {
                let fields = [
                    ("connection", "keep-alive, x-a,x-b , "),
                    ("x-a", "a"),
                    ("x-b", "b"),
                    ("x-c", "c"),
                    ("keep-alive", "timeout=5"),
                    ("proxy-connection", "close"),
                    ("transfer-encoding", "chunked"),
                    ("upgrade", "h2c"),
                    ("te", "trailers"),
                    ("trailer", "x-end"),
                ];
                with(200, &fields, "hello")
            },
            r#"200 [content-length: 5; date: now; trailer: x-end; x-c: c], "hello" END"#,
        ),
        case(
            "those that HTTP/1 would take out, and that are said anew",
            |_| {
                let fields = [("connection", "date, content-length"), ("date", "then")];
                length("6", with(200, &fields, "hello"))
            },
            r#"200 [content-length: 5; date: now], "hello" END"#,
        ),
    ];
    play(&cases, get).await;
    let two_lists = |_: &Cue| {
        let fields = [
            ("connection", "x-a"),
            ("connection", "x-b"),
            ("x-a", "a"),
            ("x-b", "b"),
        ];
        with(200, &fields, "hello")
    };
    let why = "two fields with one name are one list (RFC 9110, 5.3), and hyper looks at the first";
    let of_hyper = r#"1: 200 [content-length: 5; date: now; x-b: b], "hello" END"#;
    let of_ours = r#"1: 200 [content-length: 5; date: now], "hello" END"#;
    differs(why, always(two_lists), get, &[of_hyper], &[of_ours]).await;
}

#[tokio::test]
async fn ends() {
    let cases = [
        case("no body", |_| nothing(), "200 [date: now] END"),
        case("no bytes", |_| full(""), "200 [date: now] END"),
        case(
            "a body that turns out to have none",
            |_| steps([]),
            r#"200 [date: now], "" END"#,
        ),
        case(
            "a body of no size that does not say that it is over",
            |_| Steps::new([]).of_size(0).answer(),
            r#"200 [content-length: 0; date: now], "" END"#,
        ),
        case(
            "several frames",
            |_| steps([data("a"), data("b"), pause(), data("c")]),
            r#"200 [date: now], "abc", "" END"#,
        ),
        case(
            "several frames of which the last says so",
            |_| Steps::new([data("a"), pause(), data("b")]).says_end().answer(),
            r#"200 [date: now], "ab" END"#,
        ),
        case(
            "empty frames",
            |_| steps([data(""), data("a"), data(""), data(""), data("b"), data("")]),
            r#"200 [date: now], "", "a", "", "", "b", "", "" END"#,
        ),
        case(
            "an empty frame that says that it is the last",
            |_| Steps::new([data("a"), data("")]).says_end().answer(),
            r#"200 [date: now], "a", "" END"#,
        ),
        case(
            "trailers",
            |_| steps([data("hello"), trailers()]),
            r#"200 [date: now], "hello", trailers [x-end: well] END"#,
        ),
        case(
            "trailers behind a length",
            |_| {
                Steps::new([data("hello"), pause(), trailers()])
                    .of_size(5)
                    .answer()
            },
            r#"200 [content-length: 5; date: now], "hello", trailers [x-end: well] END"#,
        ),
        case(
            "trailers only",
            |_| steps([trailers()]),
            "200 [date: now], trailers [x-end: well] END",
        ),
        case(
            "frames behind trailers",
            |_| steps([trailers(), data("hello")]),
            "200 [date: now], trailers [x-end: well] END",
        ),
    ];
    play(&cases, get).await;
}

#[tokio::test]
async fn failures() {
    let cases = [
        case(
            "of the body",
            |cue| steps([data("hello"), wait(cue), failure()]),
            r#"200 [date: now], "hello", RST_STREAM INTERNAL_ERROR"#,
        ),
        case(
            "of the body, with a reason",
            |cue| {
                let error = h2::Error::from(Reason::ENHANCE_YOUR_CALM);
                steps([data("hello"), wait(cue), Step::Fails(error.into())])
            },
            r#"200 [date: now], "hello", RST_STREAM ENHANCE_YOUR_CALM"#,
        ),
        case(
            "of the body, with a reason as its cause",
            |cue| {
                let error = Caused(h2::Error::from(Reason::HTTP_1_1_REQUIRED));
                steps([data("hello"), wait(cue), Step::Fails(error.into())])
            },
            r#"200 [date: now], "hello", RST_STREAM HTTP_1_1_REQUIRED"#,
        ),
        case(
            "of the body, with a reason in what hides it",
            |cue| {
                let error = std::io::Error::other(h2::Error::from(Reason::HTTP_1_1_REQUIRED));
                steps([data("hello"), wait(cue), Step::Fails(error.into())])
            },
            r#"200 [date: now], "hello", RST_STREAM INTERNAL_ERROR"#,
        ),
    ];
    let script = async |client: &mut Client| {
        client.get(1).await;
        client.has(1, 5).await;
        client.cue();
        client.over(1).await;
    };
    play(&cases, script).await;
    let cases = [case(
        "of the body, before anything of it was sent",
        |_| steps([failure()]),
        "RST_STREAM INTERNAL_ERROR",
    )];
    play(&cases, get).await;
}

/// What has no body by its method or status is sent without one, which hyper leaves to the handler: the length goes with it, unless
/// the handler has given one.
const WITHHELD: &str = "what has no body by its method or status is sent without one";

#[tokio::test]
async fn what_has_no_body_is_sent_without_one() {
    let of_hyper = r#"[content-length: 5; date: now], "hello" END"#;
    for (name, method, answer, of_hyper, of_ours) in [
        (
            "HEAD",
            "HEAD",
            (|_| full("hello")) as fn(&Cue) -> Response<TestBody>,
            format!("200 {of_hyper}"),
            "200 [date: now] END",
        ),
        (
            "HEAD with a length",
            "HEAD",
            |_| with(200, &[("content-length", "5")], "hello"),
            format!("200 {of_hyper}"),
            "200 [content-length: 5; date: now] END",
        ),
        (
            "HEAD with trailers",
            "HEAD",
            |_| steps([data("hello"), trailers()]),
            r#"200 [date: now], "hello", trailers [x-end: well] END"#.to_owned(),
            "200 [date: now] END",
        ),
        (
            "204",
            "GET",
            |_| with(204, &[], "hello"),
            format!("204 {of_hyper}"),
            "204 [date: now] END",
        ),
        (
            "304",
            "GET",
            |_| with(304, &[], "hello"),
            format!("304 {of_hyper}"),
            "304 [date: now] END",
        ),
    ] {
        let script = async |client: &mut Client| {
            client.begin(1, true, method, "/", &[]).await;
            client.over(1).await;
        };
        let why = format!("{name}: {WITHHELD}");
        let (of_hyper, of_ours) = (format!("1: {of_hyper}"), format!("1: {of_ours}"));
        differs(&why, always(answer), script, &[&of_hyper], &[&of_ours]).await;
    }
}

#[tokio::test]
async fn what_is_answered_without_one_is_as_it_is() {
    let head = async |client: &mut Client| {
        client.begin(1, true, "HEAD", "/", &[]).await;
        client.over(1).await;
    };
    let cases = [
        case(
            "HEAD with a length",
            |_| with(200, &[("content-length", "5")], ""),
            "200 [content-length: 5; date: now] END",
        ),
        case("HEAD", |_| nothing(), "200 [date: now] END"),
    ];
    play(&cases, head).await;
    let cases = [
        case("204", |_| with(204, &[], ""), "204 [date: now] END"),
        case(
            "304 with a length",
            |_| with(304, &[("content-length", "5")], ""),
            "304 [content-length: 5; date: now] END",
        ),
        case(
            "205 with a body",
            |_| with(205, &[], "hello"),
            r#"205 [content-length: 5; date: now], "hello" END"#,
        ),
        case(
            "103, as the answer",
            |_| with(103, &[], ""),
            "103 [date: now] END",
        ),
        case("101", |_| with(101, &[], ""), "101 [date: now] END"),
    ];
    play(&cases, get).await;
}
