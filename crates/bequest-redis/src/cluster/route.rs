//! The course of a call: from node to node until one has run its command.
//!
//! A node that did not run a command says so, and where to go ([`Redirect`]). One that cannot be reached is no answer: the
//! cluster is asked anew who has the slot, and the next one is tried. Whatever was sent and not answered ends the call.

use std::sync::Arc;

use bequest::Context;
use redis::{Cmd, ErrorKind, Pipeline, ScriptInvocation, ServerErrorKind, Value};

use super::effort::Effort;
use super::keys::Concern;
use super::redirect::Redirect;
use super::script::Commands;
use super::slot::{Address, Slot};
use super::{Cluster, host, no_node};
use crate::blocking::{Patience, Work, call};
use crate::error::{Error, Step};
use crate::handle::Handle;
use crate::node::Node;
use crate::retry::is_worth_a_retry;
use crate::shared::Request;

const EVERYONE: &str = "it is about one server, and a cluster has several: use `cmd_at_each`";

/// Where a command is to be run.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) to: To,
    /// Whether the node is asked to run it although it does not have the slot yet.
    pub(super) is_asked: bool,
}

#[derive(Clone, Debug)]
pub(super) enum To {
    Slot(Slot),
    Anyone,
    At(Address),
    /// To this one and no other.
    Node(Arc<Node>),
}

