//! Many streams on one connection: each has its answer, and none keeps the window from the others.

use h2::Reason;

use super::super::common::full;
use super::body::{Steps, bytes, data, pause, silence};
use super::client::Client;
use super::record::Record;
use super::requests::{Request, reader};
use super::stage::{Answer, Cue, always, same};

/// How much has come on all these streams together.
fn total(seen: &Record, streams: impl IntoIterator<Item = u32>) -> usize {
    streams.into_iter().map(|stream| seen.data(stream)).sum()
}

#[tokio::test]
async fn a_long_conversation_is_answered_to_its_end() {
    async fn now_or_later(request: Request, _: Cue) -> Answer {
        let path = request.uri().path().to_owned();
        match path.as_str() {
            "/later" => tokio::task::yield_now().await,
            "/body" => return Ok(Steps::new([data("a"), pause(), data("b")]).answer()),
            _ => {}
        }
        Ok(full(path))
    }
    let paths = ["/now", "/later", "/body", "/now", "/now"];
    let script = async |client: &mut Client| {
        for nth in 0..300 {
            let stream = 2 * nth + 1;
            let path = paths[nth as usize % paths.len()];
            client.begin(stream, true, "GET", path, &[]).await;
            // One after the other, and then some at once.
            if nth < 100 || nth % 10 == 0 {
                client.over(stream).await;
            }
        }
        client
            .until("all of them", |seen| {
                (0..300).all(|nth| seen.is_over(2 * nth + 1))
            })
            .await;
    };
    let sees: Vec<String> = (0..300)
        .map(|nth| {
            let path = paths[nth % paths.len()];
            let length = path.len();
            let answer = match path {
                "/body" => r#"200 [date: now], "ab", "" END"#.to_owned(),
                _ => format!(r#"200 [content-length: {length}; date: now], "{path}" END"#),
            };
            format!("{}: {answer}", 2 * nth + 1)
        })
        .collect();
    let sees: Vec<&str> = sees.iter().map(String::as_str).collect();
    same("300 requests", now_or_later, script, &sees).await;
}

#[tokio::test]
async fn a_crowd_of_bodies_comes_through_a_narrow_window() {
    const STREAMS: u32 = 50;
    let streams = || (0..STREAMS).map(|nth| 2 * nth + 1);
    let script = async |client: &mut Client| {
        for stream in streams() {
            client.get(stream).await;
        }
        let mut may = 65_535;
        let all = STREAMS as usize * 5_000;
        while may < all {
            client
                .until("all that may come", |seen| total(seen, streams()) == may)
                .await;
            client.open(0, 1_000).await;
            may += 1_000;
        }
        for stream in streams() {
            client.over(stream).await;
        }
    };
    let handler = always(|_| {
        let parts = bytes(5_000);
        Steps::new([data(parts.slice(..3_000)), pause(), data(parts.slice(3_000..))]).answer()
    });
    let sees: Vec<String> = streams()
        .map(|stream| format!(r#"{stream}: 200 [date: now], 5000 bytes, "" END"#))
        .collect();
    let sees: Vec<&str> = sees.iter().map(String::as_str).collect();
    same("50 bodies", handler, script, &sees).await;
}

#[tokio::test]
async fn what_a_stream_was_waiting_for_goes_to_the_others_with_its_reset() {
    let script = async |client: &mut Client| {
        client.settings(&[(4, 1_000_000)]).await;
        for stream in [1, 3, 5] {
            client.get(stream).await;
        }
        client
            .until("all that may come", |seen| total(seen, [1, 3, 5]) == 65_535)
            .await;
        let before = [1, 3, 5].map(|stream| client.record.data(stream));
        client.reset(1, Reason::CANCEL).await;
        client.reset(3, Reason::CANCEL).await;
        client.settle().await;
        client
            .open(0, u32::try_from(100_000 - before[2]).expect("a window"))
            .await;
        client.over(5).await;
        client.get(7).await;
        client.until("a head", |seen| seen.is_answered(7)).await;
        client.open(0, 100_000).await;
        client.over(7).await;
        // How the window was shared out is nobody's promise.
        client.record.forget(1);
        client.record.forget(3);
    };
    let handler = always(|_| full(bytes(100_000)));
    let answer = "200 [content-length: 100000; date: now], 100000 bytes END";
    let sees = [5, 7].map(|stream| format!("{stream}: {answer}"));
    same(
        "three bodies",
        handler,
        script,
        &sees.each_ref().map(String::as_str),
    )
    .await;
}

#[tokio::test]
async fn requests_that_are_read_and_answers_that_are_written_do_not_wait_for_each_other() {
    async fn echo(request: Request, _: Cue) -> Answer {
        Ok(http::Response::new(request.into_body()))
    }
    let script = async |client: &mut Client| {
        for stream in [1, 3] {
            client.post(stream).await;
        }
        let whole = bytes(200_000);
        for part in 0..20 {
            let (from, to) = (part * 10_000, (part + 1) * 10_000);
            for stream in [1, 3] {
                client.data(stream, &whole[from..to], false).await;
            }
            client.open(0, 20_000).await;
            for stream in [1, 3] {
                client.open(stream, 10_000).await;
                client.has(stream, to).await;
            }
        }
        client.fields(1, true, &[("x-end", "well")]).await;
        client.data(3, b"", true).await;
        client.over(1).await;
        client.over(3).await;
    };
    let sees = [
        "1: 200 [date: now], 200000 bytes, trailers [x-end: well] END",
        r#"3: 200 [date: now], 200000 bytes, "" END"#,
    ];
    same("echoes", echo, script, &sees).await;
}

#[tokio::test]
async fn the_end_of_a_connection_is_the_end_of_all_that_is_under_way() {
    async fn reads_or_says(request: Request, cue: Cue) -> Answer {
        match request.method().as_str() {
            "POST" => reader(request, cue).await,
            _ => Ok(Steps::new([data("hello"), silence()]).tells(cue).answer()),
        }
    }
    let script = async |client: &mut Client| {
        client.get(1).await;
        client.has(1, 5).await;
        client.post(3).await;
        client.told().await;
        client.data(3, &bytes(5), false).await;
        client.settle().await;
        // A stream of the server's.
        client.get(2).await;
        client.closed().await;
        client.told().await;
        client.told().await;
        client.record.told.sort();
    };
    let sees = [
        r#"0: GOAWAY 3 PROTOCOL_ERROR "", closed"#,
        r#"1: 200 [date: now], "hello""#,
        "told: 5 bytes, failed",
        "told: begun",
        "told: the body is dropped",
    ];
    same("an error", reads_or_says, script, &sees).await;
}
