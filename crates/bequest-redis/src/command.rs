//! What kind of command it is, told by its name and arguments: which connection it may use, where its own timeout
//! stands, and what it takes that would have to be put back.

use std::time::Duration;

use redis::{Arg, Cmd, Pipeline};

/// Where a command may run.
#[derive(Debug, PartialEq)]
pub(crate) enum Class {
    /// On the connection that all share.
    Plain,
    /// On one of its own.
    Blocking(Blocking),
    /// Nowhere, and why.
    Refused(&'static str),
}

/// What is known of a blocking command.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Blocking {
    /// The argument that says how long the server may wait; the name of the command is argument 0.
    pub(crate) timeout: Option<Timeout>,
    pub(crate) taken: Taken,
    /// Whether `ASKING` goes before it: the node does not have its slot yet.
    pub(crate) is_asked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Timeout {
    argument: usize,
    unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Unit {
    Seconds,
    Milliseconds,
}

/// What a blocking command takes out of the server's hands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Taken {
    /// Nothing, or we do not know.
    #[default]
    Nothing,
    /// The reply is the key and the element.
    Element(End),
    /// The reply is the key and the elements in the order in which they were taken.
    Elements(End),
    /// The reply is the key, the member and its score.
    Member,
    /// The reply is the key and pairs of member and score.
    Members,
}

/// The end of a list.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum End {
    Left,
    Right,
}

const STATE: &str = "it would change the connection that all calls share";
const SUBSCRIBES: &str = "a subscription has a connection of its own: use `subscribe`";
const COUNTS_ITS_OWN: &str = "it counts the writes of its own connection: put it into a pipeline with them";
const ALONE: &str =
    "a blocking command in a pipeline could not be ended without harm to the others: send it alone";

impl Class {
    pub(crate) fn of(cmd: &Cmd) -> Class {
        let Some(name) = word(cmd, 0) else {
            return Class::Plain;
        };
        let seconds = |argument, taken| Class::blocking(argument, Unit::Seconds, taken);
        let last = cmd.args_iter().len().saturating_sub(1);
        match name.as_bytes() {
            b"BLPOP" => seconds(last, Taken::Element(End::Left)),
            b"BRPOP" => seconds(last, Taken::Element(End::Right)),
            b"BLMOVE" | b"BRPOPLPUSH" => seconds(last, Taken::Nothing),
            b"BLMPOP" => seconds(1, elements(cmd)),
            b"BZPOPMIN" | b"BZPOPMAX" => seconds(last, Taken::Member),
            b"BZMPOP" => seconds(1, Taken::Members),
            b"XREAD" | b"XREADGROUP" => reading(cmd),
            b"WAIT" | b"WAITAOF" => Class::Refused(COUNTS_ITS_OWN),
            b"SUBSCRIBE" | b"PSUBSCRIBE" | b"SSUBSCRIBE" | b"UNSUBSCRIBE" | b"PUNSUBSCRIBE"
            | b"SUNSUBSCRIBE" => Class::Refused(SUBSCRIBES),
            b"AUTH" | b"HELLO" | b"RESET" | b"QUIT" | b"SELECT" | b"MULTI" | b"EXEC" | b"DISCARD"
            | b"WATCH" | b"UNWATCH" | b"MONITOR" | b"SYNC" | b"PSYNC" | b"READONLY" | b"READWRITE"
            | b"ASKING" => Class::Refused(STATE),
            b"CLIENT" => match word(cmd, 1).as_ref().map(Word::as_bytes) {
                Some(b"REPLY" | b"TRACKING" | b"CACHING" | b"NO-EVICT" | b"NO-TOUCH" | b"SETNAME") => {
                    Class::Refused(STATE)
                }
                _ => Class::Plain,
            },
            _ => Class::Plain,
        }
    }

    /// A pipeline is as its commands are. In a transaction nothing blocks.
    pub(crate) fn of_pipeline(pipeline: &Pipeline) -> Class {
        let mut whole = Class::Plain;
        for cmd in pipeline.cmd_iter() {
            match Class::of(cmd) {
                Class::Plain => {}
                Class::Blocking(_) if pipeline.is_transaction() => {}
                Class::Blocking(_) => return Class::Refused(ALONE),
                Class::Refused(COUNTS_ITS_OWN) if pipeline.is_transaction() => {}
                Class::Refused(COUNTS_ITS_OWN) => whole = Class::Blocking(Blocking::default()),
                refused @ Class::Refused(_) => return refused,
            }
        }
        whole
    }

