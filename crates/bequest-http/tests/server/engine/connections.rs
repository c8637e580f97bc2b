//! Connections: their settings and limits, and how they end.

use http_body_util::BodyExt;

use super::super::common::{RawHttp2, full, http2_bytes};
use super::body::{Steps, bytes, data, silence, wait};
use super::client::Client;
use super::requests::{Request, reader};
use super::stage::{Answer, Cue, Engine, always, deaf, played, same};

/// Answers when it is let, and tells when it has begun and when it is gone.
async fn patient(_: Request, cue: Cue) -> Answer {
    struct Gone(Cue);
    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.tell("gone");
        }
    }
    cue.tell("begun");
    let _gone = Gone(cue.clone());
    cue.come().await;
    Ok(full("late"))
}

#[tokio::test]
async fn settings_are_the_same() {
    for engine in [Engine::Hyper, Engine::Ours] {
        let seen = played(engine, always(|_| full("")), async |client: &mut Client| {
            // What opens the window of the connection has come by then as well.
            client.settle().await;
            assert_eq!(client.window(1), 1 << 20, "{engine:?}");
            assert_eq!(client.window(0), 1 << 20, "{engine:?}");
        });
        let (seen, settings) = (seen.await, [(3, 200), (4, 1 << 20), (5, 16_384), (6, 16_384)]);
        assert_eq!(
            (&seen.settings[..], seen.acknowledged),
            (&settings[..], 1),
            "{engine:?}"
        );
    }
}

#[tokio::test]
async fn a_stream_too_many_is_refused() {
    let handler = |_: Request, _: Cue| std::future::pending::<Answer>();
    let script = async |client: &mut Client| {
        for nth in 0..202 {
            client.get(2 * nth + 1).await;
        }
        client.over(403).await;
        // One that is given up makes room for another one.
        client.reset(1, h2::Reason::CANCEL).await;
        client.get(405).await;
        client.get(407).await;
        client.over(407).await;
    };
    let refused = [401, 403, 407].map(|stream| format!("{stream}: RST_STREAM REFUSED_STREAM"));
    same("200", handler, script, &refused.each_ref().map(String::as_str)).await;
}

#[tokio::test]
async fn a_shutdown_answers_what_was_begun_and_says_goodbye() {
    let script = async |client: &mut Client| {
        client.post(1).await;
        client.told().await;
        client.hold_pongs();
        client.shut_down();
        client.until("a goodbye", |seen| seen.goodbyes() == 1).await;
        // Who has not heard of it yet is answered, until it is known to have.
        client.get(3).await;
        client.told().await;
        client.let_pongs_go().await;
        client
            .until("the last goodbye", |seen| seen.goodbyes() == 2)
            .await;
        client.get(5).await;
        client.cue();
        client.cue();
        client.over(3).await;
        client.over(1).await;
        client.closed().await;
    };
    let sees = [
        r#"0: GOAWAY 2147483647 NO_ERROR "", GOAWAY 3 NO_ERROR "", closed"#,
        r#"1: 200 [content-length: 4; date: now], "late" END, RST_STREAM NO_ERROR"#,
        r#"3: 200 [content-length: 4; date: now], "late" END"#,
        "told: begun",
        "told: begun",
        "told: gone",
        "told: gone",
    ];
    same("two", patient, script, &sees).await;
    let script = async |client: &mut Client| {
        client.shut_down();
        client.closed().await;
    };
    let sees = r#"0: GOAWAY 2147483647 NO_ERROR "", GOAWAY 0 NO_ERROR "", closed"#;
    same("idle", patient, script, &[sees]).await;
}

/// Also if it says that it goes for an error.
#[tokio::test]
async fn a_client_that_says_goodbye_is_answered() {
    let goodbye = |reason: h2::Reason| {
        let payload = [&[0; 4][..], &u32::from(reason).to_be_bytes()].concat();
        http2_bytes::frame(RawHttp2::GOAWAY, 0, 0, &payload)
    };
    for reason in [h2::Reason::NO_ERROR, h2::Reason::INTERNAL_ERROR] {
        let script = async |client: &mut Client| {
            client.get(1).await;
            client.told().await;
            client.send(&goodbye(reason)).await;
            client.settle().await;
            client.cue();
            client.over(1).await;
            client.closed().await;
        };
        let sees = [
            r#"0: GOAWAY 1 NO_ERROR "", closed"#,
            r#"1: 200 [content-length: 4; date: now], "late" END"#,
            "told: begun",
            "told: gone",
        ];
        same("busy", patient, script, &sees).await;
    }
    let script = async |client: &mut Client| {
        client.send(&goodbye(h2::Reason::NO_ERROR)).await;
        client.closed().await;
    };
    let sees = r#"0: GOAWAY 0 NO_ERROR "", closed"#;
    same("idle", patient, script, &[sees]).await;
}

