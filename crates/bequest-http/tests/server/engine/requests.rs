//! Requests and their bodies: what the handler is given, and what a client sees of one that is short, long, unread or dropped.

use http_body_util::BodyExt;

use super::super::common::{RawHttp2, TestBody, full, http2_bytes};
use super::blocks::{block, lines};
use super::body::bytes;
use super::client::Client;
use super::stage::{Answer, Cue, same};

pub(super) type Request = http::Request<TestBody>;

/// Reads a body to its end, and says what it was.
pub(super) async fn report(mut body: TestBody) -> String {
    let (mut data, mut trailers) = (Vec::new(), String::new());
    while let Some(frame) = body.frame().await {
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(more)) => data.extend_from_slice(&more),
            Ok(Err(other)) => {
                let fields = other.into_trailers().expect("trailers");
                trailers = format!(", trailers {:?}", lines(&fields));
            }
            Err(_) => return format!("{} bytes, failed", data.len()),
        }
    }
    let is_whole = data == bytes(data.len());
    format!(
        "{} bytes{trailers}{}",
        data.len(),
        if is_whole { "" } else { ", others" }
    )
}

/// Says that it has begun, reads, and answers.
pub(super) async fn reader(request: Request, cue: Cue) -> Answer {
    cue.tell("begun");
    cue.tell(report(request.into_body()).await);
    Ok(full("read"))
}

pub(super) const READ: &str = r#"1: 200 [content-length: 4; date: now], "read" END"#;

#[tokio::test]
async fn bodies_are_read_to_their_end() {
    for (name, fields, parts, told) in [
        ("no length", &[][..], &[5][..], "told: 5 bytes"),
        ("a length", &[("content-length", "5")], &[5], "told: 5 bytes"),
        (
            "a length, said twice",
            &[("content-length", "5"), ("content-length", "5")],
            &[5],
            "told: 5 bytes",
        ),
        (
            "several frames",
            &[("content-length", "5")],
            &[2, 0, 3],
            "told: 5 bytes",
        ),
        ("an end of its own", &[], &[5, 0], "told: 5 bytes"),
        ("no bytes", &[], &[0], "told: 0 bytes"),
        (
            "no length at all",
            &[("content-length", "0")],
            &[0],
            "told: 0 bytes",
        ),
        (
            "a client that waits for a 100, which never comes",
            &[("expect", "100-continue")],
            &[5],
            "told: 5 bytes",
        ),
        (
            "as much as fits into the window",
            &[],
            &[65_535],
            "told: 65535 bytes",
        ),
        ("three times the window", &[], &[3_000_000], "told: 3000000 bytes"),
    ] {
        let script = async |client: &mut Client| {
            client.begin(1, false, "POST", "/", fields).await;
            client.told().await;
            let whole = bytes(parts.iter().sum());
            let mut rest = &whole[..];
            for (nth, part) in parts.iter().enumerate() {
                let (now, later) = rest.split_at(*part);
                client.data(1, now, nth + 1 == parts.len()).await;
                rest = later;
            }
            client.over(1).await;
        };
        same(name, reader, script, &[READ, "told: begun", told]).await;
    }
}

#[tokio::test]
async fn a_request_that_has_come_whole_before_it_is_looked_at_is_read() {
    let script = async |client: &mut Client| {
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/"),
            ("content-length", "5"),
        ];
        let whole = [
            http2_bytes::frame(RawHttp2::HEADERS, RawHttp2::END_HEADERS, 1, &block(&fields)),
            http2_bytes::frame(RawHttp2::DATA, 0, 1, &bytes(5)),
            http2_bytes::frame(RawHttp2::DATA, RawHttp2::END_STREAM, 1, b""),
        ];
        client.send(&whole.concat()).await;
        client.over(1).await;
    };
    same("a body", reader, script, &[READ, "told: begun", "told: 5 bytes"]).await;
    let script = async |client: &mut Client| {
        client.get(1).await;
        client.over(1).await;
    };
    same("no body", reader, script, &[READ, "told: begun", "told: 0 bytes"]).await;
}

