//! An answer whose caller is gone: to the sink, back to where it was taken from, or counted as lost.

use bequest::Context;
use redis::{Cmd, Value};

use super::call::Work;
use super::pool::Pool;
use crate::command::{End, Taken};
use crate::options::Orphan;

/// The reply does not have the shape that its command should have.
pub(super) struct Lost;

/// Finds a place for `reply`, which nobody waits for any more.
pub(super) async fn settle(pool: &Pool, work: Work, reply: Value) {
    // A pipeline took nothing: it was admitted for its `WAIT` alone.
    let Ok((command, blocking)) = work.into_command() else {
        return;
    };
    if reply == Value::Nil {
        return;
    }
    if let Some(sink) = &pool.settings.orphans {
        sink(Orphan { command, reply });
        pool.counters.handed_over.add();
        return;
    }
    match undo(blocking.taken, reply) {
        Ok(None) => {}
        Ok(Some(cmd)) if put_back(pool, &cmd).await => pool.counters.put_back.add(),
        Ok(Some(_)) | Err(Lost) => pool.counters.lost.add(),
    }
}

/// Once: a second try might put it back twice.
async fn put_back(pool: &Pool, cmd: &Cmd) -> bool {
    let limited = Context::background().with_timeout(pool.settings.unblock_limit);
    pool.back.put(&limited, cmd).await.is_ok()
}

/// The command that undoes what was taken; none if nothing was.
fn undo(taken: Taken, reply: Value) -> Result<Option<Cmd>, Lost> {
    let Value::Array(mut parts) = reply else {
        return if taken == Taken::Nothing {
            Ok(None)
        } else {
            Err(Lost)
        };
    };
    let cmd = match taken {
        Taken::Nothing => return Ok(None),
        Taken::Element(end) => {
            let [key, element] = take(parts)?;
            push(end, key, vec![element])?
        }
        Taken::Elements(end) => {
            let Some(Value::Array(elements)) = parts.pop() else {
                return Err(Lost);
            };
            let [key] = take(parts)?;
            // The last one taken was the innermost, so it goes back first.
            push(end, key, elements.into_iter().rev().collect())?
        }
        Taken::Member => {
            let [key, member, score] = take(parts)?;
            add(key, vec![(member, score)])?
        }
        Taken::Members => {
            let Some(Value::Array(members)) = parts.pop() else {
                return Err(Lost);
            };
            let [key] = take(parts)?;
            let pairs: Result<_, Lost> = members.into_iter().map(pair).collect();
            add(key, pairs?)?
        }
    };
    Ok(Some(cmd))
}

fn push(end: End, key: Value, elements: Vec<Value>) -> Result<Cmd, Lost> {
    let mut cmd = redis::cmd(match end {
        End::Left => "LPUSH",
        End::Right => "RPUSH",
    });
    cmd.arg(bytes(key)?);
    for element in elements {
        cmd.arg(bytes(element)?);
    }
    Ok(cmd)
}

/// A member that somebody has added anew meanwhile keeps its new score.
fn add(key: Value, members: Vec<(Value, Value)>) -> Result<Cmd, Lost> {
    let mut cmd = redis::cmd("ZADD");
    cmd.arg(bytes(key)?).arg("NX");
    for (member, score) in members {
        cmd.arg(bytes(score)?).arg(bytes(member)?);
    }
    Ok(cmd)
}

fn pair(member_and_score: Value) -> Result<(Value, Value), Lost> {
    let Value::Array(parts) = member_and_score else {
        return Err(Lost);
    };
    let [member, score] = take(parts)?;
    Ok((member, score))
}

fn take<const N: usize>(parts: Vec<Value>) -> Result<[Value; N], Lost> {
    parts.try_into().map_err(|_| Lost)
}

/// As the server sent it.
fn bytes(value: Value) -> Result<Vec<u8>, Lost> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        Value::Int(number) => Ok(number.to_string().into_bytes()),
        Value::Double(number) => Ok(number.to_string().into_bytes()),
        _ => Err(Lost),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn packed(taken: Taken, reply: Vec<Value>) -> String {
        let cmd = undo(taken, Value::Array(reply))
            .ok()
            .flatten()
            .expect("something to undo");
        let packed = String::from_utf8(cmd.get_packed_command()).unwrap();
        let words: Vec<_> = packed.split("\r\n").skip(2).step_by(2).collect();
        words.join(" ").trim_end().to_owned()
    }

    #[test]
    fn elements_go_back_to_the_end_they_came_from() {
        let one = || vec![text("list"), text("a")];
        assert_eq!(packed(Taken::Element(End::Left), one()), "LPUSH list a");
        assert_eq!(packed(Taken::Element(End::Right), one()), "RPUSH list a");
        let two = || vec![text("list"), Value::Array(vec![text("a"), text("b")])];
        assert_eq!(packed(Taken::Elements(End::Left), two()), "LPUSH list b a");
        assert_eq!(packed(Taken::Elements(End::Right), two()), "RPUSH list b a");
    }

    #[test]
    fn members_go_back_with_their_scores() {
        assert_eq!(
            packed(Taken::Member, vec![text("z"), text("m"), Value::Double(1.5)]),
            "ZADD z NX 1.5 m"
        );
        let pair = |member, score| Value::Array(vec![text(member), text(score)]);
        let two = vec![text("z"), Value::Array(vec![pair("m", "1"), pair("n", "inf")])];
        assert_eq!(packed(Taken::Members, two), "ZADD z NX 1 m inf n");
    }

    #[test]
    fn a_reply_of_another_shape_is_said_to_be_lost() {
        assert!(undo(Taken::Element(End::Left), text("a")).is_err());
        assert!(undo(Taken::Member, Value::Array(vec![text("a")])).is_err());
        assert!(matches!(undo(Taken::Nothing, text("moved")), Ok(None)));
    }
}
