//! Which arguments of a command are keys, and so which slot it belongs to.
//!
//! Not here: which node has that slot, and whether a command may be sent at all (`command.rs`).
//!
//! A command that is not known, such as one of a module, is taken to have its key as its first argument, as nearly all
//! have. The tests hold the table against the server's own.

use redis::{Arg, Cmd};

use super::slot::Slot;

/// To which of the nodes a command goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Concern {
    /// To the one that has this slot.
    Slot(Slot),
    /// To any: it has no keys, and all nodes answer alike.
    Anyone,
    /// Its keys are in several slots, so no one node can do it.
    Several,
    /// It is about a whole server, so one node's answer would be a part that looks like the whole.
    Everyone,
}

/// Where the keys are. Argument 0 is the name of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keys {
    /// The first argument.
    First,
    /// The first and the second.
    FirstTwo,
    /// All from this one on.
    From(usize),
    /// All from the first on but the last.
    AllButLast,
    /// Every other one, from the first on.
    EveryOther,
    /// As many as the argument at this place says, after it.
    Counted(usize),
    /// The first, and as many as the second says, after it.
    FirstAndCounted,
    /// The first half of what comes after `STREAMS`.
    Streams,
    /// The second, after a subcommand.
    Second,
    /// The first, and what comes after `STORE` or `STOREDIST`.
    FirstAndStore,
    /// The third if it is not empty, and all after `KEYS`.
    Migrate,
    /// None, and it does not matter who answers.
    None,
    /// None; it is about a whole server.
    Server,
}

impl Concern {
    pub(crate) fn of(cmd: &Cmd) -> Concern {
        match Keys::of(cmd) {
            Keys::None => Concern::Anyone,
            Keys::Server => Concern::Everyone,
            keys => {
                let mut concern = Concern::Anyone;
                keys.visit(cmd, |place| {
                    if let Some(key) = argument(cmd, place) {
                        concern = concern.and(Concern::Slot(Slot::of(key)));
                    }
                });
                concern
            }
        }
    }

    /// The concern of two commands that are to run together.
    pub(crate) fn and(self, other: Concern) -> Concern {
        match (self, other) {
            (Concern::Everyone, _) | (_, Concern::Everyone) => Concern::Everyone,
            (Concern::Anyone, one) | (one, Concern::Anyone) => one,
            (one, same) if one == same => one,
            _ => Concern::Several,
        }
    }
}

impl Keys {
    fn of(cmd: &Cmd) -> Keys {
        let (first, second) = (upper(cmd, 0), upper(cmd, 1));
        match first.as_slice() {
            b"GET" | b"SET" => Keys::First, // the most frequent ones, before the long list
            b"DEL" | b"UNLINK" | b"EXISTS" | b"TOUCH" | b"MGET" | b"PFCOUNT" | b"PFMERGE" | b"SDIFF"
            | b"SINTER" | b"SUNION" | b"SDIFFSTORE" | b"SINTERSTORE" | b"SUNIONSTORE" | b"WATCH"
            | b"SSUBSCRIBE" | b"SUNSUBSCRIBE" => Keys::From(1),
            b"BLPOP" | b"BRPOP" | b"BZPOPMIN" | b"BZPOPMAX" => Keys::AllButLast,
            b"MSET" | b"MSETNX" => Keys::EveryOther,
            b"RENAME" | b"RENAMENX" | b"COPY" | b"LMOVE" | b"BLMOVE" | b"RPOPLPUSH" | b"BRPOPLPUSH"
            | b"SMOVE" | b"ZRANGESTORE" | b"LCS" | b"GEOSEARCHSTORE" => Keys::FirstTwo,
            b"LMPOP" | b"ZMPOP" | b"SINTERCARD" | b"ZINTERCARD" | b"ZDIFF" | b"ZINTER" | b"ZUNION" => {
                Keys::Counted(1)
            }
            b"BLMPOP" | b"BZMPOP" | b"EVAL" | b"EVALSHA" | b"EVAL_RO" | b"EVALSHA_RO" | b"FCALL"
            | b"FCALL_RO" => Keys::Counted(2),
            b"ZDIFFSTORE" | b"ZINTERSTORE" | b"ZUNIONSTORE" => Keys::FirstAndCounted,
            b"XREAD" | b"XREADGROUP" => Keys::Streams,
            b"SORT" | b"GEORADIUS" | b"GEORADIUSBYMEMBER" => Keys::FirstAndStore,
            b"MIGRATE" => Keys::Migrate,
            b"BITOP" => Keys::From(2),
            b"PFDEBUG" => Keys::Second,
            b"OBJECT" | b"XGROUP" | b"XINFO" => subcommand(&second),
            b"MEMORY" if second == b"USAGE" => Keys::Second,
            b"PING" | b"ECHO" | b"TIME" | b"LOLWUT" | b"PUBLISH" | b"CLUSTER" | b"ASKING" | b"HELLO"
            | b"AUTH" | b"RESET" | b"QUIT" | b"PFSELFTEST" | b"READONLY" | b"READWRITE" | b"SELECT"
            | b"SUBSCRIBE" | b"PSUBSCRIBE" | b"UNSUBSCRIBE" | b"PUNSUBSCRIBE" | b"MULTI" | b"EXEC"
            | b"DISCARD" | b"UNWATCH" | b"COMMAND" => Keys::None,
            b"CONFIG" if second == b"GET" => Keys::None,
            b"SCRIPT" if second == b"HELP" || second == b"DEBUG" => Keys::None,
            b"ACL" if matches!(second.as_slice(), b"WHOAMI" | b"GENPASS" | b"CAT") => Keys::None,
            b"CLIENT" if second == b"ID" || second == b"GETNAME" || second == b"INFO" => Keys::None,
            b"FUNCTION" if second == b"LIST" || second == b"DUMP" || second == b"HELP" => Keys::None,
            b"DBSIZE" | b"FLUSHALL" | b"FLUSHDB" | b"KEYS" | b"SCAN" | b"RANDOMKEY" | b"INFO" | b"CONFIG"
            | b"SCRIPT" | b"FUNCTION" | b"ACL" | b"CLIENT" | b"MODULE" | b"SLOWLOG" | b"LATENCY"
            | b"MEMORY" | b"PUBSUB" | b"SAVE" | b"BGSAVE" | b"BGREWRITEAOF" | b"LASTSAVE" | b"SHUTDOWN"
            | b"SLAVEOF" | b"REPLICAOF" | b"FAILOVER" | b"ROLE" | b"DEBUG" | b"SWAPDB" | b"MONITOR"
            | b"SYNC" | b"PSYNC" | b"REPLCONF" | b"WAIT" | b"WAITAOF" => Keys::Server,
            _ => Keys::First,
        }
    }