#[tokio::test]
async fn trailers_are_read() {
    for (parts, told) in [
        (&[5][..], r#"told: 5 bytes, trailers [("x-end", "well")]"#),
        (&[], r#"told: 0 bytes, trailers [("x-end", "well")]"#),
    ] {
        let script = async |client: &mut Client| {
            client.post(1).await;
            client.told().await;
            for part in parts {
                client.data(1, &bytes(*part), false).await;
            }
            client.fields(1, true, &[("x-end", "well")]).await;
            client.over(1).await;
        };
        same("trailers", reader, script, &[READ, "told: begun", told]).await;
    }
}

#[tokio::test]
async fn padding_is_no_part_of_a_body() {
    let script = async |client: &mut Client| {
        client.post(1).await;
        client.told().await;
        let padded = [&[3][..], &bytes(5), &[0; 3]].concat();
        client
            .frame(RawHttp2::DATA, RawHttp2::END_STREAM | 8, 1, &padded)
            .await;
        client.over(1).await;
    };
    same("padding", reader, script, &[READ, "told: begun", "told: 5 bytes"]).await;
}

#[tokio::test]
async fn a_body_that_is_not_of_its_length_is_reset() {
    for (name, length, sent) in [
        ("too short", "6", 5),
        ("too long", "4", 5),
        ("none, of a length", "5", 0),
        ("one, of none", "0", 5),
    ] {
        let script = async |client: &mut Client| {
            client
                .begin(1, false, "POST", "/", &[("content-length", length)])
                .await;
            client.told().await;
            client.data(1, &bytes(sent), true).await;
            client.over(1).await;
            client.told().await;
        };
        same(
            name,
            reader,
            script,
            &[
                "1: RST_STREAM PROTOCOL_ERROR",
                "told: begun",
                "told: 0 bytes, failed",
            ],
        )
        .await;
    }
    let script = async |client: &mut Client| {
        client
            .begin(1, true, "POST", "/", &[("content-length", "5")])
            .await;
        client.over(1).await;
    };
    same(
        "none at all, of a length",
        reader,
        script,
        &["1: RST_STREAM PROTOCOL_ERROR"],
    )
    .await;
}

#[tokio::test]
async fn who_answers_without_reading_has_the_rest_of_the_body_reset() {
    async fn enough(_: Request, cue: Cue) -> Answer {
        cue.tell("begun");
        Ok(full("enough"))
    }
    for part in [0, 5] {
        let script = async |client: &mut Client| {
            client.post(1).await;
            client.told().await;
            if part > 0 {
                client.data(1, &bytes(part), false).await;
            }
            client.until("a reset", |seen| seen.is_reset(1)).await;
            // Who has not heard of it yet sends on, and has its connection.
            client.data(1, &bytes(5), true).await;
            client.get(3).await;
            client.over(3).await;
        };
        same(
            "unread",
            enough,
            script,
            &[
                r#"1: 200 [content-length: 6; date: now], "enough" END, RST_STREAM NO_ERROR"#,
                r#"3: 200 [content-length: 6; date: now], "enough" END"#,
                "told: begun",
                "told: begun",
            ],
        )
        .await;
    }
    let script = async |client: &mut Client| {
        client.hold();
        client.post(1).await;
        client.data(1, &bytes(5), true).await;
        client.let_go().await;
        client.told().await;
        client.over(1).await;
    };
    same(
        "unread, and whole",
        enough,
        script,
        &[
            r#"1: 200 [content-length: 6; date: now], "enough" END"#,
            "told: begun",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_body_that_is_dropped_halfway_is_taken_and_thrown_away() {
    async fn half(request: Request, cue: Cue) -> Answer {
        let mut body = request.into_body();
        let frame = body.frame().await.expect("a frame").expect("no error");
        drop(body);
        cue.tell(format!("{} bytes", frame.into_data().expect("data").len()));
        cue.come().await;
        Ok(full("half"))
    }
    for (end, sees) in [
        (
            false,
            r#"1: 200 [content-length: 4; date: now], "half" END, RST_STREAM NO_ERROR"#,
        ),
        (true, r#"1: 200 [content-length: 4; date: now], "half" END"#),
    ] {
        let script = async |client: &mut Client| {
            client.post(1).await;
            client.data(1, &bytes(5), false).await;
            client.told().await;
            client.data(1, &bytes(50_000), end).await;
            client.settle().await;
            client.cue();
            client.over(1).await;
        };
        same("half", half, script, &[sees, "told: 5 bytes"]).await;
    }
}

#[tokio::test]
async fn a_body_may_be_read_behind_its_answer() {
    async fn later(request: Request, cue: Cue) -> Answer {
        tokio::spawn(async move {
            cue.come().await;
            cue.tell(report(request.into_body()).await);
        });
        Ok(full("later"))
    }
    let script = async |client: &mut Client| {
        client.post(1).await;
        client.over(1).await;
        client.data(1, &bytes(3), false).await;
        client.cue();
        client.data(1, &bytes(5)[3..], true).await;
        client.told().await;
    };
    same(
        "behind",
        later,
        script,
        &[
            r#"1: 200 [content-length: 5; date: now], "later" END"#,
            "told: 5 bytes",
        ],
    )
    .await;
}

pub(super) const READ_3: &str = r#"3: 200 [content-length: 4; date: now], "read" END"#;

#[tokio::test]
async fn malformed_trailers_are_the_end_of_their_stream_only() {
    let failed = ("1: RST_STREAM PROTOCOL_ERROR", "told: 5 bytes, failed");
    for (name, end, fields, (sees, told)) in [
        ("a field of HTTP/1", true, &[("connection", "close")][..], failed),
        ("no end", false, &[("x-end", "well")], failed),
        // The engine passes over it.
        (
            "a pseudo-field",
            true,
            &[(":path", "/")],
            (READ, "told: 5 bytes, trailers []"),
        ),
    ] {
        let script = async |client: &mut Client| {
            client.post(1).await;
            client.told().await;
            client.data(1, &bytes(5), false).await;
            client.fields(1, end, fields).await;
            client.over(1).await;
            client.told().await;
            client.get(3).await;
            client.over(3).await;
        };
        let sees = [sees, READ_3, "told: begun", told, "told: begun", "told: 0 bytes"];
        same(name, reader, script, &sees).await;
    }
}
