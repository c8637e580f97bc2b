//! The servers: private ones, started here and gone with the program, or those that were given.

use std::net::SocketAddr;

use bequest::Context;
use bequest_postgres::Options;
use bequest_postgres::tokio_postgres::config::{Host, SslMode};
use bequest_postgres::tokio_postgres::{Client, Config, NoTls};
use bequest_redis::redis;
use bequest_test::servers::{Postgres, Redis, StartError};
use http::Uri;
use tokio::net::lookup_host;

use super::super::Failure;
use crate::store::settings::SecretUrl;

const POSTGRES_URL: &str = "--database: a URL such as postgres://user@host/database, over TCP";
const REDIS_URL: &str = "--cache: a URL such as redis://host:port/";

/// A PostgreSQL server, and the schema in which everything is that is put into it.
#[derive(Debug)]
pub(crate) struct PostgresServer {
    /// `None` if it was given: then it is not ours to stop.
    pub(super) private: Option<Postgres>,
    config: Config,
    pub(super) address: SocketAddr,
    schema: String,
    pub(super) version: String,
}

/// A Redis server, and the prefix of every key that is put into it.
#[derive(Debug)]
pub(crate) struct RedisServer {
    /// `None` if it was given: then it is not ours to stop.
    pub(super) private: Option<Redis>,
    url: SecretUrl,
    pub(super) address: SocketAddr,
    prefix: String,
    pub(super) version: String,
}

impl PostgresServer {
    /// The one at `url`, or a private one.
    pub(super) async fn of(ctx: &Context, url: Option<&SecretUrl>) -> Result<PostgresServer, Failure> {
        let private = match url {
            Some(_) => None,
            None => Some(Postgres::start().map_err(|error| {
                missing(
                    &error,
                    "a PostgreSQL server",
                    "postgresql",
                    "--database postgres://…",
                )
            })?),
        };
        let config: Config = match (&private, url) {
            (Some(server), _) => server.url().parse()?,
            // What is wrong with it is not told: that could be a part of it.
            (None, given) => given
                .and_then(|url| url.expose().parse().ok())
                .ok_or(POSTGRES_URL)?,
        };
        if config.get_ssl_mode() == SslMode::Require {
            return Err(
                "--database: the scenes look at what is on the wire, so they need a server in clear".into(),
            );
        }
        let address = address_of(&config).await?;
        let mut server = PostgresServer {
            private,
            config,
            address,
            schema: format!("bequest_torture_{}", std::process::id()),
            version: String::new(),
        };
        let client = ctx.run(server.plain("set up")).await??;
        client
            .batch_execute(&format!("CREATE SCHEMA {}", server.schema))
            .await?;
        server.version = client.query_one("SHOW server_version", &[]).await?.get(0);
        Ok(server)
    }

    /// Under which name the server knows somebody called `name`.
    pub(super) fn name(&self, name: &str) -> String {
        format!("{}_{name}", self.schema)
    }

    /// Its configuration for somebody called `name`, by way of `address`.
    pub(super) fn config(&self, name: &str, address: SocketAddr) -> Config {
        let mut config = Config::new();
        config
            .host(address.ip().to_string())
            .port(address.port())
            .application_name(self.name(name))
            .options(format!("-c search_path={}", self.schema));
        if let Some(user) = self.config.get_user() {
            config.user(user);
        }
        if let Some(password) = self.config.get_password() {
            config.password(password);
        }
        if let Some(database) = self.config.get_dbname() {
            config.dbname(database);
        }
        config
    }

    /// Ours, for somebody called `name`.
    pub(super) fn options(&self, name: &str) -> Options {
        Options::new(self.config(name, self.address))
    }

