//! A reader of access lines that knows nothing of their writer: the combined log format, character by character.

use serde_json::{Value, json};

/// What stands in a line of the access log; `None` if it is none.
///
/// The extended form has `end`, `elapsed_ms`, `budget_left_ms` and `request_id` too.
pub(crate) fn read(line: &str) -> Option<Value> {
    let (host, rest) = line.split_once(" - - [")?;
    let (time, rest) = rest.split_once("] ")?;
    let (request, rest) = quoted(rest)?;
    let mut words = request.split(' ');
    let (method, target, protocol) = (words.next()?, words.next()?, words.next()?);
    let (status, rest) = rest.strip_prefix(' ')?.split_once(' ')?;
    let (bytes, rest) = rest.split_once(' ')?;
    let (referer, rest) = quoted(rest)?;
    let (agent, rest) = quoted(rest.strip_prefix(' ')?)?;
    let mut found = json!({
        "host": host.parse::<std::net::IpAddr>().ok()?.to_string(),
        "time": time,
        "method": method,
        "target": target,
        "protocol": protocol,
        "status": status.parse::<u16>().ok()?,
        "bytes": bytes.parse::<u64>().ok()?,
        "referer": referer,
        "agent": agent,
    });
    if words.next().is_some() || !is_time(time) {
        return None;
    }
    if let Some(rest) = rest.strip_prefix(' ') {
        let (end, rest) = quoted(rest)?;
        let mut words = rest.strip_prefix(' ')?.split(' ');
        found["end"] = end.into();
        found["elapsed_ms"] = words.next()?.parse::<f64>().ok()?.into();
        found["budget_left_ms"] = words.next()?.parse::<f64>().ok().into();
        found["request_id"] = words.next()?.into();
        return words.next().is_none().then_some(found);
    }
    rest.is_empty().then_some(found)
}

/// What stands in quotes at the beginning of `text`, and what comes after. Escapes are `\xHH` and nothing else.
fn quoted(text: &str) -> Option<(String, &str)> {
    let (inside, rest) = text.strip_prefix('"')?.split_once('"')?;
    let mut parts = inside.split("\\x");
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    let is_clean = inside.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    is_clean.then(|| (String::from_utf8_lossy(&bytes).into_owned(), rest))
}

/// `29/Jul/2017:10:08:30 +0000`
fn is_time(text: &str) -> bool {
    let shape: String = text
        .chars()
        .map(|c| match c {
            '0'..='9' => '0',
            'A'..='Z' => 'A',
            'a'..='z' => 'a',
            other => other,
        })
        .collect();
    shape == "00/Aaa/0000:00:00:00 +0000"
}