/// What a node is to run.
enum Job<'a> {
    Command(&'a Cmd),
    Transaction(&'a Pipeline),
    Script(&'a Commands),
}

impl Cluster {
    /// Runs a plain command.
    pub(crate) async fn command(self: &Arc<Self>, ctx: &Context, cmd: &Cmd) -> Result<Value, Error> {
        let way = Way::of(Concern::of(cmd))?;
        self.run(ctx, way, Job::Command(cmd)).await
    }

    /// Runs a plain command at one node, whatever its keys are.
    pub(crate) async fn command_at(
        self: &Arc<Self>,
        ctx: &Context,
        node: Arc<Node>,
        cmd: &Cmd,
    ) -> Result<Value, Error> {
        let way = Way {
            to: To::Node(node),
            is_asked: false,
        };
        self.run(ctx, way, Job::Command(cmd)).await
    }

    /// The primaries, once they are known.
    pub(crate) async fn primaries(self: &Arc<Self>, ctx: &Context) -> Result<Vec<Arc<Node>>, Error> {
        ctx.check()
            .map_err(|end| Error::canceled_at(Step::Waiting, end))?;
        let mut effort = Effort::new(ctx, self.settings.connect_limit);
        loop {
            let picture = self.picture();
            if !picture.nodes().is_empty() {
                return Ok(picture.nodes().to_vec());
            }
            self.look_again(&mut effort).await?;
        }
    }

    pub(crate) async fn script(
        self: &Arc<Self>,
        ctx: &Context,
        script: &ScriptInvocation<'_>,
    ) -> Result<Value, Error> {
        let commands = Commands::of(script);
        let way = Way::of(Concern::of(&commands.run))?;
        self.run(ctx, way, Job::Script(&commands)).await
    }

    pub(super) async fn transaction(
        self: &Arc<Self>,
        ctx: &Context,
        pipeline: &Pipeline,
    ) -> Result<Value, Error> {
        let way = Way::of(concern_of(pipeline))?;
        self.run(ctx, way, Job::Transaction(pipeline)).await
    }

    /// Runs what blocks, on a connection of its own at the node that it concerns. There it is ended, too.
    pub(crate) async fn blocking(self: &Arc<Self>, ctx: &Context, work: Work) -> Result<Value, Error> {
        let concern = match &work {
            Work::Command(cmd, _) => Concern::of(cmd),
            Work::Pipeline(pipeline) => concern_of(pipeline),
        };
        let home = Way::of(concern)?;
        ctx.check()
            .map_err(|end| Error::canceled_at(Step::Waiting, end))?;
        let mut effort = Effort::new(ctx, self.settings.connect_limit);
        let mut way = home.clone();
        loop {
            let node = self.find(&mut effort, &way.to).await?;
            let patience = Patience::Once(effort.left(), effort.turns());
            let asked = work.clone().asked(way.is_asked);
            let began = ctx.now();
            let error = match call(&node.pool, ctx, asked, patience).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            way = match &error {
                error if error.step() == Step::Connecting && error.is_connection() => {
                    effort.took(ctx.now().saturating_duration_since(began));
                    let why = error.redis().cloned().unwrap_or_else(no_node);
                    effort.failed(why).await?;
                    self.look_again(&mut effort).await?;
                    home.clone()
                }
                _ if is_partly_run(&work, &error) => return Err(error),
                _ => self.next(&mut effort, &home, &node, error).await?,
            };
            if way.is_asked && matches!(work, Work::Pipeline(_)) {
                // Asking holds for one command. The slot will be in one place again.
                effort.pause().await?;
                way = home.clone();
            }
        }
    }

    async fn run(self: &Arc<Self>, ctx: &Context, home: Way, job: Job<'_>) -> Result<Value, Error> {
        ctx.check()
            .map_err(|end| Error::canceled_at(Step::Waiting, end))?;
        let mut effort = Effort::new(ctx, self.settings.connect_limit);
        let mut way = home.clone();
        let mut is_loaded = false;
        loop {
            let node = self.find(&mut effort, &way.to).await?;
            let Some(handle) = self.reach(&mut effort, &node).await? else {
                way = home.clone();
                continue;
            };
            let error = match node.shared.send(ctx, handle, &job.request(way.is_asked)).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if let Job::Script(commands) = &job
                && is_unknown_script(&error)
                && !is_loaded
            {
                is_loaded = true; // at this node; if it does not help, so be it
                let load = Request::Command(&commands.load);
                let loaded = node.shared.run(ctx, load).await;
                loaded.map_err(Error::certain)?; // the script itself was not run
                continue;
            }
            way = self.next(&mut effort, &home, &node, error).await?;
            is_loaded = false;
        }
    }

    /// Where to go after `error`, if the command has not been run; otherwise the error is the answer.
    pub(super) async fn next(
        self: &Arc<Self>,
        effort: &mut Effort<'_>,
        home: &Way,
        node: &Node,
        error: Error,
    ) -> Result<Way, Error> {
        let Some(why) = error.redis() else {
            return Err(error);
        };
        if error.is_connection() {
            self.renew(); // for the next one
            return Err(error);
        }
        if let To::Node(_) = home.to {
            return Err(error);
        }
        let Some(redirect) = Redirect::of(why, host(&node.endpoint)) else {
            return Err(error);
        };
        self.counters.redirected.add();
        if matches!(redirect, Redirect::Moved(_) | Redirect::Stale) {
            self.renew();
        }
        if effort.sent_on(why.clone()) || !redirect.has_directions() {
            self.settle(effort, &redirect).await?;
            return Ok(home.clone());
        }
        Ok(home.after(redirect))
    }

    /// What is to be done before a command is sent again that was not told where to go.
    pub(super) async fn settle(
        self: &Arc<Self>,
        effort: &mut Effort<'_>,
        redirect: &Redirect,
    ) -> Result<(), Error> {
        effort.pause().await?;
        match redirect {
            Redirect::Ask(_) | Redirect::Again => Ok(()),
            Redirect::Moved(_) | Redirect::Stale => self.look_again(effort).await,
        }
    }

    /// The node that `to` means. Waits until the cluster is known.
    pub(super) async fn find(self: &Arc<Self>, effort: &mut Effort<'_>, to: &To) -> Result<Arc<Node>, Error> {
        loop {
            let found = match to {
                To::At(address) => Some(self.node(address)),
                To::Node(node) => Some(Arc::clone(node)),
                To::Slot(slot) => self.picture().node_of(*slot).map(Arc::clone),
                To::Anyone => {
                    let picture = self.picture();
                    let turn = self.turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let place = turn.checked_rem(picture.nodes().len());
                    place.map(|place| Arc::clone(&picture.nodes()[place]))
                }
            };
            match found {
                Some(node) => return Ok(node),
                None => {
                    let is_known = !self.picture().nodes().is_empty();
                    if is_known {
                        effort.failed(no_node()).await?;
                    }
                    self.look_again(effort).await?;
                }
            }
        }
    }

    /// A way to the node; none if it cannot be reached, after the cluster has been asked anew.
    pub(super) async fn reach(
        self: &Arc<Self>,
        effort: &mut Effort<'_>,
        node: &Arc<Node>,
    ) -> Result<Option<Handle>, Error> {
        if let Some(handle) = node.shared.handle() {
            return Ok(Some(handle));
        }
        match effort.spend(node.shared.join()).await? {
            Ok(connection) => Ok(Some(Handle::to(connection))),
            Err(error) if is_worth_a_retry(&error) => {
                effort.failed(error).await?;
                self.look_again(effort).await?;
                Ok(None)
            }
            Err(error) => Err(Error::connecting(error)),
        }
    }

    /// Asks the cluster anew. That nobody answers is for the caller to live with; that somebody refuses is not.
    pub(super) async fn look_again(self: &Arc<Self>, effort: &mut Effort<'_>) -> Result<(), Error> {
        match effort.spend(self.renewed()).await? {
            Err(error) if is_worth_a_retry(&error) => effort.failed(error).await,
            result => result.map_err(Error::connecting),
        }
    }
}

impl Way {
    pub(super) fn of(concern: Concern) -> Result<Way, Error> {
        let to = match concern {
            Concern::Slot(slot) => To::Slot(slot),
            Concern::Anyone => To::Anyone,
            Concern::Several => return Err(Error::cross_slot()),
            Concern::Everyone => return Err(Error::refused(EVERYONE)),
        };
        Ok(Way { to, is_asked: false })
    }

    /// Where `redirect` leads to; home if it does not say.
    pub(super) fn after(&self, redirect: Redirect) -> Way {
        let (address, is_asked) = match redirect {
            Redirect::Moved(Some(address)) => (address, false),
            Redirect::Ask(address) => (address, true),
            Redirect::Moved(None) | Redirect::Again | Redirect::Stale => return self.clone(),
        };
        Way {
            to: To::At(address),
            is_asked,
        }
    }
}

impl Job<'_> {
    fn request(&self, is_asked: bool) -> Request<'_> {
        match self {
            Job::Command(cmd) if is_asked => Request::Asked(cmd),
            Job::Command(cmd) => Request::Command(cmd),
            Job::Transaction(pipeline) => Request::Transaction(pipeline, is_asked),
            Job::Script(commands) if is_asked => Request::Asked(&commands.run),
            Job::Script(commands) => Request::Command(&commands.run),
        }
    }
}