#[tokio::test]
async fn a_client_that_closes_in_order_has_its_connection_closed() {
    let script = async |client: &mut Client| {
        client.get(1).await;
        client.post(3).await;
        client.told().await;
        client.told().await;
        client.half_close().await;
        client.closed().await;
    };
    same("busy", deaf, script, &["0: closed", "told: begun", "told: begun"]).await;
    let script = async |client: &mut Client| {
        client.half_close().await;
        client.closed().await;
    };
    same("idle", deaf, script, &["0: closed"]).await;
}

#[tokio::test]
async fn frames_that_mean_nothing_here_are_passed_over() {
    let script = async |client: &mut Client| {
        client.frame(0x77, 0xff, 0, b"unknown").await;
        client.frame(0x77, 0xff, 7, b"unknown").await;
        client.frame(RawHttp2::PRIORITY, 0, 1, &[0, 0, 0, 0, 16]).await;
        client.settings(&[(0x77, 1), (2, 0)]).await;
        client.get(1).await;
        client.over(1).await;
        // A stream that is closed may still be spoken of.
        client.open(1, 1).await;
        client.reset(1, h2::Reason::CANCEL).await;
        client.frame(RawHttp2::PRIORITY, 0, 1, &[0, 0, 0, 0, 16]).await;
        client.get(3).await;
        client.over(3).await;
    };
    let (one, three) = ("1: 200 [date: now] END", "3: 200 [date: now] END");
    same("frames", always(|_| full("")), script, &[one, three]).await;
}

#[tokio::test]
async fn a_shutdown_lets_bodies_come_to_their_end() {
    async fn reads_and_says(request: Request, cue: Cue) -> Answer {
        cue.tell("begun");
        let body = request.into_body().collect().await?.to_bytes();
        Ok(Steps::new([data(body), wait(&cue), data("more")]).answer())
    }
    let script = async |client: &mut Client| {
        client.post(1).await;
        client.told().await;
        client.data(1, b"hel", false).await;
        client.shut_down();
        client
            .until("the last goodbye", |seen| seen.goodbyes() == 2)
            .await;
        client.data(1, b"lo", true).await;
        client.has(1, 5).await;
        client.cue();
        client.closed().await;
    };
    let sees = [
        r#"0: GOAWAY 2147483647 NO_ERROR "", GOAWAY 1 NO_ERROR "", closed"#,
        r#"1: 200 [date: now], "hellomore", "" END"#,
        "told: begun",
    ];
    same("bodies", reads_and_says, script, &sees).await;
}

#[tokio::test]
async fn a_stream_that_was_opened_behind_the_last_goodbye_is_passed_over() {
    let script = async |client: &mut Client| {
        client.get(1).await;
        client.told().await;
        client.shut_down();
        client
            .until("the last goodbye", |seen| seen.goodbyes() == 2)
            .await;
        client.post(3).await;
        client.data(3, b"hello", true).await;
        client.settle().await;
        client.cue();
        client.closed().await;
    };
    let sees = [
        r#"0: GOAWAY 2147483647 NO_ERROR "", GOAWAY 1 NO_ERROR "", closed"#,
        r#"1: 200 [content-length: 4; date: now], "late" END"#,
        "told: begun",
        "told: gone",
    ];
    same("a stream", patient, script, &sees).await;
}

#[tokio::test]
async fn a_client_that_closes_in_the_middle_of_bodies_has_its_connection_closed() {
    let script = async |client: &mut Client| {
        client.get(1).await;
        client.has(1, 5).await;
        client.half_close().await;
        client.closed().await;
        client.told().await;
    };
    let handler = |_: Request, cue: Cue| {
        let body = Steps::new([data("hello"), silence()]).tells(cue);
        std::future::ready(Answer::Ok(body.answer()))
    };
    let sees = [
        "0: closed",
        r#"1: 200 [date: now], "hello""#,
        "told: the body is dropped",
    ];
    same("an answer", handler, script, &sees).await;
    let script = async |client: &mut Client| {
        client.post(1).await;
        client.told().await;
        client.data(1, &bytes(5), false).await;
        client.half_close().await;
        client.closed().await;
        client.told().await;
    };
    let sees = ["0: closed", "told: begun", "told: 5 bytes, failed"];
    same("a request", reader, script, &sees).await;
}
