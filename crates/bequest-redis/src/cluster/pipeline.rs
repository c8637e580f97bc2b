//! Pipelines: cut by node, sent to all of them at once, and the replies put together in the order of the commands.
//!
//! A command that a node sends elsewhere follows it, and the rest stays as it is. Commands with keys in the same slot stay
//! in order; between nodes there is none.

use std::sync::Arc;

use bequest::Context;
use futures_util::future::join_all;
use redis::{Cmd, Pipeline, Value};

use super::effort::Effort;
use super::keys::Concern;
use super::redirect::Redirect;
use super::route::{To, Way};
use super::{Cluster, asking, host, no_node};
use crate::error::{Error, Step};
use crate::node::Node;
use crate::shared::Request;

/// One command that has no reply yet.
struct Waiting<'a> {
    place: usize,
    cmd: &'a Cmd,
    home: Way,
    way: Way,
}

/// What goes to one node at once.
struct Part<'a> {
    node: Arc<Node>,
    is_asked: bool,
    waiting: Vec<Waiting<'a>>,
}

impl Cluster {
    /// Runs a pipeline in which nothing blocks.
    pub(crate) async fn pipeline(
        self: &Arc<Self>,
        ctx: &Context,
        pipeline: &Pipeline,
    ) -> Result<Value, Error> {
        if pipeline.is_transaction() {
            return self.transaction(ctx, pipeline).await;
        }
        ctx.check()
            .map_err(|end| Error::canceled_at(Step::Waiting, end))?;
        let mut waiting = waiting(pipeline)?;
        let mut replies = vec![Value::Nil; waiting.len()];
        let mut effort = Effort::new(ctx, self.settings.connect_limit);
        let mut has_run = false;
        while !waiting.is_empty() {
            let round = self.round(ctx, &mut effort, waiting, &mut replies, &mut has_run);
            let again = round.await;
            // What has been answered before has been done, whatever became of the rest.
            waiting = again.map_err(|error| if has_run { error.doubted() } else { error })?;
        }
        let composed = asking::composed(pipeline, replies).await;
        composed.map_err(Error::running)
    }

    /// Sends all of `waiting`, and returns what is to be sent again.
    async fn round<'a>(
        self: &Arc<Self>,
        ctx: &Context,
        effort: &mut Effort<'_>,
        waiting: Vec<Waiting<'a>>,
        replies: &mut [Value],
        has_run: &mut bool,
    ) -> Result<Vec<Waiting<'a>>, Error> {
        let (mut ready, mut again) = (Vec::new(), Vec::new());
        for part in self.parts(effort, waiting).await? {
            match self.reach(effort, &part.node).await? {
                Some(handle) => ready.push((part, handle)),
                None => again.extend(part.waiting.into_iter().map(Waiting::at_home)),
            }
        }
        let sent = ready.into_iter().map(|(part, handle)| async move {
            let cmds: Vec<&Cmd> = part.waiting.iter().map(|one| one.cmd).collect();
            let request = Request::Each(&cmds, part.is_asked);
            let answer = part.node.shared.send(ctx, handle, &request).await;
            (part, answer)
        });
        let (mut failure, mut trouble) = (None, None);
        for (part, answer) in join_all(sent).await {
            match answer {
                Ok(Value::Array(values)) => {
                    let asked = host(&part.node.endpoint);
                    for (mut one, value) in part.waiting.into_iter().zip(values) {
                        match redirected(&value, asked) {
                            Some(redirect) => {
                                self.counters.redirected.add();
                                one.way = one.home.after(redirect.clone());
                                trouble = trouble
                                    .filter(|old: &Redirect| !old.has_directions())
                                    .or(Some(redirect));
                                again.push(one);
                            }
                            None => {
                                *has_run = true;
                                replies[one.place] = value;
                            }
                        }
                    }
                }
                Ok(_) => failure = Some(Error::running(no_node())),
                Err(error) => {
                    if error.is_connection() {
                        self.renew();
                    }
                    failure = Some(error);
                }
            }
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        if let Some(redirect) = trouble {
            let is_stale = matches!(redirect, Redirect::Moved(_) | Redirect::Stale);
            if is_stale {
                self.renew();
            }
            if effort.sent_on(no_node()) || !redirect.has_directions() {
                self.settle(effort, &redirect).await?;
                again = again.into_iter().map(Waiting::at_home).collect();
            }
        }
        again.sort_by_key(|one| one.place);
        Ok(again)
    }

    /// Cuts by node. What anybody can do goes with the first that has a place to go.
    async fn parts<'a>(
        self: &Arc<Self>,
        effort: &mut Effort<'_>,
        waiting: Vec<Waiting<'a>>,
    ) -> Result<Vec<Part<'a>>, Error> {
        let mut parts: Vec<Part<'a>> = Vec::new();
        let mut free = Vec::new();
        for one in waiting {
            if matches!(one.way.to, To::Anyone) {
                free.push(one);
                continue;
            }
            let node = self.find(effort, &one.way.to).await?;
            let is_asked = one.way.is_asked;
            let same = parts
                .iter_mut()
                .find(|part| part.is_asked == is_asked && Arc::ptr_eq(&part.node, &node));
            match same {
                Some(part) => part.waiting.push(one),
                None => parts.push(Part {
                    node,
                    is_asked,
                    waiting: vec![one],
                }),
            }
        }
        if !free.is_empty() {
            match parts.iter_mut().find(|part| !part.is_asked) {
                Some(part) => {
                    part.waiting.extend(free);
                    part.waiting.sort_by_key(|one| one.place);
                }
                None => parts.push(Part {
                    node: self.find(effort, &To::Anyone).await?,
                    is_asked: false,
                    waiting: free,
                }),
            }
        }
        Ok(parts)
    }
}

impl Waiting<'_> {
    fn at_home(mut self) -> Self {
        self.way = self.home.clone();
        self
    }
}

fn waiting(pipeline: &Pipeline) -> Result<Vec<Waiting<'_>>, Error> {
    let cmds = pipeline.cmd_iter().enumerate();
    cmds.map(|(place, cmd)| {
        let home = Way::of(Concern::of(cmd))?;
        let way = home.clone();
        Ok(Waiting {
            place,
            cmd,
            home,
            way,
        })
    })
    .collect()
}

fn redirected(reply: &Value, asked: &str) -> Option<Redirect> {
    match reply {
        Value::ServerError(error) => Redirect::of_one(error, asked),
        _ => None,
    }
}
