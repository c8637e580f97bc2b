//! Handlers that fail or panic, and bodies that do.

use h2::Reason;

use super::super::common::TestBody;
use super::body::{Step, Steps, data, wait};
use super::client::Client;
use super::requests::Request;
use super::stage::{Answer, Cue, always, differs};

fn panics() -> Step {
    Step::Waits(Box::pin(async { panic!("on purpose") }))
}

async fn get(client: &mut Client) {
    client.get(1).await;
    client.over(1).await;
}

#[tokio::test]
async fn a_service_that_fails_is_answered_for() {
    let of_ours = "1: 500 [content-length: 18; content-type: text/plain; charset=utf-8; date: now], \
                   \"the service failed\" END";
    for (reason, of_hyper) in [
        (None, "1: RST_STREAM INTERNAL_ERROR"),
        (Some(Reason::REFUSED_STREAM), "1: RST_STREAM REFUSED_STREAM"),
    ] {
        let handler = move |_, _| {
            let error = reason.map(|reason| h2::Error::from(reason).into());
            std::future::ready(Answer::Err(error.unwrap_or_else(|| "on purpose".into())))
        };
        let why = "a failure is an answer, on both protocols, and its reason is for the observer";
        differs(why, handler, get, &[of_hyper], &[of_ours]).await;
    }
}

#[tokio::test]
async fn a_handler_that_panics_is_answered_for() {
    async fn handler(_: Request, _: Cue) -> Answer {
        panic!("on purpose")
    }
    let of_ours = "1: 500 [content-length: 20; content-type: text/plain; charset=utf-8; date: now], \
                   \"the handler panicked\" END";
    let why = "a panic is answered for, as on HTTP/1";
    differs(why, handler, get, &["1: RST_STREAM CANCEL"], &[of_ours]).await;
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