    /// Calls `found` with the place of each key.
    fn visit(self, cmd: &Cmd, mut found: impl FnMut(usize)) {
        let length = cmd.args_iter().len();
        let mut all = |places: &mut dyn Iterator<Item = usize>| places.for_each(&mut found);
        match self {
            Keys::None | Keys::Server => {}
            Keys::First => all(&mut (1..length.min(2))),
            Keys::FirstTwo => all(&mut (1..length.min(3))),
            Keys::From(first) => all(&mut (first..length)),
            Keys::AllButLast => all(&mut (1..length.saturating_sub(1))),
            Keys::EveryOther => all(&mut (1..length).step_by(2)),
            Keys::Second => all(&mut (2..length.min(3))),
            Keys::Counted(place) => all(&mut counted(cmd, place)),
            Keys::FirstAndCounted => all(&mut (1..2).chain(counted(cmd, 2))),
            Keys::Streams => all(&mut streams(cmd)),
            Keys::FirstAndStore => all(&mut (1..length.min(2)).chain(stored(cmd))),
            Keys::Migrate => all(&mut migrated(cmd)),
        }
    }
}

/// `HELP` has no key; everything else has it after the subcommand.
fn subcommand(name: &[u8]) -> Keys {
    if name == b"HELP" { Keys::None } else { Keys::Second }
}

fn counted(cmd: &Cmd, place: usize) -> std::ops::Range<usize> {
    let count = argument(cmd, place).and_then(|text| std::str::from_utf8(text).ok()?.parse::<usize>().ok());
    let end = (place + 1).saturating_add(count.unwrap_or(0));
    place + 1..end.min(cmd.args_iter().len())
}

fn streams(cmd: &Cmd) -> std::ops::Range<usize> {
    let length = cmd.args_iter().len();
    let after = (1..length).find(|place| upper(cmd, *place) == b"STREAMS");
    let first = after.map_or(length, |place| place + 1);
    first..first + (length - first) / 2
}

fn stored(cmd: &Cmd) -> impl Iterator<Item = usize> {
    let length = cmd.args_iter().len();
    (2..length)
        .filter(move |place| matches!(upper(cmd, *place).as_slice(), b"STORE" | b"STOREDIST"))
        .map(|place| place + 1)
        .filter(move |place| *place < length)
}

fn migrated(cmd: &Cmd) -> impl Iterator<Item = usize> {
    let length = cmd.args_iter().len();
    let one = argument(cmd, 3).is_some_and(|key| !key.is_empty()).then_some(3);
    let many = (6..length).find(|place| upper(cmd, *place) == b"KEYS");
    one.into_iter()
        .chain(many.map_or(length, |place| place + 1)..length)
}

fn argument(cmd: &Cmd, place: usize) -> Option<&[u8]> {
    match cmd.args_iter().nth(place)? {
        Arg::Simple(bytes) => Some(bytes),
        _ => None,
    }
}

/// A word in capitals; nothing if it is longer than any that is looked for.
fn upper(cmd: &Cmd, place: usize) -> Vec<u8> {
    let word = argument(cmd, place).filter(|word| word.len() <= 20);
    word.unwrap_or_default().to_ascii_uppercase()
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
