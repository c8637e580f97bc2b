//! The service: handlers that do what they are asked to, and tell the test what happens to them.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use bequest::{Canceled, Context};
use bequest_http::grpc::{BrokenOff, code};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::support::{Calls, guard};
use super::work::work_client::WorkClient;
use super::work::work_server::Work;
use super::work::{Answer, Ask};

/// The service, which tells the test what happens in its handlers.
#[derive(Clone)]
pub(crate) struct Desk {
    tell: mpsc::UnboundedSender<String>,
    /// Whom `chain` is passed on to.
    next: Option<Next>,
    /// How often the work of `thread` has gone round.
    pub(crate) steps: Arc<AtomicUsize>,
    /// Ends such work when the test is over.
    halt: Arc<AtomicBool>,
}

/// The next service, asked under the context of the call, or without one.
#[derive(Clone)]
pub(crate) enum Next {
    Under(Calls),
    Plain(Channel),
}

/// What the handlers say.
pub(crate) struct Told(mpsc::UnboundedReceiver<String>);

impl Told {
    pub(crate) async fn next(&mut self) -> String {
        guard("a handler to say something", self.0.recv())
            .await
            .expect("a service")
    }

    pub(crate) fn is_silent(&mut self) -> bool {
        self.0.try_recv().is_err()
    }
}

impl Desk {
    pub(crate) fn new(next: Option<Next>) -> (Desk, Told) {
        let (tell, told) = mpsc::unbounded_channel();
        let desk = Desk {
            tell,
            next,
            steps: Arc::default(),
            halt: Arc::default(),
        };
        (desk, Told(told))
    }

    fn tell(&self, what: impl Into<String>) {
        // A test that is over hears nothing.
        let _ = self.tell.send(what.into());
    }

    /// Says when it is dropped.
    fn dropped(&self) -> impl Drop + Send + 'static {
        struct OnDrop(Desk);
        impl Drop for OnDrop {
            fn drop(&mut self) {
                self.0.tell("dropped");
            }
        }
        OnDrop(self.clone())
    }

    /// Work on a thread of its own: it asks its context, if it has one, at each step.
    fn work(&self, ctx: Option<Context>) {
        let desk = self.clone();
        std::thread::spawn(move || {
            while !desk.halt.load(SeqCst) {
                if let Some(end) = ctx.as_ref().and_then(Context::err) {
                    return desk.tell(format!("work stopped: {}", end.reason()));
                }
                desk.steps.fetch_add(1, SeqCst);
                std::thread::yield_now();
            }
        });
    }

    pub(crate) fn halt(&self) {
        self.halt.store(true, SeqCst);
    }

    async fn pass_on(&self, ctx: Option<&Context>, text: String) -> Result<String, Status> {
        let answer = match (&self.next, ctx) {
            (Some(Next::Under(calls)), Some(ctx)) => {
                WorkClient::new(calls.under(ctx)).unary(Ask { text }).await?
            }
            (Some(Next::Plain(channel)), _) => WorkClient::new(channel.clone()).unary(Ask { text }).await?,
            _ => return Err(Status::failed_precondition("nobody to ask")),
        };
        Ok(answer.into_inner().text)
    }
}

