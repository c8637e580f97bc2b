//! Tunnels: what goes through them, and how they end.

use std::future::{Future, Ready};

use h2::Reason;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::common::full;
use super::body::bytes;
use super::client::Client;
use super::requests::Request;
use super::stage::{Answer, Cue, Handle, differs, same};

pub(super) type Tunnel = TokioIo<hyper::upgrade::Upgraded>;

/// Answers with a tunnel, and hands that on.
pub(super) fn tunnel<T>(
    then: impl Fn(Tunnel, Cue) -> T + Clone + Send + Sync + 'static,
) -> impl Handle<Ready<Answer>>
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
pub(super) async fn echo(mut tunnel: Tunnel, cue: Cue) {
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

pub(super) async fn connect(client: &mut Client, stream: u32, end: bool, more: &[(&str, &str)]) {
    let ordinary = [(":method", "CONNECT"), (":authority", "test:80")];
    client.fields(stream, end, &[&ordinary, more].concat()).await;
}

const OPEN: &str = "1: 200 [date: now]";
pub(super) const OVER: &str = r#"1: 200 [date: now], "" END"#;
pub(super) const DROPPED: &str = r#"1: 200 [date: now], "" END, RST_STREAM NO_ERROR"#;

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
        client.hold();
        connect(client, 1, false, &[("content-length", "0")]).await;
        client.data(1, b"ping", true).await;
        client.let_go().await;
        client.told().await;
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
        client.until("a reset", |seen| seen.is_reset(1)).await;
    };
    let sees = [
        r#"1: 200 [date: now], 200000 bytes, "" END, RST_STREAM NO_ERROR"#,
        "told: true",
    ];
    same("much", tunnel(swallows_and_says), script, &sees).await;
}

#[tokio::test]
async fn a_tunnel_outlasts_the_goodbye() {
    let script = async |client: &mut Client| {
        connect(client, 1, false, &[]).await;
        client.until("an answer", |seen| seen.is_answered(1)).await;
        client.shut_down();
        client
            .until("the last goodbye", |seen| seen.goodbyes() == 2)
            .await;
        client.data(1, b"still", false).await;
        client.has(1, 5).await;
        client.data(1, b"", true).await;
        client.closed().await;
        client.told().await;
    };
    let sees = [
        r#"0: GOAWAY 2147483647 NO_ERROR "", GOAWAY 1 NO_ERROR "", closed"#,
        r#"1: 200 [date: now], "still", "" END"#,
        "told: the end",
    ];
    same("a goodbye", tunnel(echo), script, &sees).await;
}

#[tokio::test]
async fn a_tunnel_that_nobody_reads_closes_its_window() {
    async fn reads_later(mut tunnel: Tunnel, cue: Cue) {
        cue.come().await;
        let mut all = Vec::new();
        let read = tunnel.read_to_end(&mut all).await.expect("an open tunnel");
        cue.tell(format!("{read} bytes: {}", all == bytes(read)));
    }
    let script = async |client: &mut Client| {
        connect(client, 1, false, &[]).await;
        client.until("an answer", |seen| seen.is_answered(1)).await;
        let whole = bytes((1 << 20) + 5);
        client.data(1, &whole[..1 << 20], false).await;
        client.settle().await;
        assert_eq!(client.window(1), 0);
        client.cue();
        client.data(1, &whole[1 << 20..], true).await;
        client.over(1).await;
    };
    let sees = [OVER, "told: 1048581 bytes: true"];
    same("unread", tunnel(reads_later), script, &sees).await;
}

#[tokio::test]
async fn a_tunnel_that_waits_for_a_window_fails_with_its_reset() {
    async fn until_it_fails(mut tunnel: Tunnel, cue: Cue) {
        let error = loop {
            if let Err(error) = tunnel.write_all(&[0; 10_000]).await {
                break error;
            }
        };
        cue.tell(format!("write {:?}", error.kind()));
        cue.tell(format!(
            "read {:?}",
            tunnel.read(&mut [0; 10]).await.map_err(|error| error.kind())
        ));
    }
    let (end, reset) = ("told: read Ok(0)", "told: read Err(ConnectionReset)");
    for (reason, of_hyper, of_ours) in [
        (Reason::CANCEL, end, reset),
        (Reason::NO_ERROR, end, end),
        (Reason::INTERNAL_ERROR, "told: read Err(Other)", reset),
    ] {
        let script = async |client: &mut Client| {
            connect(client, 1, false, &[]).await;
            client.has(1, 65_535).await;
            client.settle().await;
            client.reset(1, reason).await;
            client.told().await;
            client.told().await;
        };
        let sent = "1: 200 [date: now], 65535 bytes";
        differs(
            "a reset is told as that",
            tunnel(until_it_fails),
            script,
            &[sent, "told: write Other", of_hyper],
            &[sent, "told: write ConnectionReset", of_ours],
        )
        .await;
    }
}

#[tokio::test]
async fn a_tunnel_may_end_with_trailers_which_nobody_reads() {
    let script = async |client: &mut Client| {
        connect(client, 1, false, &[]).await;
        client.data(1, b"ping", false).await;
        client.has(1, 4).await;
        client.fields(1, true, &[("x-end", "well")]).await;
        client.over(1).await;
    };
    let sees = [r#"1: 200 [date: now], "ping", "" END"#, "told: the end"];
    same("trailers", tunnel(echo), script, &sees).await;
}

#[tokio::test]
async fn a_write_that_is_given_up_keeps_no_window_from_others() {
    async fn writes_and_reads(tunnel: Tunnel, cue: Cue) {
        let (mut reads, mut writes) = tokio::io::split(tunnel);
        cue.come().await;
        tokio::select! {
            biased;
            written = writes.write(b"x") => cue.tell(format!("written {written:?}")),
            () = tokio::task::yield_now() => cue.tell("given up"),
        }
        let mut rest = Vec::new();
        let _ = reads.read_to_end(&mut rest).await;
    }
    let handler = move |request: Request, cue: Cue| async move {
        match request.method().as_str() {
            "CONNECT" => tunnel(writes_and_reads)(request, cue).await,
            _ => {
                let size: usize = request.uri().path()[1..].parse().expect("a size");
                Ok(full(bytes(size)))
            }
        }
    };
    let script = async |client: &mut Client| {
        client.settings(&[(4, 1_000_000)]).await;
        connect(client, 1, false, &[]).await;
        client.until("an answer", |seen| seen.is_answered(1)).await;
        client.begin(3, true, "GET", "/65535", &[]).await;
        client.over(3).await;
        client.cue();
        client.told().await;
        client.begin(5, true, "GET", "/10000", &[]).await;
        client.until("an answer", |seen| seen.is_answered(5)).await;
        client.open(0, 10_000).await;
        client
            .until("all that may come", |seen| seen.data(1) + seen.data(5) == 10_000)
            .await;
        client.open(0, 10_000).await;
        client.over(5).await;
    };
    same(
        "given up",
        handler,
        script,
        &[
            r#"1: 200 [date: now], "x""#,
            r#"3: 200 [content-length: 65535; date: now], 65535 bytes END"#,
            r#"5: 200 [content-length: 10000; date: now], 10000 bytes END"#,
            "told: written Ok(1)",
        ],
    )
    .await;
}
