//! Handlers and bodies that panic.

use super::super::common::TestBody;
use super::body::{Step, Steps, data, wait};
use super::client::Client;
use super::requests::Request;
use super::stage::{Answer, Cue, always, differs};

fn panics() -> Step {
    Step::Waits(Box::pin(async { panic!("on purpose") }))
}

#[tokio::test]
async fn a_handler_that_panics_is_answered_for() {
    async fn handler(_: Request, _: Cue) -> Answer {
        panic!("on purpose")
    }
    let script = async |client: &mut Client| {
        client.get(1).await;
        client.over(1).await;
    };
    let of_ours = "1: 500 [content-length: 20; content-type: text/plain; charset=utf-8; date: now], \
                   \"the handler panicked\" END";
    let why = "a panic is answered for, as on HTTP/1";
    differs(why, handler, script, &["1: RST_STREAM CANCEL"], &[of_ours]).await;
}

#[tokio::test]
async fn a_body_that_panics_is_an_error_of_the_servers() {
    let script = async |client: &mut Client| {
        client.get(1).await;
        client.has(1, 5).await;
        client.cue();
        client.over(1).await;
    };
    let body =
        |cue: &Cue| -> http::Response<TestBody> { Steps::new([data("hello"), wait(cue), panics()]).answer() };
    let broke_off = |reason| format!(r#"1: 200 [date: now], "hello", RST_STREAM {reason}"#);
    let why = "what was begun and broke off is an error";
    differs(
        why,
        always(body),
        script,
        &[&broke_off("CANCEL")],
        &[&broke_off("INTERNAL_ERROR")],
    )
    .await;
}
