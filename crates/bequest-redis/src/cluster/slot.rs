//! The slot of a key, and who has which: [Redis Cluster](https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/).

use redis::{RedisError, RedisResult, Value};

use crate::endpoint::unfit;

const COUNT: u16 = 16384;

/// One of the 16384 parts into which the keys are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(u16);

/// Where a node listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// Slots that follow each other and belong to one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: Slot,
    pub(crate) last: Slot,
    pub(crate) primary: Address,
}

impl Slot {
    /// Of a key with a part in braces, that part alone counts: keys with the same one are together.
    pub(crate) fn of(key: &[u8]) -> Slot {
        Slot(crc16::State::<crc16::XMODEM>::calculate(tag(key)) % COUNT)
    }
}

fn tag(key: &[u8]) -> &[u8] {
    let inside = || {
        let open = key.iter().position(|byte| *byte == b'{')? + 1;
        let length = key[open..].iter().position(|byte| *byte == b'}')?;
        (length > 0).then(|| &key[open..open + length])
    };
    inside().unwrap_or(key)
}

impl Address {
    /// `host:port` as a node says it. Without a host it means the host at which it was asked.
    pub(crate) fn parse(text: &str, asked: &str) -> Option<Address> {
        let (host, port) = text.rsplit_once(':')?;
        Address::new(host, port.parse().ok()?, asked)
    }

    fn new(host: &str, port: u16, asked: &str) -> Option<Address> {
        match host {
            "?" => None, // the node does not know itself
            "" => Some(asked),
            host => Some(host),
        }
        .filter(|_| port != 0)
        .map(|host| Address {
            host: host.to_owned(),
            port,
        })
    }
}

/// What `CLUSTER SLOTS` says; `asked` is the host at which it was asked. What is not understood is left out.
pub(crate) fn parse(reply: Value, asked: &str) -> RedisResult<Vec<Range>> {
    let Value::Array(rows) = reply else {
        return Err(unfit("the reply to `CLUSTER SLOTS` is no list"));
    };
    let mut ranges: Vec<Range> = rows.into_iter().filter_map(|row| range(row, asked)).collect();
    if ranges.is_empty() {
        // It may have none yet, or may have been thrown out. Others know more.
        return Err(no_slots());
    }
    ranges.sort_by_key(|range| range.first);
    Ok(ranges)
}

fn no_slots() -> RedisError {
    std::io::Error::new(std::io::ErrorKind::NotConnected, "the node knows of no slots").into()
}

/// `[first, last, [host, port, …], replicas …]`
fn range(row: Value, asked: &str) -> Option<Range> {
    let Value::Array(mut row) = row else { return None };
    if row.len() < 3 {
        return None;
    }
    let Value::Array(primary) = row.swap_remove(2) else {
        return None;
    };
    let host = match primary.first()? {
        Value::Nil => String::new(),
        host => redis::from_redis_value_ref(host).ok()?,
    };
    let port = number(primary.get(1)?)?;
    let slot = |value: &Value| number(value).filter(|slot| *slot < COUNT).map(Slot);
    Some(Range {
        first: slot(&row[0])?,
        last: slot(&row[1])?,
        primary: Address::new(&host, port, asked)?,
    })
}

/// A small number. The driver would cut a large one down to size.
fn number(value: &Value) -> Option<u16> {
    match value {
        Value::Int(number) => u16::try_from(*number).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The specification's own check value, and what a server answers to `CLUSTER KEYSLOT`.
    #[test]
    fn slots_are_those_of_the_specification() {
        let rows: [(&[u8], u16); 8] = [
            (b"123456789", 12739),
            (b"foo", 12182),
            (b"", 0),
            (b"{foo}.a", 12182),
            (b"a{foo}{bar}", 12182),
            (b"{}foo", 9500),
            (b"foo{", 7673),
            (b"{{foo}", 13308),
        ];
        for (key, slot) in rows {
            assert_eq!(Slot::of(key), Slot(slot), "{}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn a_node_without_a_host_is_where_it_was_asked() {
        let at = |host: &str, port| {
            Some(Address {
                host: host.into(),
                port,
            })
        };
        assert_eq!(Address::parse("10.0.0.1:7000", "asked"), at("10.0.0.1", 7000));
        assert_eq!(Address::parse(":7000", "asked"), at("asked", 7000));
        assert_eq!(Address::parse("::1:7000", "asked"), at("::1", 7000));
        for unknown in ["?:7000", "host:0", "host", "host:x"] {
            assert_eq!(Address::parse(unknown, "asked"), None, "{unknown}");
        }
    }

    #[test]
    fn what_is_not_understood_is_left_out() {
        let text = |text: &str| Value::BulkString(text.into());
        let node = |host, port| Value::Array(vec![host, Value::Int(port), text("id")]);
        let row = |first, last, node| Value::Array(vec![Value::Int(first), Value::Int(last), node]);
        let reply = Value::Array(vec![
            row(100, 200, node(Value::Nil, 7001)),
            row(0, 99, node(text("a"), 7000)),
            row(201, 300, node(text("?"), 7002)),
            row(301, 70_000, node(text("a"), 7000)),
            row(301, 16384, node(text("a"), 7000)),
            row(301, 400, node(text("a"), 65_536 + 7000)),
            Value::Array(vec![Value::Int(1)]),
            Value::Nil,
        ]);
        let ranges = parse(reply, "asked").unwrap();
        let said: Vec<_> = ranges
            .iter()
            .map(|range| (range.first.0, range.last.0, range.primary.host.as_str()))
            .collect();
        assert_eq!(said, [(0, 99, "a"), (100, 200, "asked")]);
        assert!(parse(Value::Array(Vec::new()), "asked").is_err());
        assert!(parse(Value::Okay, "asked").is_err());
    }
}
