//! A service on its way from being asked to having answered.
//!
//! The same as an asynchronous block that waits until the service is ready and then calls it, which would keep room for the
//! request beside the handler that has it: as much as most handlers take, for as long as they wait.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::BoxError;

pin_project! {
    /// Waits until a service is ready, hands it the request, and waits for its answer.
    #[project = CallingProj]
    pub(super) enum Calling<S: Service<R>, R> {
        /// Not ready yet. The request is taken by the call, even if that panics.
        Asked { service: S, request: Option<R> },
        Called { #[pin] answer: S::Future },
    }
}

impl<S: Service<R>, R> Calling<S, R> {
    pub(super) fn new(service: S, request: R) -> Calling<S, R> {
        Calling::Asked {
            service,
            request: Some(request),
        }
    }
}

impl<S, R> Future for Calling<S, R>
where
    S: Service<R>,
    S::Error: Into<BoxError>,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        loop {
            match self.as_mut().project() {
                CallingProj::Asked { service, request } => {
                    ready!(service.poll_ready(cx)).map_err(Into::into)?;
                    let request = request.take().expect("polled again after a panic");
                    let answer = service.call(request);
                    self.set(Calling::Called { answer });
                }
                CallingProj::Called { answer } => return answer.poll(cx).map_err(Into::into),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::{Ready, poll_fn, ready};
    use std::pin::pin;
    use std::task::Waker;

    use super::*;

    type Large = [u8; 1024];

    /// Ready when it is asked for the second time; answers with the request.
    #[derive(Default)]
    struct Echo {
        asked: u32,
    }

    impl Service<Large> for Echo {
        type Response = Large;
        type Error = Infallible;
        type Future = Ready<Result<Large, Infallible>>;

        fn poll_ready(&mut self, _cx: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
            self.asked += 1;
            match self.asked {
                1 => Poll::Pending,
                _ => Poll::Ready(Ok(())),
            }
        }

        fn call(&mut self, request: Large) -> Self::Future {
            assert_eq!(self.asked, 2, "called as soon as it is ready, and not before");
            ready(Ok(request))
        }
    }

    #[test]
    fn a_service_is_called_once_it_is_ready() {
        let mut calling = pin!(Calling::new(Echo::default(), [7; 1024]));
        let mut cx = TaskContext::from_waker(Waker::noop());
        assert!(calling.as_mut().poll(&mut cx).is_pending());
        match calling.as_mut().poll(&mut cx) {
            Poll::Ready(Ok(answer)) => assert_eq!(answer, [7; 1024]),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn there_is_room_for_one_request() {
        assert!(size_of::<Calling<Echo, Large>>() < 1024 + 64);
    }

    #[test]
    fn control_an_asynchronous_block_has_room_for_two() {
        let (mut service, request) = (Echo::default(), [7; 1024]);
        let block = async move {
            poll_fn(|cx| service.poll_ready(cx)).await?;
            service.call(request).await
        };
        assert!(size_of_val(&block) >= 2 * 1024);
    }
}
