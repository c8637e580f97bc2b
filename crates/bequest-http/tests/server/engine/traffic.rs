//! What goes through tunnels: early, late, byte by byte, by halves, and from many at once.

use h2::Reason;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::common::{RawHttp2, full, http2_bytes};
use super::blocks::block;
use super::body::bytes;
use super::client::Client;
use super::requests::Request;
use super::stage::{Answer, Cue, Engine, played, same};
use super::tunnels::{Tunnel, connect, echo, tunnel};

/// Uses up all that its task may do before it lets others go first.
async fn use_up() {
    while tokio::task::coop::has_budget_remaining() {
        tokio::task::coop::consume_budget().await;
    }
}

#[tokio::test]
async fn a_tunnel_is_opened_by_a_handler_that_has_done_much() {
    let handler = |mut request: Request, cue: Cue| async move {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            match upgrade.await {
                Ok(upgraded) => echo(TokioIo::new(upgraded), cue).await,
                Err(_) => cue.tell("no tunnel"),
            }
        });
        use_up().await;
        Answer::Ok(full(""))
    };
    let script = async |client: &mut Client| {
        connect(client, 1, false, &[]).await;
        client.data(1, b"ping", true).await;
        client.over(1).await;
    };
    let sees = [r#"1: 200 [date: now], "ping", "" END"#, "told: the end"];
    same("much", handler, script, &sees).await;
}

#[tokio::test]
async fn many_tunnels_that_are_asked_for_at_once_are_opened() {
    let script = async |client: &mut Client| {
        let ids = || (0..150).map(|nth| 2 * nth + 1);
        let fields = [(":method", "CONNECT"), (":authority", "test:80")];
        let whole: Vec<u8> = ids()
            .flat_map(|id| {
                let head = http2_bytes::frame(RawHttp2::HEADERS, RawHttp2::END_HEADERS, id, &block(&fields));
                [
                    head,
                    http2_bytes::frame(RawHttp2::DATA, RawHttp2::END_STREAM, id, b"ping"),
                ]
                .concat()
            })
            .collect();
        client.send(&whole).await;
        for id in ids() {
            client.over(id).await;
        }
    };
    let sees: Vec<_> = (0..150)
        .map(|nth| format!(r#"{}: 200 [date: now], "ping", "" END"#, 2 * nth + 1))
        .chain(std::iter::repeat_n("told: the end".to_owned(), 150))
        .collect();
    let sees: Vec<_> = sees.iter().map(String::as_str).collect();
    same("many", tunnel(echo), script, &sees).await;
}

/// What the client sends before it is answered is for whoever gets the tunnel, however late that asks for it.
#[tokio::test]
async fn a_tunnel_keeps_what_comes_before_it_is_opened() {
    let handler = |mut request: Request, cue: Cue| async move {
        cue.come().await;
        let upgrade = hyper::upgrade::on(&mut request);
        assert!(hyper::upgrade::on(&mut request).await.is_err(), "there is one");
        tokio::spawn(async move {
            cue.come().await;
            let upgraded = upgrade.await.expect("a tunnel");
            echo(TokioIo::new(upgraded), cue).await;
        });
        Answer::Ok(full(""))
    };
    for end in [false, true] {
        let script = async |client: &mut Client| {
            connect(client, 1, false, &[]).await;
            client.data(1, &bytes(50_000), end).await;
            client.settle().await;
            client.cue();
            client.until("an answer", |seen| seen.is_answered(1)).await;
            client.cue();
            client.has(1, 50_000).await;
            if !end {
                client.data(1, b"", true).await;
            }
            client.over(1).await;
        };
        let sees = [r#"1: 200 [date: now], 50000 bytes, "" END"#, "told: the end"];
        same("early", handler, script, &sees).await;
    }
}

#[tokio::test]
async fn a_tunnel_whose_client_opens_it_byte_by_byte_loses_none() {
    let script = async |client: &mut Client| {
        client.settings(&[(4, 1)]).await;
        client.settle().await;
        connect(client, 1, false, &[]).await;
        client.data(1, &bytes(20), true).await;
        for nth in 1..20 {
            client.has(1, nth).await;
            client.open(1, 1).await;
        }
        client.over(1).await;
    };
    let sees = [r#"1: 200 [date: now], 20 bytes, "" END"#, "told: the end"];
    same("byte by byte", tunnel(echo), script, &sees).await;
}

/// Both halves wait in tasks of their own, one for what is sent and one for room.
#[tokio::test]
async fn both_halves_of_a_tunnel_are_told_of_its_reset() {
    async fn halves(tunnel: Tunnel, cue: Cue) {
        let (mut read, mut write) = tokio::io::split(tunnel);
        let reads = {
            let cue = cue.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 1024];
                while let Ok(1..) = read.read(&mut buffer).await {
                    cue.tell("read");
                }
            })
        };
        let writes = tokio::spawn(async move { while write.write_all(&bytes(100_000)).await.is_ok() {} });
        reads.await.expect("no panic");
        writes.await.expect("no panic");
        cue.tell("both");
    }
    let script = async |client: &mut Client| {
        connect(client, 1, false, &[]).await;
        client.has(1, 65_535).await;
        client.data(1, b"ping", false).await;
        assert_eq!(client.told().await, "read");
        client.settle().await;
        client.reset(1, Reason::CANCEL).await;
        assert_eq!(client.told().await, "both");
        // What was claimed is given back: another tunnel has all of the window.
        client.open(0, 65_535).await;
        connect(client, 3, false, &[]).await;
        client.has(3, 65_535).await;
        client.reset(3, Reason::CANCEL).await;
        assert_eq!(client.told().await, "both");
    };
    let sees = [
        "1: 200 [date: now], 65535 bytes",
        "3: 200 [date: now], 65535 bytes",
        "told: read",
        "told: both",
        "told: both",
    ];
    same("halves", tunnel(halves), script, &sees).await;
}

/// A tunnel takes no more of its writer's than the windows and one piece.
#[tokio::test]
async fn a_tunnel_that_is_not_read_keeps_its_writer_waiting() {
    async fn writes(mut tunnel: Tunnel, cue: Cue) {
        tokio::select! {
            written = tunnel.write_all(&[b'x'; 1_000_000]) => panic!("more than fits anywhere: {written:?}"),
            // Dropped while it waits.
            () = cue.come() => {}
        }
    }
    let script = async |client: &mut Client| {
        let most = 0x7fff_ffff;
        client.settings(&[(4, most)]).await;
        connect(client, 1, false, &[]).await;
        client.has(1, 65_535).await;
        client.settle().await;
        assert_eq!(client.record.data(1), 65_535);
        client.cue();
        client.open(0, most - 65_535).await;
        client.over(1).await;
        assert!(client.record.data(1) < 600_000);
    };
    for engine in [Engine::Ours, Engine::OursLater] {
        played(engine, tunnel(writes), script).await;
    }
}
