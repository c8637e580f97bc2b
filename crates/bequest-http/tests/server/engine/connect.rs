//! Requests for tunnels (`CONNECT`), and what they are answered with.

use h2::Reason;

use super::super::common::full;
use super::body::{Steps, data};
use super::client::Client;
use super::requests::Request;
use super::stage::{Answer, Cue, Engine, played, same};
use super::tunnels::{DROPPED, OVER, connect, echo, tunnel};

#[tokio::test]
async fn a_tunnel_that_nobody_takes_is_over_at_once() {
    for (name, end, sees) in [("open", false, DROPPED), ("ended", true, OVER)] {
        let handler = |_: Request, _: Cue| std::future::ready(Answer::Ok(full("")));
        let script = async |client: &mut Client| {
            connect(client, 1, end, &[]).await;
            client.over(1).await;
        };
        same(name, handler, script, &[sees]).await;
    }
}

#[tokio::test]
async fn a_refusal_of_a_tunnel_is_an_answer_like_any_other() {
    for (name, end, reset) in [("open", false, ", RST_STREAM NO_ERROR"), ("ended", true, "")] {
        let handler = |_: Request, cue: Cue| {
            let mut answer = Steps::new([data("no")]).of_size(2).tells(cue).answer();
            *answer.status_mut() = http::StatusCode::FORBIDDEN;
            std::future::ready(Answer::Ok(answer))
        };
        let script = async |client: &mut Client| {
            connect(client, 1, end, &[]).await;
            client.over(1).await;
        };
        let sees = format!(r#"1: 403 [content-length: 2; date: now], "no", "" END{reset}"#);
        same(name, handler, script, &[&sees, "told: the body is dropped"]).await;
    }
}

#[tokio::test]
async fn a_tunnel_has_no_body() {
    for (name, length, sees) in [
        ("no length", None, DROPPED),
        ("a length of nothing", Some("0"), DROPPED),
        ("a length", Some("5"), "1: RST_STREAM INTERNAL_ERROR"),
    ] {
        let handler = move |_: Request, cue: Cue| {
            let mut answer = Steps::new([data("hello")]).tells(cue).answer();
            if let Some(length) = length {
                answer
                    .headers_mut()
                    .insert("content-length", http::HeaderValue::from_static(length));
            }
            std::future::ready(Answer::Ok(answer))
        };
        let script = async |client: &mut Client| {
            connect(client, 1, false, &[]).await;
            client.over(1).await;
            client.told().await;
        };
        same(name, handler, script, &[sees, "told: the body is dropped"]).await;
    }
}

/// hyper closes the connection for it, with all that is under way. Here it is the fault of one stream.
#[tokio::test]
async fn a_request_for_a_tunnel_with_a_body_is_the_end_of_its_stream_only() {
    let handler = |_: Request, cue: Cue| async move {
        cue.tell("begun");
        cue.come().await;
        Answer::Ok(full("late"))
    };
    let script = async |client: &mut Client, is_hyper: bool| {
        client.get(1).await;
        client.told().await;
        connect(client, 3, false, &[("content-length", "5")]).await;
        match is_hyper {
            true => client.closed().await,
            false => {
                client.over(3).await;
                client.cue();
                client.over(1).await;
            }
        }
    };
    let on_hyper = played(Engine::Hyper, handler, async |client: &mut Client| {
        script(client, true).await
    });
    assert_eq!(on_hyper.await.lines(), ["0: closed", "told: begun"]);
    for engine in [Engine::Ours, Engine::OursLater] {
        let ours = played(engine, handler, async |client: &mut Client| {
            script(client, false).await
        });
        let sees = [
            r#"1: 200 [content-length: 4; date: now], "late" END"#,
            "3: RST_STREAM PROTOCOL_ERROR",
            "told: begun",
        ];
        assert_eq!(ours.await.lines(), sees, "{engine:?}");
    }
}

#[tokio::test]
async fn a_malformed_request_for_a_tunnel_is_the_end_of_its_stream_only() {
    for (name, fields) in [
        (
            "a path",
            &[(":method", "CONNECT"), (":authority", "test:80"), (":path", "/")][..],
        ),
        (
            "a scheme",
            &[
                (":method", "CONNECT"),
                (":authority", "test:80"),
                (":scheme", "http"),
            ],
        ),
        (
            "a protocol, which nobody has offered",
            &[
                (":method", "CONNECT"),
                (":scheme", "http"),
                (":path", "/"),
                (":authority", "test:80"),
                (":protocol", "websocket"),
            ],
        ),
    ] {
        let script = async |client: &mut Client| {
            client.fields(1, false, fields).await;
            client.over(1).await;
            connect(client, 3, true, &[]).await;
            client.over(3).await;
        };
        let sees = [
            "1: RST_STREAM PROTOCOL_ERROR",
            r#"3: 200 [date: now], "" END"#,
            "told: the end",
        ];
        same(name, tunnel(echo), script, &sees).await;
    }
}

#[tokio::test]
async fn a_tunnel_to_nobody_is_the_handlers_to_judge() {
    let script = async |client: &mut Client| {
        client.fields(1, true, &[(":method", "CONNECT")]).await;
        client.over(1).await;
    };
    same("nobody", tunnel(echo), script, &[OVER, "told: the end"]).await;
}

#[tokio::test]
async fn a_request_for_anything_else_is_offered_no_tunnel() {
    let script = async |client: &mut Client| {
        client.get(1).await;
        client.told().await;
        client.over(1).await;
    };
    let sees = ["1: 200 [date: now] END", "told: no tunnel"];
    same("GET", tunnel(echo), script, &sees).await;
}

#[tokio::test]
async fn a_request_for_a_tunnel_may_be_given_up_before_it_is_answered() {
    async fn late(mut request: Request, cue: Cue) -> Answer {
        let upgrade = hyper::upgrade::on(&mut request);
        cue.tell("begun");
        tokio::spawn(async move {
            if upgrade.await.is_err() {
                cue.tell("no tunnel");
            }
        });
        std::future::pending().await
    }
    let script = async |client: &mut Client| {
        connect(client, 1, false, &[]).await;
        client.told().await;
        client.reset(1, Reason::CANCEL).await;
        client.told().await;
        connect(client, 3, false, &[]).await;
        client.told().await;
    };
    let sees = ["told: begun", "told: no tunnel", "told: begun"];
    same("given up", late, script, &sees).await;
}

#[tokio::test]
async fn a_tunnel_that_is_given_up_later_is_over_then() {
    async fn keeps(mut request: Request, cue: Cue) -> Answer {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            cue.come().await;
            drop(upgrade);
        });
        Ok(full(""))
    }
    let script = async |client: &mut Client| {
        connect(client, 1, false, &[]).await;
        client.until("an answer", |seen| seen.is_answered(1)).await;
        client.data(1, b"ping", false).await;
        client.settle().await;
        assert!(!client.record.is_over(1));
        client.cue();
        client.until("a reset", |seen| seen.is_reset(1)).await;
    };
    same("kept", keeps, script, &[DROPPED]).await;
}

#[tokio::test]
async fn what_is_sent_before_the_answer_is_read_behind_it() {
    let script = async |client: &mut Client| {
        connect(client, 1, false, &[]).await;
        client.data(1, b"ping", false).await;
        client.data(1, b"pong", true).await;
        client.over(1).await;
    };
    let sees = [r#"1: 200 [date: now], "pingpong", "" END"#, "told: the end"];
    same("early", tunnel(echo), script, &sees).await;
}
