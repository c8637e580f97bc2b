//! That the comparison can fail: handlers that differ in one thing each.

use h2::Reason;
use http::Response;

use super::super::common::{TestBody, full};
use super::body::{Step, Steps, data};
use super::client::Client;
use super::stage::{Cue, Engine, always, played};

fn with_field(value: &'static str) -> Response<TestBody> {
    let mut response = full("hello");
    let value = http::HeaderValue::from_static(value);
    response.headers_mut().insert("x-name", value);
    response
}

fn reset(reason: Reason) -> Response<TestBody> {
    Steps::new([Step::Fails(h2::Error::from(reason).into())]).answer()
}

fn steps(steps: impl IntoIterator<Item = Step>) -> Steps {
    Steps::new(steps)
}

#[tokio::test]
async fn control_a_handler_that_differs_in_one_thing_is_told_apart() {
    type Pair = (
        &'static str,
        fn(&Cue) -> Response<TestBody>,
        fn(&Cue) -> Response<TestBody>,
    );
    let pairs: [Pair; 9] = [
        ("a field", |_| with_field("a"), |_| with_field("b")),
        ("a field too many", |_| full("hello"), |_| with_field("a")),
        ("the data", |_| full("hello"), |_| full("hallo")),
        (
            "long data",
            |_| full(vec![b'x'; 1000]),
            |_| full([&[b'x'; 999][..], b"y"].concat()),
        ),
        (
            "where it ends",
            |_| steps([data("a")]).answer(),
            |_| steps([data("a")]).says_end().answer(),
        ),
        (
            "an empty frame",
            |_| steps([data("a"), data("b")]).answer(),
            |_| steps([data("a"), data(""), data("b")]).answer(),
        ),
        (
            "the trailers",
            |_| steps([Step::Trailers("x-end", "well")]).answer(),
            |_| steps([Step::Trailers("x-end", "ill")]).answer(),
        ),
        (
            "the reason of a reset",
            |_| reset(Reason::CANCEL),
            |_| reset(Reason::INTERNAL_ERROR),
        ),
        (
            "the status",
            |_| full("hello"),
            |_| {
                let mut response = full("hello");
                *response.status_mut() = http::StatusCode::CREATED;
                response
            },
        ),
    ];
    let script = async |client: &mut Client| {
        client.get(1).await;
        client.over(1).await;
    };
    for (what, one, other) in pairs {
        let hyper = played(Engine::Hyper, always(one), script).await;
        let ours = played(Engine::Ours, always(one), script).await;
        assert!(ours == hyper, "{what}: {ours} and {hyper}");
        let other = played(Engine::Ours, always(other), script).await;
        assert!(other != hyper, "{what}: {hyper}");
    }
}

#[tokio::test]
#[should_panic(expected = "and hyper has something else: other bytes")]
async fn control_a_case_fails_if_only_the_bytes_differ() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

    let times = Arc::new(AtomicU8::new(b'a'));
    let handler = always(move |_| full(vec![times.fetch_add(1, Relaxed); 100]));
    let script = async |client: &mut Client| {
        client.get(1).await;
        client.over(1).await;
    };
    let sees = "1: 200 [content-length: 100; date: now], 100 bytes END";
    super::stage::same("and hyper has something else", handler, script, &[sees]).await;
}
