//! The cache in Redis, which several nodes share.
//!
//! A session and its tombstone are under one key, so whoever puts one there has removed the other. What depends on what is
//! there already is a script: Redis runs it whole, with nobody in between.
//!
//! # Invariants
//!
//! 1. The key is the name of the session database and the session's hash. Two services that share a server but no database
//!    do not believe each other; and the id itself is nowhere.
//! 2. What is under a key begins with its generation, so that a script can compare two without reading the rest.
//! 3. A read restarts the time of a session and never that of a tombstone.

use std::sync::Arc;
use std::time::Duration;

use bequest::Context;
use bequest_redis::redis::{Script, Value as Reply, cmd};
use bequest_redis::{Client, Error};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};

use super::super::budget::StepError;
use super::super::database::Answer;
use super::super::record::{Ended, Record, from_millis, millis};
use super::{CacheMark, Cached, Filled, SessionCache, TOMBSTONE};
use crate::domain::session::{Gender, Session, SessionHash, User};

/// Sessions in a Redis server.
#[derive(Debug)]
pub(crate) struct RedisCache {
    client: Client,
    prefix: String,
    ttl: Duration,
    read: Script,
    fill: Script,
}

const STEP: &str = "session cache";
/// What stands in the place of a session that was ended.
const ENDED: &str = "ended";

const READ: &str = "
    local found = redis.call('GET', KEYS[1])
    if found and found ~= 'ended' then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
    return found";

/// `1`: kept; `0`: something newer is there; `-1`: a tombstone is. A double holds whole numbers up to 2^53, and no session
/// is changed that often.
const FILL: &str = "
    local found = redis.call('GET', KEYS[1])
    if found == 'ended' then return -1 end
    if found then
        local known = tonumber(string.match(found, '^%d+'))
        if known and known > tonumber(ARGV[3]) then return 0 end
    end
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
    return 1";

impl RedisCache {
    /// A cache for the database of this name, whose sessions stay for `ttl` after each read.
    pub(crate) fn new(client: Client, database: &str, ttl: Duration) -> RedisCache {
        RedisCache {
            client,
            prefix: format!("bequest:{database}:session:"),
            ttl,
            read: Script::new(READ),
            fill: Script::new(FILL),
        }
    }

    /// Under which the mark is. No session has it for its hash.
    fn mark_key(&self) -> String {
        format!("{}mark", self.prefix)
    }

    /// Under which a session is, or its tombstone.
    pub(crate) fn key(&self, id: SessionHash) -> String {
        format!("{}{}", self.prefix, id.whole())
    }
}

impl SessionCache for RedisCache {
    fn get<'a>(&'a self, ctx: &'a Context, id: SessionHash) -> Answer<'a, Cached> {
        Box::pin(async move {
            let mut read = self.read.prepare_invoke();
            read.key(self.key(id)).arg(span(self.ttl));
            let found: Option<String> = self.client.script(ctx, &read).await.map_err(step_error)?;
            Ok(match found.as_deref() {
                None => Cached::Nothing,
                Some(ENDED) => Cached::Ended,
                // What another version wrote is as good as nothing: the database knows.
                Some(text) => {
                    decode(text, id).map_or(Cached::Nothing, |record| Cached::Session(Arc::new(record)))
                }
            })
        })
    }

    fn fill<'a>(&'a self, ctx: &'a Context, record: Arc<Record>) -> Answer<'a, Filled> {
        Box::pin(async move {
            let mut fill = self.fill.prepare_invoke();
            fill.key(self.key(record.session.id))
                .arg(encode(&record))
                .arg(span(self.ttl))
                .arg(record.generation);
            let filled: i64 = self.client.script(ctx, &fill).await.map_err(step_error)?;
            Ok(match filled {
                1 => Filled::Kept,
                0 => Filled::Older,
                _ => Filled::Ended,
            })
        })
    }

