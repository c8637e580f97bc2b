//! The form of a request, as far as the engine of HTTP/1 leaves it to the server: two servers in a row that take the same
//! bytes for different requests are a hole in both.
//!
//! HTTP/2 says whom a request is for, and where its body ends, in frames and fields of its own, and its engine sees to those.

use http::request::Parts;
use http::{HeaderValue, Version, header};

use super::inbound::Refusal;

/// Why a request is not to be served, if its form is the reason (RFC 9112, 3.2 and 6.1).
pub(super) fn flaw(head: &Parts) -> Option<Refusal> {
    if head.version > Version::HTTP_11 {
        return None;
    }
    let (mut hosts, mut codings) = (0, 0);
    // One walk is less than two look-ups.
    for (name, value) in &head.headers {
        if name == header::HOST {
            hosts += 1;
            if !value.as_bytes().iter().all(|byte| may_be_in_host(*byte)) {
                return Some(Refusal::Malformed("a host that is none"));
            }
        } else if name == header::TRANSFER_ENCODING {
            codings += 1;
            if !is_chunked(value) {
                return Some(Refusal::Coding);
            }
        }
    }
    match hosts {
        // What is not a path is a whole URI, or an authority, which only `CONNECT` asks for.
        _ if head.uri.path().is_empty() && head.method != http::Method::CONNECT => {
            Some(Refusal::Malformed("a target that is none"))
        }
        _ if codings > 1 => Some(Refusal::Coding),
        0 if head.version == Version::HTTP_11 => Some(Refusal::Malformed("no host")),
        0 | 1 => None,
        _ => Some(Refusal::Malformed("more than one host")),
    }
}

/// The engine also takes what ends in `chunked`, and a list of it.
fn is_chunked(coding: &HeaderValue) -> bool {
    coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked")
}

/// The characters of a name or an address and a port (RFC 3986, 3.2.2). In a table, as every request has some twenty.
static OF_HOST: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"-._~!$&'()*+,;=:[]%";
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

fn may_be_in_host(byte: u8) -> bool {
    OF_HOST[usize::from(byte)]
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn flaw_of(version: Version, lines: &[(&str, &str)]) -> Option<Refusal> {
        let mut request = Request::get("/").version(version);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        flaw(&request.body(()).expect("a request").into_parts().0)
    }

    #[test]
    fn names_addresses_and_no_name_at_all_are_hosts() {
        for host in [
            "",
            "test",
            "test:80",
            "xn--bcher-kva.example.",
            "127.0.0.1:8080",
            "[::1]:80",
            "a_b",
        ] {
            assert_eq!(flaw_of(Version::HTTP_11, &[("host", host)]), None, "{host}");
        }
        for host in [
            "a b", "a/b", "http://a", "user@a", "a\tb", "a\\b", "a?b", "a#b", "\"a\"", "é",
        ] {
            let flaw = flaw_of(Version::HTTP_11, &[("host", host)]);
            assert_eq!(flaw, Some(Refusal::Malformed("a host that is none")), "{host}");
        }
    }

    #[test]
    fn only_http_1_1_needs_a_host_and_two_are_too_many_for_all_of_http_1() {
        let (none, two) = (
            Some(Refusal::Malformed("no host")),
            Some(Refusal::Malformed("more than one host")),
        );
        assert_eq!(flaw_of(Version::HTTP_11, &[]), none);
        assert_eq!(flaw_of(Version::HTTP_10, &[]), None);
        for version in [Version::HTTP_10, Version::HTTP_11] {
            assert_eq!(flaw_of(version, &[("host", "a"), ("host", "a")]), two);
        }
        assert_eq!(flaw_of(Version::HTTP_2, &[("host", "a"), ("host", "b")]), None);
    }
}
