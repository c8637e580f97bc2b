//! Where data is kept: embedded here, or in servers.
//!
//! # Invariants
//!
//! 1. A URL may hold a password, so nothing prints it: not help, not an error, not a log. What is shown is host and path.

use std::fmt;
use std::str::FromStr;

use clap::Args;
use http::Uri;

/// The database and the cache.
#[derive(Args, Clone, Debug)]
pub(crate) struct StoreSettings {
    /// Database of sessions, jobs and answers in place of SQLite, postgres://USER:PASSWORD@HOST/NAME; with
    /// ?sslmode=require over TLS, its certificate verified as by verify-full, see --trust. As a variable it is not seen
    /// in the list of processes
    #[arg(long, env = "BEQUEST_DATABASE", hide_env_values = true, value_name = "URL")]
    pub(crate) database: Option<SecretUrl>,

    /// Cache that several nodes share in place of one in this process, redis://[USER:PASSWORD@]HOST[:PORT][/NUMBER],
    /// or rediss:// for TLS.
    /// Two nodes on one database need the same. It must not evict what has not expired (maxmemory-policy noeviction)
    #[arg(long, env = "BEQUEST_CACHE", hide_env_values = true, value_name = "URL")]
    pub(crate) cache: Option<SecretUrl>,
}

/// A URL that may hold a password. `Display` and `Debug` leave out everything before the host and behind the path.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SecretUrl(String);

impl StoreSettings {
    /// What is wrong with them, without saying what they are.
    pub(crate) fn check(&self) -> Result<(), String> {
        let schemes = [
            ("--database", &self.database, &["postgres", "postgresql"][..]),
            ("--cache", &self.cache, &["redis", "rediss"][..]),
        ];
        for (flag, url, known) in schemes {
            let Some(url) = url else { continue };
            let scheme = url.0.split_once("://").map(|(scheme, _)| scheme);
            match scheme {
                Some(scheme) if known.contains(&scheme) => {}
                // A scheme is no secret; without one, the whole text might be.
                Some(scheme) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                    return Err(format!(
                        "{flag}: only {}:// is spoken here, not {scheme}://",
                        known[0]
                    ));
                }
                _ => return Err(format!("{flag}: a URL begins with {}://", known[0])),
            }
            // What some clients take for a switch, and ours would not hear.
            if url.0.ends_with("#insecure") {
                return Err(format!(
                    "{flag}: certificates are always verified; --trust names further authorities"
                ));
            }
        }
        Ok(())
    }
}

impl SecretUrl {
    /// The URL itself, for whoever connects, and for nobody else.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Whether its query says anything of `word`.
    pub(crate) fn says(&self, word: &str) -> bool {
        let words = self.0.split_once('?').map_or("", |(_, words)| words);
        words.split('&').any(|pair| pair.split('=').next() == Some(word))
    }
}

impl FromStr for SecretUrl {
    type Err = std::convert::Infallible;

    /// Takes any text: the errors of a parser would show it. [`StoreSettings::check`] is the judge.
    fn from_str(text: &str) -> Result<SecretUrl, Self::Err> {
        Ok(SecretUrl(text.to_string()))
    }
}

/// `postgres://db.example:5432/shop`.
impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.parse::<Uri>().ok().and_then(|uri| {
            let scheme = uri.scheme_str()?.to_string();
            let authority = uri.authority()?;
            // A password with a slash or a hash in it, not encoded, ends the authority too early.
            let signs = |text: &str| text.matches('@').count();
            let is_whole = signs(authority.as_str()) == signs(&self.0);
            let place = authority.as_str().rsplit('@').next().filter(|_| is_whole)?;
            Some(format!("{scheme}://{place}{}", uri.path()))
        });
        // What is no URI for us may still be one for its driver: several hosts, a socket's folder.
        f.write_str(shown.as_deref().unwrap_or("(not shown)"))
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        text.parse::<SecretUrl>().unwrap().to_string()
    }

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(
            shown("postgres://ann:s3cret@db.test:5432/shop?password=s3cret"),
            "postgres://db.test:5432/shop"
        );
        assert_eq!(
            shown("redis://:s3cret@127.0.0.1:6379/2"),
            "redis://127.0.0.1:6379/2"
        );
        for odd in [
            "postgres://ann:s3c@ret@db.test/shop",
            "postgres://ann:s3c/ret@db.test/shop",
            "postgres://ann:s3c#ret@db.test/shop",
            "postgres://ann:s3cret@one.test,two.test/shop",
            "s3cret",
            "ann:s3cret@db.test",
        ] {
            for part in ["s3c", "ret@"] {
                assert!(!shown(odd).contains(part), "{odd}: {}", shown(odd));
            }
            assert!(
                !format!("{:?}", odd.parse::<SecretUrl>()).contains("s3c"),
                "{odd}"
            );
        }
    }

    #[test]
    fn what_is_not_spoken_is_refused_without_being_shown() {
        let check = |database: &str, cache: &str| {
            let settings = StoreSettings {
                database: Some(database.parse().unwrap()),
                cache: Some(cache.parse().unwrap()),
            };
            settings.check()
        };
        assert!(check("postgresql://db.test/shop", "redis://cache.test").is_ok());
        assert!(check("postgres://db.test/shop?sslmode=require", "rediss://cache.test").is_ok());
        for (database, cache, says) in [
            ("mysql://ann:s3cret@db.test", "redis://cache.test", "not mysql://"),
            ("ann:s3cret@db.test", "redis://cache.test", "--database"),
            ("postgres://db.test", "s3cret", "--cache"),
            (
                "postgres://db.test",
                "memcached://:s3cret@cache.test",
                "not memcached://",
            ),
            (
                "postgres://db.test",
                "rediss://:s3cret@cache.test/#insecure",
                "always verified",
            ),
        ] {
            let error = check(database, cache).unwrap_err();
            assert!(error.contains(says) && !error.contains("s3cret"), "{error}");
        }
    }
}
