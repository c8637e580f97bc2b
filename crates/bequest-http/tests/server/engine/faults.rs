//! Handlers at fault: what panics or breaks in one stream is nothing to the others of its connection.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};

use bequest_http::server::BoxError;
use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;

use super::super::common::{TestBody, full};
use super::body::{Step, Steps, data, wait};
use super::client::Client;
use super::stage::{Answer, Cue, Handle, differs, same};

type Request = http::Request<TestBody>;

/// Panics when it is dropped.
#[derive(Clone, Debug)]
struct Brittle;

impl Drop for Brittle {
    fn drop(&mut self) {
        // A second panic would be the end of the process.
        if !std::thread::panicking() {
            panic!("broken on the floor");
        }
    }
}

/// Where a body of a word panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Size,
    End,
    Drop,
}

struct Panicking(Broken, Option<Bytes>);

impl Body for Panicking {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(self.1.take().map(|word| Ok(Frame::data(word))))
    }

    fn is_end_stream(&self) -> bool {
        assert!(self.0 != Broken::End, "when it is asked for its end");
        false
    }

    fn size_hint(&self) -> SizeHint {
        assert!(self.0 != Broken::Size, "when it is asked for its size");
        SizeHint::default()
    }
}

impl Drop for Panicking {
    fn drop(&mut self) {
        if self.0 == Broken::Drop && !std::thread::panicking() {
            panic!("in its drop");
        }
    }
}

/// Asks twice: in vain, for something that is broken, and then for something else.
async fn twice(client: &mut Client) {
    client.begin(1, true, "GET", "/broken", &[]).await;
    client.over(1).await;
    client.get(3).await;
    client.over(3).await;
}

const WELL: &str = r#"3: 200 [content-length: 4; date: now], "well" END"#;

/// Answers with this what is broken.
fn broken(
    answer: impl Fn() -> Response<TestBody> + Clone + Send + Sync + 'static,
) -> impl Handle<std::future::Ready<Answer>> {
    move |request: Request, _: Cue| {
        std::future::ready(Ok(match request.uri().path() {
            "/broken" => answer(),
            _ => full("well"),
        }))
    }
}

const WHY: &str = "a stream that the server breaks off is reset by its error";

const OF_HYPER: &str = "1: RST_STREAM CANCEL";
const OF_OURS: &str = "1: RST_STREAM INTERNAL_ERROR";

#[tokio::test]
async fn a_body_that_panics_is_the_end_of_its_stream_only() {
    for panics in [Broken::Size, Broken::End] {
        let handler = broken(move || {
            Response::new(Panicking(panics, Some(Bytes::from_static(b"word"))).boxed_unsync())
        });
        differs(WHY, handler, twice, &[OF_HYPER, WELL], &[OF_OURS, WELL]).await;
    }
}

#[tokio::test]
async fn a_body_that_panics_when_it_is_dropped_is_the_end_of_its_stream_only() {
    let handler =
        broken(|| Response::new(Panicking(Broken::Drop, Some(Bytes::from_static(b"word"))).boxed_unsync()));
    let sees = r#"1: 200 [date: now], "word", "" END"#;
    same("in its drop", handler, twice, &[sees, WELL]).await;
}

#[tokio::test]
async fn what_panics_when_an_answer_is_taken_apart_is_the_end_of_its_stream_only() {
    let handler = broken(|| {
        let mut answer = full("word");
        answer.extensions_mut().insert(Brittle);
        answer
    });
    differs(WHY, handler, twice, &[OF_HYPER, WELL], &[OF_OURS, WELL]).await;
}

/// The body of a request that somebody keeps does not keep its stream.
#[tokio::test]
async fn trailers_that_are_none_are_the_end_of_their_stream() {
    let held = Arc::new(Mutex::new(Vec::new()));
    let handler = move |request: Request, cue: Cue| {
        held.lock().expect("no panic").push(request);
        let trailers = Step::Trailers("connection", "close");
        let answer = Steps::new([data("hello"), wait(&cue), trailers]).answer();
        std::future::ready(Answer::Ok(answer))
    };
    let script = async |client: &mut Client| {
        client.post(1).await;
        client.has(1, 5).await;
        client.cue();
        client.settle().await;
    };
    let begun = r#"1: 200 [date: now], "hello""#;
    let of_ours = r#"1: 200 [date: now], "hello", RST_STREAM INTERNAL_ERROR"#;
    differs(WHY, handler, script, &[begun], &[of_ours]).await;
}
