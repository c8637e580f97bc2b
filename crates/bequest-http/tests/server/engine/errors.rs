//! What a client may not do: errors of a connection, and of a stream.

use super::super::common::{RawHttp2, http2_bytes::frame};
use super::blocks::block;
use super::client::Client;
use super::stage::{deaf, same};

const END: u8 = RawHttp2::END_STREAM;
const WHOLE: u8 = RawHttp2::END_STREAM | RawHttp2::END_HEADERS;
const PADDED: u8 = 8;
const PUSH_PROMISE: u8 = 5;

fn head() -> Vec<u8> {
    block(&[(":method", "GET"), (":scheme", "http"), (":path", "/")])
}

/// Behind an ordinary request on stream 1, which is being served.
async fn behind_a_request(client: &mut Client, bytes: &[u8]) {
    client.post(1).await;
    client.told().await;
    client.send(bytes).await;
}

#[tokio::test]
async fn errors_of_a_connection_are_told_in_a_goodbye() {
    let data = RawHttp2::DATA;
    let (reset, window) = (RawHttp2::RST_STREAM, RawHttp2::WINDOW_UPDATE);
    let (settings, ping) = (RawHttp2::SETTINGS, RawHttp2::PING);
    let ended = frame(data, END, 1, b"a");
    let more = frame(RawHttp2::HEADERS, WHOLE, 1, &block(&[("x-end", "well")]));
    let within = [frame(RawHttp2::HEADERS, END, 3, b""), frame(ping, 0, 0, &[0; 8])].concat();
    for (name, bytes) in [
        ("data on a stream that is none", frame(data, 0, 3, b"a")),
        ("data of the connection", frame(data, 0, 0, b"a")),
        ("data behind the end", [&ended[..], &ended].concat()),
        ("a head behind the end", [&ended[..], &more].concat()),
        ("padding longer than its frame", frame(data, PADDED, 1, &[5, 0])),
        ("a reset of a stream that is none", frame(reset, 0, 3, &[0; 4])),
        ("a reset of the connection", frame(reset, 0, 0, &[0; 4])),
        ("a short reset", frame(reset, 0, 1, &[0; 3])),
        (
            "a window of a stream that is none",
            frame(window, 0, 3, &[0, 0, 0, 1]),
        ),
        ("a window of nothing more", frame(window, 0, 0, &[0; 4])),
        (
            "a window of nothing more, of a stream",
            frame(window, 0, 1, &[0; 4]),
        ),
        ("a short window", frame(window, 0, 0, &[0; 3])),
        ("a short ping", frame(ping, 0, 0, &[0; 7])),
        ("a ping of a stream", frame(ping, 0, 1, &[0; 8])),
        ("settings of a stream", frame(settings, 0, 1, &[])),
        ("short settings", frame(settings, 0, 0, &[0; 5])),
        (
            "an answer to settings that says something",
            frame(settings, 1, 0, &[0; 6]),
        ),
        ("half a push", frame(settings, 0, 0, &[0, 2, 0, 0, 0, 2])),
        (
            "too large a window, by settings",
            frame(settings, 0, 0, &[0, 4, 0x80, 0, 0, 0]),
        ),
        (
            "too small a frame, by settings",
            frame(settings, 0, 0, &[0, 5, 0, 0, 0, 1]),
        ),
        ("a push", frame(PUSH_PROMISE, 4, 1, &[0, 0, 0, 2, 0x82])),
        (
            "a stream of the server's",
            frame(RawHttp2::HEADERS, WHOLE, 2, &head()),
        ),
        (
            "a head of the connection",
            frame(RawHttp2::HEADERS, WHOLE, 0, &head()),
        ),
        (
            "a block that is none",
            frame(RawHttp2::HEADERS, WHOLE, 3, &[0xff; 20]),
        ),
        ("the rest of no block", frame(RawHttp2::CONTINUATION, 4, 1, b"")),
        ("something within a block", within),
    ] {
        let script = async |client: &mut Client| {
            behind_a_request(client, &bytes).await;
            client.closed().await;
        };
        let sees = [r#"0: GOAWAY 1 PROTOCOL_ERROR "", closed"#, "told: begun"];
        same(name, deaf, script, &sees).await;
    }
    let script = async |client: &mut Client| {
        behind_a_request(client, &frame(data, 0, 1, &[0; 16_385])).await;
        client.closed().await;
    };
    let sees = [r#"0: GOAWAY 1 FRAME_SIZE_ERROR "", closed"#, "told: begun"];
    same("a frame that is too large", deaf, script, &sees).await;
    let script = async |client: &mut Client| {
        behind_a_request(client, &frame(RawHttp2::HEADERS, WHOLE, 5, &head())).await;
        client.told().await;
        client.frame(RawHttp2::HEADERS, WHOLE, 3, &head()).await;
        client.closed().await;
    };
    let sees = [
        r#"0: GOAWAY 5 PROTOCOL_ERROR "", closed"#,
        "told: begun",
        "told: begun",
    ];
    same("a stream behind a later one", deaf, script, &sees).await;
}

#[tokio::test]
async fn an_error_of_a_stream_is_told_in_a_reset() {
    let script = async |client: &mut Client| {
        let depends_on_itself = frame(RawHttp2::PRIORITY, 0, 1, &[0, 0, 0, 1, 16]);
        behind_a_request(client, &depends_on_itself).await;
        client.over(1).await;
    };
    let sees = ["1: RST_STREAM PROTOCOL_ERROR", "told: begun"];
    same("a stream that depends on itself", deaf, script, &sees).await;
}
