//! Windows: answers that are larger than those of their client, and those of bodies that nobody reads.

use h2::Reason;
use http_body_util::BodyExt;

use super::super::common::{RawHttp2, full};
use super::body::{Step, Steps, bytes, data, silence, wait};
use super::client::Client;
use super::requests::{READ, Request, reader};
use super::stage::{Answer, Cue, always, deaf, same};

/// Reads a body of so many bytes, letting so many more through whenever all that may come has come.
async fn sip(client: &mut Client, stream: u32, size: usize, step: u32) {
    let mut may = 65_535;
    while may < size {
        client.has(stream, may).await;
        client.open(0, step).await;
        client.open(stream, step).await;
        may += step as usize;
    }
    client.over(stream).await;
}

#[tokio::test]
async fn a_body_larger_than_the_windows_comes_as_they_are_opened() {
    for (size, cut, step) in [
        (65_536, 65_536, 1),
        (200_000, 200_000, 10_000),
        (200_000, 7_777, 12_345),
        (200_000, 100_000, 1_000),
    ] {
        let handler = always(move |_| {
            let whole = bytes(size);
            let parts = whole.chunks(cut).map(bytes::Bytes::copy_from_slice).map(data);
            Steps::new(parts.collect::<Vec<_>>())
                .of_size(size as u64)
                .answer()
        });
        let script = async |client: &mut Client| {
            client.get(1).await;
            sip(client, 1, size, step).await;
        };
        let sees = format!("1: 200 [content-length: {size}; date: now], {size} bytes, \"\" END");
        same("a large body", handler, script, &[&sees]).await;
    }
}

#[tokio::test]
async fn a_body_as_large_as_the_window_needs_no_more_for_its_end() {
    let script = async |client: &mut Client| {
        client.get(1).await;
        client.over(1).await;
    };
    let handler = always(|_| Steps::new([data(bytes(65_535))]).answer());
    same(
        "an end",
        handler,
        script,
        &["1: 200 [date: now], 65535 bytes, \"\" END"],
    )
    .await;
    let handler = always(|_| Steps::new([data(bytes(65_535)), Step::Trailers("x-end", "well")]).answer());
    same(
        "trailers",
        handler,
        script,
        &["1: 200 [date: now], 65535 bytes, trailers [x-end: well] END"],
    )
    .await;
}

#[tokio::test]
async fn a_window_is_opened_and_closed_by_settings() {
    let script = async |client: &mut Client| {
        client.settings(&[(4, 0)]).await;
        client.get(1).await;
        client.until("a head", |seen| seen.is_answered(1)).await;
        client.settle().await;
        assert_eq!(client.record.data(1), 0);
        client.settings(&[(4, 5)]).await;
        client.has(1, 5).await;
        // Below nothing: what the next says opens it only so far.
        client.settings(&[(4, 2)]).await;
        client.settle().await;
        client.settings(&[(4, 6)]).await;
        client.has(1, 6).await;
        client.settle().await;
        assert_eq!(client.record.data(1), 6);
        client.open(1, 4).await;
        client.over(1).await;
    };
    let handler = always(|_| full(bytes(10)));
    same(
        "settings",
        handler,
        script,
        &["1: 200 [content-length: 10; date: now], 10 bytes END"],
    )
    .await;
}

