//! `bequest torture stores`: clients of real servers that give up at every instant, each scene beside a naive client.
//!
//! What lives here: the scenes, the naive clients, and what is made of the numbers: a table, JSON, a plot. The servers are
//! private ones unless others are given; between them and the clients is a network that misbehaves.
//!
//! # What may be relied on
//!
//! 1. A scene counts what happened; that a promise held is never read off a clock. Times are told, and decide nothing.
//! 2. What chance decides, a seed repeats: which user, which call is given up, after which share of its time, how.
//! 3. At the first signal a scene stops and tells what it has counted so far; at the second, the program ends.
//! 4. Whatever is put into a server that was given is in a schema, or under a prefix, of this process, and is removed.

mod count;
mod faults;
mod foreign;
mod jobs;
mod naive;
mod next_user;
mod plot;
mod servers;
mod storm;
mod transactions;
mod victims;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bequest::signal::{self, Signals};
use bequest::{Context, Signal};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use self::servers::{PostgresServer, RedisServer};
use super::{Failure, Verdict, say};
use crate::store::settings::SecretUrl;

/// What may not end takes this long: a scene that waits for it has failed.
pub(super) const HANGS: Duration = Duration::from_secs(30);

/// What is played, how much of it, and on which servers.
#[derive(Args, Clone, Debug)]
pub(crate) struct Extent {
    /// Only this scene; may be given several times
    #[arg(long = "scene", value_name = "NAME")]
    scenes: Vec<Scene>,

    /// Share of the full counts: 1 is a million answers, 0.02 is what the tests do
    #[arg(long, default_value_t = 1.0, value_name = "SHARE", value_parser = share)]
    scale: f64,

    /// What decides who gives up, when and how; a new one each time if not given
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,

    /// File to write all numbers to
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// File to draw the times from a cancel to a clean connection into (scene next-user)
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// PostgreSQL server to use in place of a private one
    #[arg(long, value_name = "URL")]
    database: Option<SecretUrl>,

    /// Redis server to use in place of a private one
    #[arg(long, value_name = "URL")]
    cache: Option<SecretUrl>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scene {
    /// Answers that reach somebody else, Postgres
    ForeignPostgres,
    /// Answers that reach somebody else, Redis
    ForeignRedis,
    /// The next user's query, killed by a cancel that comes late
    Victims,
    /// Transactions that are ended at every await
    Transactions,
    /// The next user of a connection whose query was given up
    NextUser,
    /// Jobs popped by who gives up
    Jobs,
    /// A crowd that leaves at once
    Storm,
    /// A network that hangs, before Postgres
    FaultsPostgres,
    /// A network that hangs, before Redis
    FaultsRedis,
}

/// What the scenes are played on.
#[derive(Debug)]
pub(super) struct Stage {
    /// Ends at the first signal.
    pub(super) ctx: Context,
    scale: f64,
    seed: u64,
    postgres: Option<PostgresServer>,
    redis: Option<RedisServer>,
    svg: Option<PathBuf>,
}

/// What a scene has shown, and its numbers.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) verdict: Verdict,
    pub(super) figures: Value,
}

/// Plays the scenes and prints what they have shown. Whether every promise held and every control failed.
///
/// # Errors
///
/// A server is missing, a scene could not be set up, a file could not be written.
pub(super) async fn run(extent: Extent) -> Result<bool, Failure> {
    let signals = signal::notify(&Context::background(), &[Signal::INTERRUPT, Signal::TERMINATE])?;
    let scenes = match &extent.scenes[..] {
        [] => Scene::value_variants(),
        chosen => chosen,
    };
    let stage = Stage::set(&signals, &extent, scenes).await?;
    say(&format!(
        "seed {} (to repeat: --seed {0}), scale {}\n",
        stage.seed, stage.scale
    ));
    let played = play(&stage, scenes, &signals).await;
    let cleared = stage.clear().await;
    let Played { all_hold, told } = played?;
    cleared?;
    let stopped = signals.is_done();
    if stopped {
        say("stopped: these are the figures so far\n");
    }
    if let Some(file) = &extent.json {
        let document = json!({
            "seed": stage.seed,
            "scale": stage.scale,
            "stopped": stopped,
            "servers": stage.versions(),
            "scenes": told,
        });
        write(file, &format!("{document:#}\n"))?;
    }
    Ok(all_hold && !stopped)
}

/// What the scenes have shown together.
struct Played {
    all_hold: bool,
    /// One object for each scene.
    told: Vec<Value>,
}

