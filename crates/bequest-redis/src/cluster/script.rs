//! Scripts: the commands that the driver would send, so that they can be sent to the node that has the keys.

use std::future::Future;
use std::pin::pin;
use std::task::{Context as TaskContext, Poll, Waker};

use redis::aio::ConnectionLike;
use redis::{Cmd, Pipeline, RedisFuture, ScriptInvocation, Value};

use crate::endpoint::unfit;

/// A script as commands: by its hash, and to make it known.
pub(super) struct Commands {
    pub(super) run: Cmd,
    pub(super) load: Cmd,
}

impl Commands {
    pub(super) fn of(script: &ScriptInvocation<'_>) -> Commands {
        let run = recorded(async |recorder| {
            // It fails: it is recorded, not sent.
            let _ = script.invoke_async::<Value>(recorder).await;
        });
        let load = recorded(async |recorder| {
            let _ = script.load_async(recorder).await;
        });
        Commands { run, load }
    }
}

/// A connection on which the first command is kept, and fails.
#[derive(Default)]
struct Recorder(Option<Cmd>);

fn recorded(send: impl AsyncFnOnce(&mut Recorder)) -> Cmd {
    let mut recorder = Recorder::default();
    {
        let mut sending = pin!(send(&mut recorder));
        // Nothing in it waits.
        let sent = sending.as_mut().poll(&mut TaskContext::from_waker(Waker::noop()));
        debug_assert!(matches!(sent, Poll::Ready(())));
    }
    recorder.0.unwrap_or_default()
}

impl ConnectionLike for Recorder {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        self.0.get_or_insert_with(|| cmd.clone());
        Box::pin(std::future::ready(Err(unfit("it is recorded, not sent"))))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        _: &'a Pipeline,
        _: usize,
        _: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(std::future::ready(Err(unfit("it is recorded, not sent"))))
    }

    fn get_db(&self) -> i64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_known_as_commands() {
        let script = redis::Script::new("return 1");
        let mut invocation = script.key("k");
        let commands = Commands::of(invocation.arg("a"));
        let text = |cmd: &Cmd| String::from_utf8(cmd.get_packed_command()).unwrap();
        assert_eq!(
            text(&commands.run),
            format!(
                "*5\r\n$7\r\nEVALSHA\r\n$40\r\n{}\r\n$1\r\n1\r\n$1\r\nk\r\n$1\r\na\r\n",
                script.get_hash()
            )
        );
        assert_eq!(
            text(&commands.load),
            "*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n$8\r\nreturn 1\r\n"
        );
    }
}