    fn blocking(argument: usize, unit: Unit, taken: Taken) -> Class {
        let timeout = Some(Timeout { argument, unit });
        Class::Blocking(Blocking {
            timeout,
            taken,
            is_asked: false,
        })
    }
}

impl Timeout {
    /// How long the command itself is ready to wait, `Duration::MAX` for ever; `None` if it does not say so properly.
    pub(crate) fn of(self, cmd: &Cmd) -> Option<Duration> {
        let number: f64 = std::str::from_utf8(argument(cmd, self.argument)?)
            .ok()?
            .parse()
            .ok()?;
        let seconds = match self.unit {
            Unit::Seconds => number,
            Unit::Milliseconds => number / 1000.0,
        };
        if seconds == 0.0 {
            return Some(Duration::MAX);
        }
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// The same command with another timeout, in whole milliseconds and at least one: zero would be for ever.
    pub(crate) fn set(self, cmd: &Cmd, wait: Duration) -> Cmd {
        let millis = wait.as_nanos().div_ceil(1_000_000).max(1);
        let text = match self.unit {
            Unit::Seconds => format!("{}.{:03}", millis / 1000, millis % 1000),
            Unit::Milliseconds => millis.to_string(),
        };
        let mut changed = Cmd::new();
        for (place, arg) in cmd.args_iter().enumerate() {
            match arg {
                _ if place == self.argument => changed.arg(&text),
                Arg::Simple(bytes) => changed.arg(bytes),
                // A cursor belongs to commands that scan; none of them blocks.
                _ => changed.cursor_arg(0),
            };
        }
        changed
    }
}

/// The direction stands after the keys: `BLMPOP timeout numkeys key [key ...] LEFT|RIGHT`.
fn elements(cmd: &Cmd) -> Taken {
    let keys = argument(cmd, 2).and_then(|keys| std::str::from_utf8(keys).ok()?.parse::<usize>().ok());
    let direction = keys.and_then(|keys| word(cmd, keys.checked_add(3)?));
    match direction.as_ref().map(Word::as_bytes) {
        Some(b"LEFT") => Taken::Elements(End::Left),
        Some(b"RIGHT") => Taken::Elements(End::Right),
        _ => Taken::Nothing, // the server will refuse it
    }
}

/// `XREAD` blocks if it says so before its streams are named.
fn reading(cmd: &Cmd) -> Class {
    for place in 1..cmd.args_iter().len() {
        match word(cmd, place).as_ref().map(Word::as_bytes) {
            Some(b"BLOCK") => return Class::blocking(place + 1, Unit::Milliseconds, Taken::Nothing),
            Some(b"STREAMS") => break,
            _ => {}
        }
    }
    Class::Plain
}

fn argument(cmd: &Cmd, place: usize) -> Option<&[u8]> {
    match cmd.args_iter().nth(place)? {
        Arg::Simple(bytes) => Some(bytes),
        _ => None,
    }
}

/// A short argument in capitals.
struct Word {
    bytes: [u8; 16],
    length: usize,
}

impl Word {
    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

fn word(cmd: &Cmd, place: usize) -> Option<Word> {
    let text = argument(cmd, place)?;
    let mut bytes = [0; 16];
    let start = bytes.get_mut(..text.len())?;
    start.copy_from_slice(text);
    start.make_ascii_uppercase();
    Some(Word {
        bytes,
        length: text.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cmd(text: &str) -> Cmd {
        let mut words = text.split(' ');
        let mut cmd = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            cmd.arg(word);
        });
        cmd
    }

    fn text(cmd: &Cmd) -> String {
        let words = (0..cmd.args_iter().len()).filter_map(|place| argument(cmd, place));
        let words: Vec<_> = words.map(String::from_utf8_lossy).collect();
        words.join(" ")
    }

    fn known(text: &str) -> Blocking {
        match Class::of(&cmd(text)) {
            Class::Blocking(blocking) => blocking,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_timeout_is_found_and_replaced() {
        let rows = [
            ("BLPOP a b 0", Duration::MAX, "BLPOP a b 0.250"),
            ("brpop a 2.5", Duration::from_millis(2500), "brpop a 0.250"),
            (
                "BLMOVE a b LEFT RIGHT 3",
                Duration::from_millis(3000),
                "BLMOVE a b LEFT RIGHT 0.250",
            ),
            (
                "BRPOPLPUSH a b 1",
                Duration::from_millis(1000),
                "BRPOPLPUSH a b 0.250",
            ),
            (
                "BLMPOP 4 2 a b LEFT",
                Duration::from_millis(4000),
                "BLMPOP 0.250 2 a b LEFT",
            ),
            ("BZPOPMIN z 0.1", Duration::from_millis(100), "BZPOPMIN z 0.250"),
            ("BZMPOP 0 1 z MAX", Duration::MAX, "BZMPOP 0.250 1 z MAX"),
            (
                "XREAD COUNT 2 BLOCK 70 STREAMS s $",
                Duration::from_millis(70),
                "XREAD COUNT 2 BLOCK 250 STREAMS s $",
            ),
            (
                "XREADGROUP GROUP g c BLOCK 0 STREAMS s >",
                Duration::MAX,
                "XREADGROUP GROUP g c BLOCK 250 STREAMS s >",
            ),
        ];
        for (before, own, after) in rows {
            let timeout = known(before).timeout.unwrap();
            assert_eq!(timeout.of(&cmd(before)), Some(own), "{before}");
            let changed = timeout.set(&cmd(before), Duration::from_micros(249_001));
            assert_eq!(text(&changed), after);
        }
    }

    #[test]
    fn no_timeout_is_ever_rounded_to_zero() {
        let blpop = cmd("BLPOP a 1");
        let timeout = known("BLPOP a 1").timeout.unwrap();
        assert_eq!(text(&timeout.set(&blpop, Duration::ZERO)), "BLPOP a 0.001");
        assert_eq!(
            text(&timeout.set(&blpop, Duration::from_secs(70))),
            "BLPOP a 70.000"
        );
    }

    #[test]
    fn what_is_no_timeout_is_left_to_the_server() {
        for text in ["BLPOP a b", "BLPOP a -1", "XREAD BLOCK", "BLPOP a NaN"] {
            assert_eq!(known(text).timeout.unwrap().of(&cmd(text)), None, "{text}");
        }
    }

    #[test]
    fn what_is_taken_is_known() {
        assert_eq!(known("BLPOP a 1").taken, Taken::Element(End::Left));
        assert_eq!(known("BRPOP a 1").taken, Taken::Element(End::Right));
        assert_eq!(
            known("BLMPOP 1 1 a RIGHT COUNT 3").taken,
            Taken::Elements(End::Right)
        );
        assert_eq!(known("BZPOPMAX a 1").taken, Taken::Member);
        assert_eq!(known("BZMPOP 1 1 a MIN").taken, Taken::Members);
        assert_eq!(known("BLMOVE a b LEFT LEFT 1").taken, Taken::Nothing);
    }

    #[test]
    fn what_does_not_block_is_plain() {
        for plain in [
            "GET k",
            "XREAD STREAMS BLOCK 0",
            "LPOP l",
            "CLIENT ID",
            "NO.SUCH",
            "SET k BLPOP",
        ] {
            assert_eq!(Class::of(&cmd(plain)), Class::Plain, "{plain}");
        }
        assert_eq!(Class::of(&Cmd::new()), Class::Plain);
    }

    #[test]
    fn what_would_change_the_shared_connection_is_refused() {
        for state in [
            "SELECT 1",
            "multi",
            "EXEC",
            "WATCH k",
            "CLIENT REPLY OFF",
            "client tracking on",
            "RESET",
        ] {
            assert_eq!(Class::of(&cmd(state)), Class::Refused(STATE), "{state}");
        }
        assert_eq!(Class::of(&cmd("subscribe c")), Class::Refused(SUBSCRIBES));
        assert_eq!(Class::of(&cmd("WAIT 1 0")), Class::Refused(COUNTS_ITS_OWN));
    }

    #[test]
    fn a_pipeline_is_as_its_commands_are() {
        let pipeline = |texts: &[&str]| {
            let mut pipeline = redis::pipe();
            for text in texts {
                pipeline.add_command(cmd(text));
            }
            pipeline
        };
        let waits = Class::Blocking(Blocking::default());
        assert_eq!(Class::of_pipeline(&pipeline(&["GET a", "SET b 1"])), Class::Plain);
        assert_eq!(Class::of_pipeline(&pipeline(&["SET b 1", "WAIT 1 100"])), waits);
        assert_eq!(
            Class::of_pipeline(&pipeline(&["GET a", "BLPOP b 0"])),
            Class::Refused(ALONE)
        );
        assert_eq!(
            Class::of_pipeline(&pipeline(&["GET a", "SELECT 1"])),
            Class::Refused(STATE)
        );
        let mut transaction = pipeline(&["GET a", "BLPOP b 0", "WAIT 1 0"]);
        assert_eq!(Class::of_pipeline(transaction.atomic()), Class::Plain);
    }
}
