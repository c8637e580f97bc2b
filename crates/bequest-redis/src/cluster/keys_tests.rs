//! The table of keys, held against what a server says of its own commands.

use bequest::Context;
use redis::Value;

use super::*;
use crate::Client;

static ROOT: Context = Context::background();

fn command(text: &str) -> Cmd {
    let mut cmd = Cmd::new();
    text.split(' ').for_each(|word| {
        cmd.arg(word);
    });
    cmd
}

fn keys(cmd: &Cmd) -> Vec<usize> {
    let mut places = Vec::new();
    Keys::of(cmd).visit(cmd, |place| places.push(place));
    places
}

/// What a server says of one of its commands.
struct Row {
    /// With the subcommand, if there is one.
    name: String,
    arity: i64,
    has_movable_keys: bool,
    first: i64,
    last: i64,
    step: i64,
}

fn rows(reply: Value, rows: &mut Vec<Row>) {
    let Value::Array(all) = reply else {
        panic!("{reply:?}")
    };
    for row in all {
        let Value::Array(mut row) = row else {
            panic!("{row:?}")
        };
        let subcommands = row.swap_remove(9);
        let number = |value: &Value| redis::from_redis_value_ref::<i64>(value).unwrap();
        let flags: Vec<String> = redis::from_redis_value_ref(&row[2]).unwrap();
        let name: String = redis::from_redis_value_ref(&row[0]).unwrap();
        if matches!(&subcommands, Value::Array(some) if !some.is_empty()) {
            self::rows(subcommands, rows);
            continue;
        }
        rows.push(Row {
            name: name.replace('|', " "),
            arity: number(&row[1]),
            has_movable_keys: flags.iter().any(|flag| flag == "movablekeys"),
            first: number(&row[3]),
            last: number(&row[4]),
            step: number(&row[5]),
        });
    }
}

impl Row {
    /// The places of the keys in a command of `length` words.
    fn keys(&self, length: usize) -> Vec<usize> {
        if self.first == 0 {
            return Vec::new();
        }
        let last = if self.last < 0 {
            length as i64 + self.last
        } else {
            self.last
        };
        (self.first..=last)
            .step_by(self.step as usize)
            .map(|place| place as usize)
            .collect()
    }
}