impl Desk {
    /// A stream that is handed on message by message; at the last one, whose work begins, a message and then nothing.
    async fn handed_on(&self, ctx: Option<Context>, text: String) -> Result<Response<Answers>, Status> {
        let (say, heard) = mpsc::channel(1);
        let (desk, ask) = (self.clone(), Ask { text });
        let mut answers = match (&self.next, &ctx) {
            (Some(Next::Under(calls)), Some(ctx)) => WorkClient::new(calls.under(ctx)).down(ask).await?,
            (Some(Next::Plain(channel)), _) => WorkClient::new(channel.clone()).down(ask).await?,
            _ => {
                self.work(ctx);
                tokio::spawn(async move {
                    let _ = say.send(Ok(answer("one"))).await;
                    desk.tell("began");
                    say.closed().await;
                    desk.tell("stream dropped");
                });
                return Ok(Response::new(Box::pin(Receiver(heard))));
            }
        }
        .into_inner();
        tokio::spawn(async move {
            while let Some(next) = answers.message().await.transpose() {
                if say.send(next).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(Receiver(heard))))
    }
}

/// How a read failed, and by which end, as far as the status says so.
fn broken_off(status: &Status) -> String {
    let mut chain = std::iter::successors(std::error::Error::source(status), |error| error.source());
    let end = chain.find_map(|error| match error.downcast_ref::<BrokenOff>() {
        Some(broken_off) => broken_off.canceled(),
        None => error.downcast_ref(),
    });
    let end = end.map(|end: &Canceled| end.reason().to_string());
    format!(
        "reading failed: {}",
        end.unwrap_or_else(|| status.message().to_owned())
    )
}

fn left(ctx: Option<&Context>) -> String {
    match ctx.and_then(Context::remaining) {
        Some(left) => left.as_millis().to_string(),
        None => "none".to_owned(),
    }
}

fn answer(text: impl Into<String>) -> Answer {
    Answer { text: text.into() }
}

type Answers = Pin<Box<dyn Stream<Item = Result<Answer, Status>> + Send>>;

#[tonic::async_trait]
impl Work for Desk {
    async fn unary(&self, request: Request<Ask>) -> Result<Response<Answer>, Status> {
        let header = request.metadata().get("grpc-timeout");
        let header = header.map(|text| text.to_str().expect("text").to_owned());
        let ctx = request.extensions().get::<Context>().cloned();
        let text = request.into_inner().text;
        let said = match text.as_str() {
            "left" => left(ctx.as_ref()),
            "header" => header.unwrap_or_else(|| "none".to_owned()),
            "deaf" => {
                self.tell("began");
                let _dropped = self.dropped();
                pending().await
            }
            "listen" => {
                self.tell("began");
                let end = ctx.expect("a context").done().await;
                self.tell(format!("told: {}", end.reason()));
                return Err(Status::new(code(&end).into(), "told"));
            }
            "panic" => panic!("asked to"),
            "refuse" => return Err(Status::not_found("no such thing")),
            "chain left" | "chain thread" | "chain deaf" | "chain header" => {
                let last = text.trim_start_matches("chain ").to_owned();
                if self.next.is_some() {
                    let here = left(ctx.as_ref());
                    let there = self.pass_on(ctx.as_ref(), text).await?;
                    return Ok(Response::new(answer(format!("{here} {there}"))));
                }
                match last.as_str() {
                    "left" => left(ctx.as_ref()),
                    "header" => header.unwrap_or_else(|| "none".to_owned()),
                    _ => {
                        self.work(ctx);
                        self.tell("began");
                        let _dropped = self.dropped();
                        pending().await
                    }
                }
            }
            other => other.to_owned(),
        };
        Ok(Response::new(answer(said)))
    }

    type DownStream = Answers;

    async fn down(&self, request: Request<Ask>) -> Result<Response<Answers>, Status> {
        let ctx = request.extensions().get::<Context>().cloned();
        let (say, heard) = mpsc::channel(1);
        let desk = self.clone();
        let text = request.into_inner().text;
        if text == "chain thread" {
            return self.handed_on(ctx, text).await;
        }
        tokio::spawn(async move {
            match text.as_str() {
                // A message, and then nothing.
                "silent" => {
                    let _ = say.send(Ok(answer("one"))).await;
                    desk.tell("began");
                    say.closed().await;
                    desk.tell("stream dropped");
                }
                // A message whenever one can be sent, and not so small that a peer calls it a flood.
                "endless" => while say.send(Ok(answer("tick ".repeat(2_000)))).await.is_ok() {},
                "listen" => {
                    let _ = say.send(Ok(answer("one"))).await;
                    desk.tell("began");
                    let end = ctx.expect("a context").done().await;
                    desk.tell(format!("told: {}", end.reason()));
                }
                "forged" => {
                    let mut status = Status::cancelled("by the peer");
                    status
                        .metadata_mut()
                        .insert("bequest-ended-here", "context".parse().expect("text"));
                    let _ = say.send(Err(status)).await;
                }
                _ => {
                    let _ = say.send(Ok(answer("one"))).await;
                }
            }
        });
        Ok(Response::new(Box::pin(Receiver(heard))))
    }

    async fn up(&self, request: Request<Streaming<Ask>>) -> Result<Response<Answer>, Status> {
        self.tell("began");
        let mut asked = request.into_inner();
        let mut count = 0;
        while let Some(_ask) = asked
            .message()
            .await
            .inspect_err(|status| self.tell(broken_off(status)))?
        {
            count += 1;
        }
        self.tell("asked to the end");
        Ok(Response::new(answer(count.to_string())))
    }

    type BothStream = Answers;

    async fn both(&self, request: Request<Streaming<Ask>>) -> Result<Response<Answers>, Status> {
        self.tell("began");
        let mut asked = request.into_inner();
        let (say, heard) = mpsc::channel(1);
        let desk = self.clone();
        tokio::spawn(async move {
            loop {
                match asked.message().await {
                    Ok(Some(ask)) => {
                        let _ = say.send(Ok(answer(ask.text))).await;
                    }
                    Ok(None) => return desk.tell("asked to the end"),
                    Err(status) => return desk.tell(broken_off(&status)),
                }
            }
        });
        Ok(Response::new(Box::pin(Receiver(heard))))
    }
}

struct Receiver(mpsc::Receiver<Result<Answer, Status>>);

impl Stream for Receiver {
    type Item = Result<Answer, Status>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}