/// What all its commands together concern. Those that count writes go where the others go.
fn concern_of(pipeline: &Pipeline) -> Concern {
    let concerns = pipeline
        .cmd_iter()
        .filter(|cmd| !counts_writes(cmd))
        .map(Concern::of);
    concerns.fold(Concern::Anyone, Concern::and)
}

fn counts_writes(cmd: &Cmd) -> bool {
    let name = cmd.args_iter().next();
    let is_one = |name: &[u8]| name.eq_ignore_ascii_case(b"WAIT") || name.eq_ignore_ascii_case(b"WAITAOF");
    matches!(name, Some(redis::Arg::Simple(name)) if is_one(name))
}

/// Whether some of the commands have been run although others were not.
fn is_partly_run(work: &Work, error: &Error) -> bool {
    let Work::Pipeline(pipeline) = work else {
        return false;
    };
    let refused = error.redis().and_then(|error| error.clone().into_server_errors());
    let commands = pipeline.cmd_iter().filter(|cmd| !counts_writes(cmd)).count();
    refused.is_some_and(|refused| refused.len() < commands)
}

fn is_unknown_script(error: &Error) -> bool {
    let no_script = ErrorKind::Server(ServerErrorKind::NoScript);
    error.redis().is_some_and(|error| error.kind() == no_script)
}
