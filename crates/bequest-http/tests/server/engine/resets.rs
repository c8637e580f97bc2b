//! Streams that a client resets: nothing more is sent on them, and the others go on.

use h2::Reason;

use super::super::common::{RawHttp2, full, http2_bytes};
use super::blocks::block;
use super::body::{Steps, bytes, data, silence};
use super::client::Client;
use super::requests::{READ_3, Request, reader, report};
use super::stage::{Answer, Cue, deaf, differs, same};

const REASONS: [Reason; 3] = [Reason::CANCEL, Reason::NO_ERROR, Reason::INTERNAL_ERROR];

/// Waits for the script, without and with a body, and answers.
async fn patient(_: Request, cue: Cue) -> Answer {
    cue.tell("begun");
    cue.come().await;
    Ok(full("late"))
}

#[tokio::test]
async fn nothing_is_sent_on_a_stream_that_was_reset() {
    for reason in REASONS {
        for end in [true, false] {
            let script = async |client: &mut Client| {
                client.begin(1, end, "POST", "/", &[]).await;
                client.told().await;
                client.reset(1, reason).await;
                client.settle().await;
                client.get(3).await;
                client.told().await;
                // Whoever is left of the first one, and the second one.
                client.cue();
                client.cue();
                client.over(3).await;
            };
            let sees = [
                r#"3: 200 [content-length: 4; date: now], "late" END"#,
                "told: begun",
                "told: begun",
            ];
            same("a handler that waits", patient, script, &sees).await;
        }
        let script = async |client: &mut Client| {
            client.get(1).await;
            client.has(1, 5).await;
            client.reset(1, reason).await;
            client.told().await;
            client.get(3).await;
            client.has(3, 5).await;
        };
        let handler = |_: Request, cue: Cue| {
            let body = Steps::new([data("hello"), silence()]).tells(cue);
            std::future::ready(Answer::Ok(body.answer()))
        };
        let sees = [
            r#"1: 200 [date: now], "hello""#,
            r#"3: 200 [date: now], "hello""#,
            "told: the body is dropped",
        ];
        same("a body that waits", handler, script, &sees).await;
    }
}

#[tokio::test]
async fn a_request_may_be_reset_in_one_breath() {
    let script = async |client: &mut Client| {
        let head = block(&[(":method", "GET"), (":scheme", "http"), (":path", "/")]);
        let whole = RawHttp2::END_HEADERS | RawHttp2::END_STREAM;
        let breath = [
            http2_bytes::frame(RawHttp2::HEADERS, whole, 1, &head),
            http2_bytes::reset(1),
        ];
        client.send(&breath.concat()).await;
        client.settle().await;
    };
    let why = "a handler whose stream is reset already is not begun";
    differs(why, deaf, script, &["told: begun"], &[]).await;
}

#[tokio::test]
async fn a_body_that_its_client_resets_fails() {
    let script_of = |reason| {
        async move |client: &mut Client| {
            client.post(1).await;
            client.told().await;
            client.data(1, &bytes(5), false).await;
            client.settle().await;
            client.reset(1, reason).await;
            client.told().await;
            client.settle().await;
            client.get(3).await;
            client.over(3).await;
        }
    };
    let told = |first| [READ_3, "told: begun", first, "told: begun", "told: 0 bytes"];
    let failed = told("told: 5 bytes, failed");
    for reason in [Reason::CANCEL, Reason::INTERNAL_ERROR] {
        same("reset", reader, script_of(reason), &failed).await;
    }
    let why = "half of a body is not the whole one, whatever its client says that it means by the reset";
    let ended = told("told: 5 bytes");
    differs(why, reader, script_of(Reason::NO_ERROR), &ended, &failed).await;
}

#[tokio::test]
async fn the_rest_of_a_body_that_was_reset_is_an_error_of_its_stream() {
    let script = async |client: &mut Client| {
        client.post(1).await;
        client.told().await;
        client.reset(1, Reason::CANCEL).await;
        client.told().await;
        client.data(1, &bytes(5), true).await;
        client.get(3).await;
        client.over(3).await;
    };
    let sees = [
        "1: RST_STREAM STREAM_CLOSED",
        READ_3,
        "told: begun",
        "told: 0 bytes, failed",
        "told: begun",
        "told: 0 bytes",
    ];
    same("the rest", reader, script, &sees).await;
}

#[tokio::test]
async fn a_body_that_is_held_behind_its_answer_is_the_end_of_its_stream_when_it_goes() {
    async fn holds(request: Request, cue: Cue) -> Answer {
        tokio::spawn(async move {
            cue.come().await;
            drop(request);
        });
        Ok(full("later"))
    }
    let script = async |client: &mut Client| {
        client.post(1).await;
        client.over(1).await;
        client.settle().await;
        assert!(!client.record.is_reset(1));
        client.cue();
        client.until("a reset", |seen| seen.is_reset(1)).await;
    };
    let sees = r#"1: 200 [content-length: 5; date: now], "later" END, RST_STREAM NO_ERROR"#;
    same("dropped", holds, script, &[sees]).await;
    async fn reads(request: Request, cue: Cue) -> Answer {
        tokio::spawn(async move { cue.tell(report(request.into_body()).await) });
        Ok(full("later"))
    }
    let script = async |client: &mut Client| {
        client.post(1).await;
        client.over(1).await;
        client.data(1, &bytes(5), false).await;
        client.settle().await;
        client.reset(1, Reason::CANCEL).await;
        client.told().await;
    };
    let sees = [
        r#"1: 200 [content-length: 5; date: now], "later" END"#,
        "told: 5 bytes, failed",
    ];
    same("reset", reads, script, &sees).await;
}