    fn bury<'a>(&'a self, ctx: &'a Context, ended: Ended) -> Answer<'a, ()> {
        Box::pin(async move {
            let buried = self
                .client
                .set_for(ctx, self.key(ended.id), ENDED, TOMBSTONE)
                .await;
            buried.map_err(step_error)
        })
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn mark<'a>(&'a self, ctx: &'a Context) -> Answer<'a, Option<CacheMark>> {
        Box::pin(async move {
            let mut number = [0; 4];
            let filled = SystemRandom::new().fill(&mut number);
            filled.map_err(|_| StepError::failed(STEP, "the system has no random numbers to give"))?;
            let new = i32::from_ne_bytes(number) & i32::MAX;
            let mut offer = cmd("SET");
            offer.arg(self.mark_key()).arg(new).arg("NX");
            // Whoever was first is not told from here.
            let _: Reply = self.client.cmd(ctx, &offer).await.map_err(step_error)?;
            let mut ask = cmd("GET");
            let found: Option<i32> = self
                .client
                .cmd(ctx, ask.arg(self.mark_key()))
                .await
                .map_err(step_error)?;
            Ok(found.map(|number| CacheMark(number & i32::MAX)))
        })
    }

    fn keep_mark<'a>(&'a self, ctx: &'a Context, mark: CacheMark) -> Answer<'a, ()> {
        Box::pin(async move {
            let kept = self.client.set(ctx, self.mark_key(), mark.0).await;
            kept.map_err(step_error)
        })
    }
}

/// In whole milliseconds, and at least one: none would be refused.
fn span(span: Duration) -> u64 {
    u64::try_from(span.as_millis())
        .unwrap_or(u64::MAX)
        .clamp(1, 1 << 50)
}

/// `3 {"user":…}`.
fn encode(record: &Record) -> String {
    let session = &record.session;
    let fields = json!({
        "user": session.user.id,
        "gender": session.user.gender.as_str(),
        "age": session.user.age,
        "login": millis(session.login_time),
        "seen": millis(record.last_seen),
        "end": millis(record.absolute_end),
        "confirmed": millis(record.confirmed_at),
    });
    format!("{} {fields}", record.generation)
}

fn decode(text: &str, id: SessionHash) -> Option<Record> {
    let (generation, fields) = text.split_once(' ')?;
    let fields: Value = serde_json::from_str(fields).ok()?;
    let time = |name: &str| fields.get(name)?.as_i64().map(from_millis);
    let age = match fields.get("age")? {
        Value::Null => None,
        age => Some(u8::try_from(age.as_u64()?).ok()?),
    };
    let session = Session {
        id,
        user: User {
            id: fields.get("user")?.as_str()?.to_string(),
            gender: Gender::parse(fields.get("gender")?.as_str()?)?,
            age,
        },
        login_time: time("login")?,
    };
    Some(Record {
        session: Arc::new(session),
        generation: generation.parse().ok()?,
        last_seen: time("seen")?,
        absolute_end: time("end")?,
        confirmed_at: time("confirmed")?,
    })
}

fn step_error(error: Error) -> StepError {
    match error.canceled() {
        Some(end) => StepError::ended(STEP, end.clone()),
        None => StepError::failed(STEP, error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::record::tests::record;
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn a_record_is_read_back_as_it_was_written() {
        let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let mut written = record(7, at);
        written.generation = 3;
        let id = written.session.id;
        assert_eq!(decode(&encode(&written), id), Some(written.clone()));
        for broken in ["", "ended", "3", "3 {}", "x {\"user\":1}", &encode(&written)[1..]] {
            assert_eq!(decode(broken, id), None, "{broken}");
        }
    }

    #[tokio::test]
    async fn the_key_is_the_database_and_the_whole_hash() {
        let client = Client::open("redis://127.0.0.1").unwrap();
        let cache = RedisCache::new(client, "shop", Duration::from_secs(60));
        let key = format!("bequest:shop:session:{}", "ab".repeat(32));
        assert_eq!(cache.key(SessionHash([0xab; 32])), key);
    }

    #[tokio::test]
    async fn a_server_has_one_mark_for_each_database_and_is_given_it_back() {
        let (Some(server), Some(other)) = (
            bequest_test::servers::Redis::start_or_leave_out(),
            bequest_test::servers::Redis::start_or_leave_out(),
        ) else {
            return;
        };
        let ctx = Context::background();
        let cache =
            |url: String, name| RedisCache::new(Client::open(url).unwrap(), name, Duration::from_secs(60));
        let (one, two) = (cache(server.url(), "shop"), cache(server.url(), "shop"));
        let mark = one.mark(&ctx).await.unwrap().unwrap();
        assert!(mark.0 >= 0);
        assert_eq!(two.mark(&ctx).await.unwrap(), Some(mark));
        for another in [cache(server.url(), "another shop"), cache(other.url(), "shop")] {
            // One in two thousand million is the same.
            assert_ne!(another.mark(&ctx).await.unwrap(), Some(mark));
        }
        let emptied: String = one.client.cmd(&ctx, &cmd("FLUSHALL")).await.unwrap();
        assert_eq!(emptied, "OK");
        one.keep_mark(&ctx, mark).await.unwrap();
        assert_eq!(two.mark(&ctx).await.unwrap(), Some(mark));
    }

    #[tokio::test]
    async fn scripts_keep_what_every_cache_has_to() {
        let Some(server) = bequest_test::servers::Redis::start_or_leave_out() else {
            return;
        };
        let ctx = Context::background();
        let client = Client::open(server.url()).unwrap();
        let cache = RedisCache::new(client.clone(), "shop", Duration::from_secs(60));
        let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let (old, id) = (Arc::new(record(1, at)), record(1, at).session.id);
        let new = Arc::new(Record {
            generation: 2,
            ..(*old).clone()
        });
        assert_eq!(cache.get(&ctx, id).await.unwrap(), Cached::Nothing);
        assert_eq!(cache.fill(&ctx, Arc::clone(&new)).await.unwrap(), Filled::Kept);
        assert_eq!(cache.fill(&ctx, Arc::clone(&old)).await.unwrap(), Filled::Older);
        assert_eq!(
            cache.get(&ctx, id).await.unwrap(),
            Cached::Session(Arc::clone(&new))
        );

        let left = || async {
            let mut left = bequest_redis::redis::cmd("PTTL");
            left.arg(cache.key(id));
            client.cmd::<i64>(&ctx, &left).await.unwrap()
        };
        cache.bury(&ctx, Ended { id, generation: 3 }).await.unwrap();
        let tombstone = i64::try_from(TOMBSTONE.as_millis()).unwrap();
        assert!(
            left().await <= tombstone,
            "not as long as the session it replaced"
        );
        assert_eq!(cache.get(&ctx, id).await.unwrap(), Cached::Ended);
        assert!(left().await <= tombstone, "a read prolongs no tombstone");
        assert_eq!(cache.fill(&ctx, new).await.unwrap(), Filled::Ended);
        assert_eq!(cache.get(&ctx, id).await.unwrap(), Cached::Ended);

        let short = RedisCache::new(client.clone(), "shop", Duration::from_millis(1));
        assert_eq!(short.get(&ctx, id).await.unwrap(), Cached::Ended);
        assert!(left().await > 1000, "nor does a read shorten it");

        let other = RedisCache::new(client, "another shop", Duration::from_secs(60));
        assert_eq!(other.get(&ctx, id).await.unwrap(), Cached::Nothing);
    }
}