async fn play(stage: &Stage, scenes: &[Scene], signals: &Signals) -> Result<Played, Failure> {
    say(&Verdict::head());
    let (mut all_hold, mut told) = (true, Vec::new());
    for &scene in scenes {
        if signals.is_done() {
            break;
        }
        let began = Instant::now();
        let played = signals.again().run(scene.play(stage)).await?;
        let (seconds, stopped) = (began.elapsed().as_secs_f64(), signals.is_done());
        let Shown { verdict, figures } = match played {
            Ok(shown) => shown,
            // It had not begun to count.
            Err(_) if stopped => break,
            Err(error) => return Err(format!("{}: {error}", scene.name()).into()),
        };
        all_hold &= verdict.tell_so_far(stopped);
        told.push(json!({
            "scene": scene.name(),
            "holds": verdict.holds,
            "control_failed": verdict.control_failed,
            "stopped": stopped,
            "seconds": seconds,
            "figures": figures,
        }));
    }
    Ok(Played { all_hold, told })
}

impl Scene {
    fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    async fn play(self, stage: &Stage) -> Result<Shown, Failure> {
        match self {
            Scene::ForeignPostgres => foreign::postgres(stage).await,
            Scene::ForeignRedis => foreign::redis(stage).await,
            Scene::Victims => victims::scene(stage).await,
            Scene::Transactions => transactions::scene(stage).await,
            Scene::NextUser => next_user::scene(stage).await,
            Scene::Jobs => jobs::scene(stage).await,
            Scene::Storm => storm::scene(stage).await,
            Scene::FaultsPostgres => faults::postgres(stage).await,
            Scene::FaultsRedis => faults::redis(stage).await,
        }
    }

    fn needs_postgres(self) -> bool {
        !self.needs_redis()
    }

    fn needs_redis(self) -> bool {
        matches!(self, Scene::ForeignRedis | Scene::Jobs | Scene::FaultsRedis)
    }
}

impl Stage {
    async fn set(ctx: &Context, extent: &Extent, scenes: &[Scene]) -> Result<Stage, Failure> {
        let mut stage = Stage {
            ctx: ctx.clone(),
            scale: extent.scale,
            seed: extent.seed.unwrap_or_else(|| fastrand::u64(..)),
            postgres: None,
            redis: None,
            svg: extent.svg.clone(),
        };
        if scenes.iter().any(|scene| scene.needs_postgres()) {
            stage.postgres = Some(PostgresServer::of(ctx, extent.database.as_ref()).await?);
        }
        if scenes.iter().any(|scene| scene.needs_redis()) {
            stage.redis = Some(RedisServer::of(ctx, extent.cache.as_ref()).await?);
        }
        Ok(stage)
    }

    /// The part of `full` that is played, and never nothing.
    pub(super) fn count(&self, full: u64) -> u64 {
        ((full as f64 * self.scale).round() as u64).max(1)
    }

    /// What decides for one `worker` of a scene.
    pub(super) fn chance(&self, scene: &str, worker: u64) -> fastrand::Rng {
        let mixed = scene.bytes().fold(self.seed, |mixed, byte| {
            mixed
                .rotate_left(5)
                .wrapping_add(u64::from(byte))
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        });
        fastrand::Rng::with_seed(mixed ^ worker)
    }

    pub(super) fn postgres(&self) -> Result<&PostgresServer, Failure> {
        self.postgres
            .as_ref()
            .ok_or_else(|| "this scene has no PostgreSQL server".into())
    }

    pub(super) fn redis(&self) -> Result<&RedisServer, Failure> {
        self.redis
            .as_ref()
            .ok_or_else(|| "this scene has no Redis server".into())
    }

    fn versions(&self) -> Value {
        json!({
            "postgres": self.postgres.as_ref().map(|server| &server.version),
            "redis": self.redis.as_ref().map(|server| &server.version),
        })
    }

    /// Takes out of the servers that were given what was put into them. Private ones go with all that is in them.
    async fn clear(&self) -> Result<(), Failure> {
        let ctx = self.ctx.cleanup(HANGS);
        if let Some(server) = &self.postgres
            && server.private.is_none()
        {
            server.clear(&ctx).await?;
        }
        if let Some(server) = &self.redis
            && server.private.is_none()
        {
            server.clear(&ctx).await?;
        }
        Ok(())
    }
}

/// Waits until `condition` holds, which it does soon.
pub(super) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) -> Result<(), Failure> {
    let until = Instant::now() + HANGS;
    while !condition() {
        if Instant::now() > until {
            return Err(format!("never: {what}").into());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()).into())
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share <= 1000.0 => Ok(share),
        Ok(_) | Err(_) => Err("a share is a number above 0, such as 0.02".into()),
    }
}
