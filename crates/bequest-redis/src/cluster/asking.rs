//! Requests to a node that may send them elsewhere, or that is asked to run what is not its own yet (`ASKING`).
//!
//! The driver writes each request whole, so nothing comes between `ASKING` and what it is for.

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, Pipeline, RedisFuture, RedisResult, Value};

/// One command, asked.
pub(crate) async fn one(driver: &mut MultiplexedConnection, cmd: &Cmd) -> RedisResult<Value> {
    let mut asked = redis::pipe();
    asked.cmd("ASKING").add_command(cmd.clone());
    let mut replies = driver.send_packed_commands(&asked, 1, 1).await?;
    replies.pop().unwrap_or(Value::Nil).extract_error()
}

/// Several commands, each with its reply or its error, in a list.
pub(crate) async fn each(
    driver: &mut MultiplexedConnection,
    cmds: &[&Cmd],
    is_asked: bool,
) -> RedisResult<Value> {
    let mut all = redis::pipe();
    for cmd in cmds {
        if is_asked {
            all.cmd("ASKING");
        }
        all.add_command((*cmd).clone());
    }
    let mut replies = driver.send_packed_commands(&all, 0, all.len()).await?;
    if is_asked {
        replies = replies.into_iter().skip(1).step_by(2).collect();
    }
    Ok(Value::Array(replies))
}

/// A transaction. Its first error is the error of the whole, which then has not run.
pub(crate) async fn transaction(
    driver: &mut MultiplexedConnection,
    pipeline: &Pipeline,
    is_asked: bool,
) -> RedisResult<Value> {
    let mut all = redis::pipe();
    if is_asked {
        all.cmd("ASKING"); // holds for the whole transaction
    }
    all.cmd("MULTI");
    for cmd in pipeline.cmd_iter() {
        all.add_command(cmd.clone());
    }
    all.cmd("EXEC");
    let mut replies = driver.send_packed_commands(&all, 0, all.len()).await?;
    let exec = replies.pop().unwrap_or(Value::Nil);
    for reply in replies {
        if matches!(reply, Value::ServerError(_)) {
            reply.extract_error()?;
        }
    }
    if matches!(exec, Value::ServerError(_)) {
        return exec.extract_error();
    }
    composed(pipeline, vec![exec]).await
}

/// What the pipeline makes of these replies: it leaves out what is to be ignored, and gathers errors.
pub(crate) async fn composed(pipeline: &Pipeline, replies: Vec<Value>) -> RedisResult<Value> {
    pipeline.query_async(&mut Replies(replies)).await
}

/// A connection that has its replies already.
struct Replies(Vec<Value>);

impl ConnectionLike for Replies {
    fn req_packed_command<'a>(&'a mut self, _: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(std::future::ready(Ok(Value::Array(std::mem::take(&mut self.0)))))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        _: &'a Pipeline,
        _: usize,
        _: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(std::future::ready(Ok(std::mem::take(&mut self.0))))
    }

    fn get_db(&self) -> i64 {
        0
    }
}