#[tokio::test]
async fn trailers_wait_for_the_data_before_them() {
    let script = async |client: &mut Client| {
        client.settings(&[(4, 3)]).await;
        client.get(1).await;
        client.has(1, 3).await;
        client.settle().await;
        assert!(!client.record.is_over(1));
        client.open(1, 100).await;
        client.over(1).await;
    };
    let handler = always(|_| Steps::new([data("hello"), Step::Trailers("x-end", "well")]).answer());
    same(
        "trailers",
        handler,
        script,
        &[r#"1: 200 [date: now], "hello", trailers [x-end: well] END"#],
    )
    .await;
}

#[tokio::test]
async fn bodies_that_say_nothing_keep_no_window_from_those_that_do() {
    let handler = |request: http::Request<_>, _| {
        let answer = match request.uri().path() {
            "/never" => Steps::new([silence()]).answer(),
            _ => Steps::new([data(bytes(100_000))]).answer(),
        };
        std::future::ready(Answer::Ok(answer))
    };
    let script = async |client: &mut Client| {
        for stream in [1, 5, 9] {
            client.begin(stream, true, "GET", "/never", &[]).await;
            client.begin(stream + 2, true, "GET", "/some", &[]).await;
        }
        // A client that opens the window only once it is used up, to the last byte.
        for window in 1.. {
            let come = |seen: &super::record::Record| {
                [3, 7, 11].map(|stream| seen.data(stream)).iter().sum::<usize>()
            };
            client
                .until("data", |seen| come(seen) == (65_535 * window).min(300_000))
                .await;
            if come(&client.record) == 300_000 {
                break;
            }
            client.open(0, 65_535).await;
            for stream in [3, 7, 11] {
                client.open(stream, 65_535).await;
            }
        }
        for stream in [3, 7, 11] {
            client.over(stream).await;
        }
    };
    let (silent, said) = ("200 [date: now]", "200 [date: now], 100000 bytes, \"\" END");
    let sees = [
        (1, silent),
        (3, said),
        (5, silent),
        (7, said),
        (9, silent),
        (11, said),
    ]
    .map(|(stream, sees)| format!("{stream}: {sees}"));
    same("two kinds", handler, script, &sees.each_ref().map(String::as_str)).await;
}

#[tokio::test]
async fn a_body_that_waits_for_a_window_is_dropped_with_its_stream() {
    for reason in [Reason::CANCEL, Reason::NO_ERROR] {
        let script = async |client: &mut Client| {
            client.get(1).await;
            client.has(1, 65_535).await;
            client.settle().await;
            client.reset(1, reason).await;
            client.told().await;
            client.open(0, 100_000).await;
        };
        let handler = |_, cue: Cue| {
            std::future::ready(Answer::Ok(
                Steps::new([data(bytes(100_000)), data("more")])
                    .tells(cue)
                    .answer(),
            ))
        };
        same(
            "reset",
            handler,
            script,
            &["1: 200 [date: now], 65535 bytes", "told: the body is dropped"],
        )
        .await;
        let handler = |_, cue: Cue| {
            std::future::ready(Answer::Ok(
                Steps::new([data(bytes(65_535)), wait(&cue), data("more")])
                    .tells(cue)
                    .answer(),
            ))
        };
        same(
            "reset while there is nothing",
            handler,
            script,
            &["1: 200 [date: now], 65535 bytes", "told: the body is dropped"],
        )
        .await;
    }
}

#[tokio::test]
async fn a_window_that_is_opened_too_far_is_an_error() {
    let handler = |_, cue: Cue| std::future::ready(Answer::Ok(Steps::new([silence()]).tells(cue).answer()));
    let script = async |client: &mut Client| {
        client.get(1).await;
        client.until("a head", |seen| seen.is_answered(1)).await;
        client.open(1, 0x7fff_ffff).await;
        client.over(1).await;
        client.told().await;
    };
    same(
        "of a stream",
        handler,
        script,
        &[
            "1: 200 [date: now], RST_STREAM FLOW_CONTROL_ERROR",
            "told: the body is dropped",
        ],
    )
    .await;
    let script = async |client: &mut Client| {
        client.get(1).await;
        client.until("a head", |seen| seen.is_answered(1)).await;
        client.open(0, 0x7fff_ffff).await;
        client.closed().await;
        client.told().await;
    };
    same(
        "of the connection",
        handler,
        script,
        &[
            "0: GOAWAY 1 FLOW_CONTROL_ERROR \"\", closed",
            "1: 200 [date: now]",
            "told: the body is dropped",
        ],
    )
    .await;
}

#[tokio::test]
async fn windows_of_bodies_that_nobody_reads_are_given_back_with_them() {
    async fn unread(request: Request, cue: Cue) -> Answer {
        cue.come().await;
        let is_begun = request.uri().path() == "/begun";
        let mut body = request.into_body();
        if is_begun {
            body.frame().await.expect("a frame").expect("no error");
        }
        drop(body);
        Ok(full("enough"))
    }
    let script = async |client: &mut Client| {
        for nth in 0..20 {
            let (stream, path) = (2 * nth + 1, if nth % 2 == 0 { "/" } else { "/begun" });
            client.begin(stream, false, "POST", path, &[]).await;
            client.data(stream, &bytes(100_000), true).await;
            client.settle().await;
            client.cue();
            client.over(stream).await;
        }
    };
    let sees: Vec<String> = (0..20)
        .map(|nth| {
            format!(
                r#"{}: 200 [content-length: 6; date: now], "enough" END"#,
                2 * nth + 1
            )
        })
        .collect();
    let sees: Vec<&str> = sees.iter().map(String::as_str).collect();
    same("unread", unread, script, &sees).await;
}

#[tokio::test]
async fn a_body_that_is_held_and_not_read_closes_its_window() {
    async fn held(request: Request, cue: Cue) -> Answer {
        cue.come().await;
        reader(request, cue).await
    }
    let script = async |client: &mut Client| {
        client.post(1).await;
        client.settle().await;
        client.data(1, &bytes(1 << 20), false).await;
        client.settle().await;
        assert_eq!(client.window(1), 0);
        client.cue();
        let whole = bytes((1 << 20) + 5);
        client.data(1, &whole[1 << 20..], true).await;
        client.over(1).await;
    };
    same(
        "held",
        held,
        script,
        &[READ, "told: begun", "told: 1048581 bytes"],
    )
    .await;
}

#[tokio::test]
async fn a_body_goes_through_wide_windows_in_one_piece() {
    let script = async |client: &mut Client| {
        client.settings(&[(4, 10_000_000)]).await;
        client.open(0, 10_000_000).await;
        client.get(1).await;
        client.over(1).await;
    };
    let handler = always(|_| full(bytes(5_000_000)));
    let sees = "1: 200 [content-length: 5000000; date: now], 5000000 bytes END";
    same("wide", handler, script, &[sees]).await;
}

#[tokio::test]
async fn a_client_that_says_more_than_it_may_ends_its_connection() {
    let script = async |client: &mut Client| {
        client.post(1).await;
        client.told().await;
        client.data(1, &bytes(1 << 20), false).await;
        client.frame(RawHttp2::DATA, 0, 1, b"more").await;
        client.closed().await;
    };
    let sees = [r#"0: GOAWAY 1 FLOW_CONTROL_ERROR "", closed"#, "told: begun"];
    same("more", deaf, script, &sees).await;
}

#[tokio::test]
async fn frames_are_as_large_as_the_client_takes_them() {
    for (setting, largest) in [(&[][..], 16_384), (&[(5, 50_000)], 50_000)] {
        let script = async |client: &mut Client| {
            client.settings(&[&[(4, 1_000_000)], setting].concat()).await;
            client.open(0, 1_000_000).await;
            client.get(1).await;
            client.over(1).await;
            assert_eq!(client.largest, largest);
        };
        let handler = always(|_| full(bytes(200_000)));
        let sees = "1: 200 [content-length: 200000; date: now], 200000 bytes END";
        same("frames", handler, script, &[sees]).await;
    }
}