    /// The driver alone, driven in the background until it is dropped.
    pub(super) async fn plain(&self, name: &str) -> Result<Client, Failure> {
        let (client, connection) = self.config(name, self.address).connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Removes what was put into it.
    pub(super) async fn clear(&self, ctx: &Context) -> Result<(), Failure> {
        let client = ctx.run(self.plain("clear")).await??;
        let clear = format!("DROP SCHEMA {} CASCADE", self.schema);
        ctx.run(client.batch_execute(&clear)).await??;
        Ok(())
    }
}

impl RedisServer {
    /// The one at `url`, or a private one.
    pub(super) async fn of(ctx: &Context, url: Option<&SecretUrl>) -> Result<RedisServer, Failure> {
        let private =
            match url {
                Some(_) => None,
                None => Some(Redis::start().map_err(|error| {
                    missing(&error, "a Redis server", "redis-server", "--cache redis://…")
                })?),
            };
        let url: SecretUrl = match (&private, url) {
            (Some(server), _) => server.url().parse()?,
            (None, given) => given.cloned().ok_or(REDIS_URL)?,
        };
        let parts = parts(&url).ok_or(REDIS_URL)?;
        if parts.scheme_str() == Some("rediss") {
            return Err(
                "--cache: the scenes look at what is on the wire, so they need a server in clear".into(),
            );
        }
        let host = parts.host().ok_or(REDIS_URL)?;
        let address = resolved(host, parts.port_u16().unwrap_or(6379)).await?;
        let mut server = RedisServer {
            private,
            url,
            address,
            prefix: format!("bequest-torture-{}:", std::process::id()),
            version: String::new(),
        };
        let client = bequest_redis::Client::open(server.url_through(server.address))?;
        let about: String = client.cmd(ctx, redis::cmd("INFO").arg("server")).await?;
        let version = about.lines().find_map(|line| line.strip_prefix("redis_version:"));
        server.version = version.unwrap_or_default().trim().to_owned();
        Ok(server)
    }

    /// Its URL by way of `address`.
    pub(super) fn url_through(&self, address: SocketAddr) -> String {
        let parts = parts(&self.url).unwrap_or_default();
        let authority = parts.authority().map_or("", |authority| authority.as_str());
        let user = authority.rfind('@').map_or("", |at| &authority[..=at]);
        format!("redis://{user}{address}{}", parts.path())
    }

    /// Ours.
    pub(super) fn options(&self) -> bequest_redis::Options {
        bequest_redis::Options::new(self.url_through(self.address))
    }

    /// The key called `name`.
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Removes what was put into it.
    pub(super) async fn clear(&self, ctx: &Context) -> Result<(), Failure> {
        let client = self.options().open()?;
        let mut cursor = 0u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(format!("{}*", self.prefix));
            let (next, keys): (u64, Vec<String>) = client.cmd(ctx, scan.arg("COUNT").arg(1_000)).await?;
            if !keys.is_empty() {
                client.del(ctx, keys).await?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }
}

/// The parts of a URL, for whoever connects. Why it has none is not told: that could be a part of it.
fn parts(url: &SecretUrl) -> Option<Uri> {
    url.expose().parse().ok()
}

/// Why there is no server, and what to do about it.
fn missing(error: &StartError, what: &str, package: &str, flag: &str) -> Failure {
    if error.is_not_installed() {
        format!(
            "torture stores needs {what}: {error}. Install it (Debian and Ubuntu: apt-get install {package}), or give one \
             with {flag}"
        )
        .into()
    } else {
        format!("starting {what}: {error}").into()
    }
}

async fn address_of(config: &Config) -> Result<SocketAddr, Failure> {
    let port = config.get_ports().first().copied().unwrap_or(5432);
    match config.get_hosts().first() {
        Some(Host::Tcp(host)) => resolved(host, port).await,
        _ => Err(POSTGRES_URL.into()),
    }
}

async fn resolved(host: &str, port: u16) -> Result<SocketAddr, Failure> {
    let mut addresses = lookup_host((host, port)).await?;
    addresses
        .next()
        .ok_or_else(|| format!("{host} has no address").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_not_told() {
        let redis = RedisServer {
            private: None,
            url: "redis://ann:s3cret@127.0.0.1:1/2".parse().unwrap(),
            address: "127.0.0.1:1".parse().unwrap(),
            prefix: String::new(),
            version: String::new(),
        };
        assert!(!format!("{redis:?}").contains("s3cret"), "{redis:?}");
        assert_eq!(
            redis.url_through(redis.address),
            "redis://ann:s3cret@127.0.0.1:1/2"
        );

        let ctx = Context::background();
        for url in [
            "s3cret",
            "postgres://ann:s3cret@h:port/",
            "postgres://ann:s3cret@/?x=s3cret",
        ] {
            let url: SecretUrl = url.parse().unwrap();
            let errors = [
                PostgresServer::of(&ctx, Some(&url)).await.map(drop).unwrap_err(),
                RedisServer::of(&ctx, Some(&url)).await.map(drop).unwrap_err(),
            ];
            for error in errors {
                assert!(!error.to_string().contains("s3cret"), "{error}");
            }
        }
    }
}
