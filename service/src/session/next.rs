//! Where a browser goes on after signing in: a path on this site, and nowhere else.
//!
//! What follows `next=` comes from whoever made the link. Browsers are generous readers of URLs: they take `\` for `/`,
//! they drop tabs and line breaks wherever these stand, and two slashes at the front are another site. So only what
//! needs no generosity is taken: one slash, then printable ASCII without a backslash, also after percent-decoding.

/// `next` if it is a path with perhaps a query on this site, in the form in which it may be put into a `Location`.
pub(crate) fn local(next: &str) -> Option<&str> {
    let is_plain = |text: &[u8]| {
        text.iter().all(|&byte| byte.is_ascii_graphic() && byte != b'\\')
            && text.first() == Some(&b'/')
            && text.get(1) != Some(&b'/')
    };
    if next.len() > LONGEST || !is_plain(next.as_bytes()) || next.contains('#') {
        return None;
    }
    // Decoded once and once more, so that no later reader finds in it what this one did not.
    let path = next.split('?').next()?;
    let once = decoded(path.as_bytes())?;
    let twice = decoded(&once)?;
    (has_safe_start(&once) && has_safe_start(&twice)).then_some(next)
}

/// The place to go on to when none was given, or none that is safe.
pub(crate) const HOME: &str = "/";

/// The longest `next` that is kept.
const LONGEST: usize = 1024;

/// No control character, no backslash anywhere, and not two slashes at the front.
fn has_safe_start(path: &[u8]) -> bool {
    path.first() == Some(&b'/')
        && path.get(1) != Some(&b'/')
        && path
            .iter()
            .all(|&byte| byte >= b' ' && byte != 0x7f && byte != b'\\')
}

/// `text` percent-decoded; `None` if a `%` begins nothing.
fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                out.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
                rest = after;
            }
            // What decodes to a bare `%` has nothing to decode the second time.
            (b'%', _) => return None,
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use url::Url;

    /// Where a browser on this page would go.
    fn leaves(next: &str) -> bool {
        let here = Url::parse("https://bequest.example/login").unwrap();
        here.join(next)
            .map_or(true, |there| there.origin() != here.origin())
    }

    #[test]
    fn paths_of_this_site_are_kept() {
        for next in [
            "/",
            "/search?q=a%20b&timeout=1s",
            "/a/%EC%B7%A8%EC%86%8C",
            "/store?key=//x",
            "/?next=/me",
        ] {
            assert_eq!(local(next), Some(next));
            assert!(!leaves(next));
        }
    }

    #[test]
    fn the_ways_out_that_are_known_are_shut() {
        for next in [
            "",
            "search",
            "//evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "/\t/evil.example",
            "/%09/evil.example",
            "/%2F/evil.example",
            "/%2f%2fevil.example",
            "/%5Cevil.example",
            "/%0d%0aLocation:x",
            "/%252F/evil.example",
            "/%25",
            "/%",
            "/%zz",
            "https://evil.example",
            "https:evil.example",
            "javascript:alert(1)",
            " /x",
            "/x\r\nset-cookie: a",
            "/\u{2044}evil",
            "/#x",
            "///evil.example",
            "/%00",
        ] {
            assert_eq!(local(next), None, "{next:?}");
        }
        assert_eq!(local(&format!("/{}", "a".repeat(LONGEST))), None);
    }

    /// 200 000 texts made of what such attacks are made of. The naive rule, "it begins with a slash", lets some leave.
    #[test]
    fn nothing_that_is_kept_leaves_the_site() {
        const PARTS: [&str; 22] = [
            "/",
            "//",
            "\\",
            "\t",
            "\n",
            "%09",
            "%0a",
            "%2f",
            "%5c",
            "%25",
            "%252f",
            "@",
            ":",
            "?",
            "#",
            ".",
            "..",
            "evil.example",
            "https:",
            "a",
            "\u{ff0f}",
            " ",
        ];
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        let (mut kept, mut naive_left) = (0, 0);
        for _ in 0..200_000 {
            let mut next = String::from("/");
            for _ in 0..random() % 6 {
                if random() % 8 == 0 {
                    next.push(char::from((random() % 128) as u8));
                } else {
                    next.push_str(PARTS[(random() % PARTS.len() as u64) as usize]);
                }
            }
            naive_left += usize::from(leaves(&next));
            if let Some(local) = local(&next) {
                kept += 1;
                assert!(!leaves(local), "{local:?}");
            }
        }
        assert!(kept > 1_000, "{kept} kept: the rule is of no use");
        assert!(naive_left > 1_000, "{naive_left}: these attacks attack nothing");
    }
}
