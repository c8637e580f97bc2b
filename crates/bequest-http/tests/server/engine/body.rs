//! Bodies of answers, made of steps.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use bequest_http::server::BoxError;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;

use super::super::common::TestBody;
use super::stage::Cue;

/// A body that does one thing after the other.
pub(super) struct Steps {
    steps: VecDeque<Step>,
    /// Whether it says that nothing follows before it is asked.
    says_end: bool,
    size: Option<u64>,
    /// Told of its drop.
    tells: Option<Cue>,
}

pub(super) enum Step {
    Data(Bytes),
    Trailers(&'static str, &'static str),
    Fails(BoxError),
    /// It has nothing ready until this is.
    Waits(Pin<Box<dyn Future<Output = ()> + Send>>),
}

/// An error that was caused by another one.
#[derive(Debug)]
pub(super) struct Caused(pub(super) h2::Error);

impl Steps {
    pub(super) fn new(steps: impl IntoIterator<Item = Step>) -> Steps {
        Steps {
            steps: steps.into_iter().collect(),
            says_end: false,
            size: None,
            tells: None,
        }
    }

    pub(super) fn says_end(mut self) -> Steps {
        self.says_end = true;
        self
    }

    pub(super) fn of_size(mut self, size: u64) -> Steps {
        self.size = Some(size);
        self
    }

    pub(super) fn tells(mut self, cue: Cue) -> Steps {
        self.tells = Some(cue);
        self
    }

    pub(super) fn answer(self) -> Response<TestBody> {
        Response::new(self.boxed_unsync())
    }
}

/// These bytes.
pub(super) fn data(bytes: impl Into<Bytes>) -> Step {
    Step::Data(bytes.into())
}

/// Nothing, once.
pub(super) fn pause() -> Step {
    Step::Waits(Box::pin(tokio::task::yield_now()))
}

/// Nothing, until the script says so.
pub(super) fn wait(cue: &Cue) -> Step {
    let cue = cue.clone();
    Step::Waits(Box::pin(async move { cue.come().await }))
}

/// Nothing more.
pub(super) fn silence() -> Step {
    Step::Waits(Box::pin(std::future::pending()))
}

pub(super) fn failure() -> Step {
    Step::Fails("on purpose".into())
}

/// Bytes that tell whether they have come in order.
pub(super) fn bytes(count: usize) -> Bytes {
    (0..count).map(|nth| (nth % 251) as u8).collect()
}

impl Body for Steps {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        while let Some(Step::Waits(wait)) = self.steps.front_mut() {
            ready!(wait.as_mut().poll(cx));
            self.steps.pop_front();
        }
        let frame = match self.steps.pop_front() {
            Some(Step::Data(bytes)) => Ok(Frame::data(bytes)),
            Some(Step::Trailers(name, value)) => {
                let mut trailers = HeaderMap::new();
                trailers.insert(name, HeaderValue::from_static(value));
                Ok(Frame::trailers(trailers))
            }
            Some(Step::Fails(error)) => Err(error),
            Some(Step::Waits(_)) => unreachable!("waited for"),
            None => return Poll::Ready(None),
        };
        Poll::Ready(Some(frame))
    }

    fn is_end_stream(&self) -> bool {
        self.says_end && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.size.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        if let Some(cue) = &self.tells {
            cue.tell("the body is dropped");
        }
    }
}

impl std::fmt::Display for Caused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("on purpose")
    }
}

impl std::error::Error for Caused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}