#[tokio::test]
async fn keys_are_where_the_server_says() {
    let Some(server) = bequest_test::servers::Redis::start_or_leave_out() else {
        return;
    };
    let client = Client::open(server.url()).unwrap();
    let mut all = Vec::new();
    let reply = client.cmd(&ROOT, &redis::cmd("COMMAND")).await.unwrap();
    rows(reply, &mut all);
    assert!(all.len() > 200, "{}", all.len());
    let mut wrong = Vec::new();
    for row in all.iter().filter(|row| !row.has_movable_keys) {
        // At least as long as it must be, and of a length with which pairs come out even.
        let words = row.name.split(' ').count();
        let least = usize::try_from(row.arity.abs()).unwrap();
        let length = if row.arity < 0 { (least + 2) | 1 } else { least };
        let mut cmd = command(&row.name);
        for place in words..length {
            cmd.arg(format!("k{place}"));
        }
        let (ours, theirs) = (keys(&cmd), row.keys(length));
        if ours != theirs {
            wrong.push(format!(
                "{} of {length} words: {ours:?}, not {theirs:?}",
                row.name
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Where the keys move with the arguments, the server is asked for each of these.
#[tokio::test]
async fn moving_keys_are_found_as_the_server_does() {
    let Some(server) = bequest_test::servers::Redis::start_or_leave_out() else {
        return;
    };
    let client = Client::open(server.url()).unwrap();
    let texts = [
        "eval return 2 a b c",
        "EVALSHA hash 1 a b",
        "FCALL f 1 a b",
        "EVAL_RO return 0 a",
        "LMPOP 2 a b LEFT",
        "BLMPOP 0 2 a b LEFT COUNT 1",
        "ZMPOP 1 a MIN",
        "BZMPOP 0.5 1 a MIN",
        "SINTERCARD 2 a b LIMIT 1",
        "ZUNION 2 a b WEIGHTS 1 2",
        "ZUNIONSTORE d 2 a b",
        "ZINTERSTORE d 1 a",
        "ZDIFFSTORE d 2 a b",
        "ZINTERCARD 2 a b",
        "XREAD COUNT 2 BLOCK 10 STREAMS a b 0 0",
        "XREADGROUP GROUP g c STREAMS a >",
        "SORT a BY x STORE d",
        "SORT a LIMIT 0 1",
        "GEORADIUS a 1 1 1 m STORE d",
        "GEORADIUSBYMEMBER a m 1 m STOREDIST d",
        "MIGRATE host 1 a 0 5",
        "BLPOP a b 0",
        "MSET a 1 b 2",
        "BITOP AND d a b",
        "OBJECT ENCODING a",
        "XINFO STREAM a",
        "XGROUP CREATE a g 0",
        "MEMORY USAGE a",
        "LMOVE a b LEFT LEFT",
        "COPY a b",
        "ZRANGESTORE d a 0 1",
        "GEOSEARCHSTORE d a FROMMEMBER m BYRADIUS 1 m",
        "LCS a b",
        "PFMERGE d a b",
    ];
    for text in texts {
        let cmd = command(text);
        let mut question = command("COMMAND GETKEYS");
        text.split(' ').for_each(|word| {
            question.arg(word);
        });
        let mut theirs: Vec<String> = match client.cmd(&ROOT, &question).await {
            Ok(keys) => keys,
            Err(error) if error.to_string().contains("no key arguments") => Vec::new(),
            Err(error) => panic!("{text}: {error}"),
        };
        let mut ours: Vec<_> = keys(&cmd)
            .into_iter()
            .map(|place| String::from_utf8(argument(&cmd, place).unwrap().to_vec()).unwrap())
            .collect();
        theirs.sort();
        ours.sort();
        assert_eq!(ours, theirs, "{text}");
    }
}

#[test]
fn several_keys_are_of_one_slot_or_not() {
    let slot = |key: &str| Concern::Slot(Slot::of(key.as_bytes()));
    assert_eq!(Concern::of(&command("GET a")), slot("a"));
    assert_eq!(Concern::of(&command("module.get a b")), slot("a"));
    assert_eq!(Concern::of(&command("MGET {a}1 {a}2")), slot("a"));
    assert_eq!(Concern::of(&command("MGET a b")), Concern::Several);
    assert_eq!(Concern::of(&command("BLPOP a b 0")), Concern::Several);
    assert_eq!(Concern::of(&command("EVAL text 0")), Concern::Anyone);
    assert_eq!(Concern::of(&command("PING")), Concern::Anyone);
    assert_eq!(Concern::of(&Cmd::new()), Concern::Anyone);
    let whole = [
        "DBSIZE",
        "SCAN 0",
        "flushall",
        "script load text",
        "CONFIG SET a b",
    ];
    for text in whole {
        assert_eq!(Concern::of(&command(text)), Concern::Everyone, "{text}");
    }
    assert_eq!(Concern::of(&command("CONFIG GET a")), Concern::Anyone);
    let mut many = redis::cmd("MIGRATE");
    many.arg("host")
        .arg(1)
        .arg("")
        .arg(0)
        .arg(5)
        .arg("KEYS")
        .arg("{a}1")
        .arg("{a}2");
    assert_eq!(Concern::of(&many), slot("a"));
}

/// What is no number of keys, or more than there are, is for the server to refuse.
#[test]
fn absurd_counts_are_left_to_the_server() {
    for text in [
        "EVAL text x a",
        "EVAL text -1 a",
        "EVAL text 18446744073709551615 a",
        "LMPOP",
        "XREAD STREAMS",
        "ZUNIONSTORE d",
        "SORT a STORE",
        "MIGRATE host",
    ] {
        let cmd = command(text);
        let all = keys(&cmd);
        assert!(
            all.iter().all(|place| *place < cmd.args_iter().len()),
            "{text}: {all:?}"
        );
    }
}
