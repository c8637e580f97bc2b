//! Tunnels: `CONNECT`, what it is answered with, and what becomes of the stream.

use std::future::{Future, Ready};

use h2::Reason;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::common::{TestBody, full};
use super::body::{Steps, bytes, data};
use super::client::Client;
use super::stage::{Answer, Cue, Engine, Handle, differs, played, same};

type Request = http::Request<TestBody>;
type Tunnel = TokioIo<hyper::upgrade::Upgraded>;

/// Answers with a tunnel, and hands that on.
fn tunnel<T>(then: impl Fn(Tunnel, Cue) -> T + Clone + Send + Sync + 'static) -> impl Handle<Ready<Answer>>
where
    T: Future<Output = ()> + Send + 'static,
{
    move |mut request: Request, cue: Cue| {
        let upgrade = hyper::upgrade::on(&mut request);
        let then = then.clone();
        tokio::spawn(async move {
            match upgrade.await {
                Ok(upgraded) => then(TokioIo::new(upgraded), cue).await,
                Err(_) => cue.tell("no tunnel"),
            }
        });
        std::future::ready(Ok(full("")))
    }
}

/// Sends back what comes.
async fn echo(mut tunnel: Tunnel, cue: Cue) {
    let mut buffer = [0; 1024];
    loop {
        match tunnel.read(&mut buffer).await {
            Ok(0) => break cue.tell("the end"),
            Ok(size) => tunnel.write_all(&buffer[..size]).await.expect("an open tunnel"),
            Err(error) => break cue.tell(error.kind().to_string()),
        }
    }
    let _ = tunnel.shutdown().await;
}

async fn connect(client: &mut Client, stream: u32, end: bool, more: &[(&str, &str)]) {
    let ordinary = [(":method", "CONNECT"), (":authority", "test:80")];
    client.fields(stream, end, &[&ordinary, more].concat()).await;
}

const OPEN: &str = "1: 200 [date: now]";
const OVER: &str = r#"1: 200 [date: now], "" END"#;
const DROPPED: &str = r#"1: 200 [date: now], "" END, RST_STREAM NO_ERROR"#;

#[tokio::test]
async fn a_tunnel_carries_both_ways_until_its_client_ends_it() {
    let script = async |client: &mut Client| {
        connect(client, 1, false, &[]).await;
        client.until("an answer", |seen| seen.is_answered(1)).await;
        client.data(1, b"ping", false).await;
        client.has(1, 4).await;
        client.data(1, b"", false).await;
        client.data(1, b"pong", true).await;
        client.over(1).await;
    };
    let sees = [r#"1: 200 [date: now], "pingpong", "" END"#, "told: the end"];
    same("an echo", tunnel(echo), script, &sees).await;
    let script = async |client: &mut Client| {
        connect(client, 1, true, &[]).await;
        client.over(1).await;
    };
    same("an end at once", tunnel(echo), script, &[OVER, "told: the end"]).await;
    let script = async |client: &mut Client| {
        connect(client, 1, false, &[("content-length", "0")]).await;
        client.data(1, b"ping", true).await;
        client.over(1).await;
    };
    // The engine holds it to its length, and a tunnel has none.
    let sees = ["1: RST_STREAM PROTOCOL_ERROR", "told: no tunnel"];
    same("a request of no length", tunnel(echo), script, &sees).await;
}

#[tokio::test]
async fn a_tunnel_that_its_server_ends_is_still_read() {
    async fn server_first(mut tunnel: Tunnel, cue: Cue) {
        tunnel.write_all(b"bye").await.expect("an open tunnel");
        tunnel.shutdown().await.expect("an open tunnel");
        let mut rest = Vec::new();
        let read = tunnel.read_to_end(&mut rest).await;
        cue.tell(format!("{read:?}: {}", rest == bytes(100)));
    }
    let script = async |client: &mut Client| {
        connect(client, 1, false, &[]).await;
        client.over(1).await;
        client.data(1, &bytes(100), true).await;
        client.told().await;
    };
    let sees = [r#"1: 200 [date: now], "bye", "" END"#, "told: Ok(100): true"];
    same("half an end", tunnel(server_first), script, &sees).await;
}

#[tokio::test]
async fn a_tunnel_that_its_client_resets_fails() {
    async fn until_it_fails(mut tunnel: Tunnel, cue: Cue) {
        let mut buffer = [0; 1024];
        tunnel.read_exact(&mut buffer[..4]).await.expect("an open tunnel");
        let read = tunnel.read(&mut buffer).await;
        cue.tell(format!("read {:?}", read.map_err(|error| error.kind())));
        let error = loop {
            match tunnel.write_all(b"more").await {
                Ok(()) => tokio::task::yield_now().await,
                Err(error) => break error,
            }
        };
        cue.tell(format!("write {:?}", error.kind()));
    }
    // A reset of a tunnel is that of a connection (RFC 9113, 8.5): what a client has given up is not to pass for what it has
    // sent to its end.
    for (reason, of_hyper, of_ours) in [
        (Reason::NO_ERROR, "told: read Ok(0)", "told: read Ok(0)"),
        (
            Reason::CANCEL,
            "told: read Ok(0)",
            "told: read Err(ConnectionReset)",
        ),
        (
            Reason::STREAM_CLOSED,
            "told: read Err(BrokenPipe)",
            "told: read Err(ConnectionReset)",
        ),
        (
            Reason::INTERNAL_ERROR,
            "told: read Err(Other)",
            "told: read Err(ConnectionReset)",
        ),
    ] {
        let script = async |client: &mut Client| {
            connect(client, 1, false, &[]).await;
            client.until("an answer", |seen| seen.is_answered(1)).await;
            client.data(1, b"ping", false).await;
            client.settle().await;
            client.reset(1, reason).await;
            client.told().await;
            client.told().await;
        };
        differs(
            "a reset is told as that",
            tunnel(until_it_fails),
            script,
            &[OPEN, of_hyper, "told: write Other"],
            &[OPEN, of_ours, "told: write ConnectionReset"],
        )
        .await;
    }
}

#[tokio::test]
async fn a_tunnel_that_its_server_drops_is_over_both_ways() {
    async fn drops(tunnel: Tunnel, cue: Cue) {
        cue.come().await;
        drop(tunnel);
    }
    for (name, sent, end, sees) in [
        ("untouched", 0, false, DROPPED),
        ("unread", 5, false, DROPPED),
        ("ended by its client", 5, true, OVER),
    ] {
        let script = async |client: &mut Client| {
            connect(client, 1, false, &[]).await;
            client.until("an answer", |seen| seen.is_answered(1)).await;
            if sent > 0 {
                client.data(1, &bytes(sent), end).await;
                client.settle().await;
            }
            client.cue();
            client.over(1).await;
        };
        same(name, tunnel(drops), script, &[sees]).await;
    }
}

#[tokio::test]
async fn what_was_written_before_the_drop_is_sent() {
    async fn writes(mut tunnel: Tunnel, _cue: Cue) {
        tunnel.write_all(&bytes(100_000)).await.expect("an open tunnel");
    }
    let script = async |client: &mut Client| {
        connect(client, 1, false, &[]).await;
        client.has(1, 65_535).await;
        client.settle().await;
        client.open(0, 100_000).await;
        client.open(1, 100_000).await;
        client.over(1).await;
    };
    let sees = r#"1: 200 [date: now], 100000 bytes, "" END, RST_STREAM NO_ERROR"#;
    same("written", tunnel(writes), script, &[sees]).await;
}

#[tokio::test]
async fn much_goes_through_a_tunnel_both_ways() {
    async fn swallows_and_says(mut tunnel: Tunnel, cue: Cue) {
        let mut all = vec![0; 3_000_000];
        tunnel.read_exact(&mut all).await.expect("an open tunnel");
        cue.tell(format!("{}", all == bytes(3_000_000)));
        for part in bytes(200_000).chunks(7_777) {
            tunnel.write_all(part).await.expect("an open tunnel");
        }
        tunnel.shutdown().await.expect("an open tunnel");
    }
    let script = async |client: &mut Client| {
        connect(client, 1, false, &[]).await;
        client.data(1, &bytes(3_000_000), false).await;
        for nth in 0..20 {
            client.has(1, (65_535 + nth * 10_000).min(200_000)).await;
            client.open(0, 10_000).await;
            client.open(1, 10_000).await;
        }
        client.over(1).await;
    };
    let sees = [
        r#"1: 200 [date: now], 200000 bytes, "" END, RST_STREAM NO_ERROR"#,
        "told: true",
    ];
    same("much", tunnel(swallows_and_says), script, &sees).await;
}

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
