//! `GET /me`, answered from the cache and logged, beside a route that answers the same and knows nothing of sessions and
//! logs. Both servers run all the time; they are measured in turns, so that whatever else the machine does hits both.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use bequest::Context;
use bequest_http::Server;
use clap::Parser;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::stores::user;
use super::{Failure, Progress, Scratch};
use crate::app;
use crate::domain::session::Session;
use crate::log::Logs;
use crate::routes;
use crate::settings::Settings;
use crate::trust::Trust;

const SCENE: &str = "throughput of GET /me";
const SLICE: Duration = Duration::from_millis(250);
const CONNECTIONS: usize = 8;

pub(super) async fn scene(slices: usize) -> Result<String, Failure> {
    let scratch = Scratch::new()?;
    let ctx = Context::background().with_cancel().named("torture");
    let (me, header, session) = serve_me(&ctx, &scratch).await?;
    let bare = serve_bare(&ctx, session).await?;
    let progress = Progress::new(SCENE, slices);
    // Unmeasured, so that both are warm.
    measure(me, &header).await?;
    measure(bare, "").await?;
    let (mut ours, mut theirs, mut ratios) = (0, 0, Vec::new());
    for slice in 0..slices {
        let (one, other) = (measure(me, &header).await?, measure(bare, "").await?);
        ours += one;
        theirs += other;
        ratios.push(one as f64 / other.max(1) as f64);
        progress.at(slice + 1);
    }
    ratios.sort_by(f64::total_cmp);
    let per_second = |count: u64| count as f64 / (slices as f64 * SLICE.as_secs_f64());
    Ok(format!(
        "{SCENE:<44} {:.0} per second; without session and logs {:.0}; ratio {:.2} (median of {slices} slices)\n",
        per_second(ours),
        per_second(theirs),
        ratios[slices / 2],
    ))
}

/// The service itself, the header that brings a session, and the session.
async fn serve_me(ctx: &Context, scratch: &Scratch) -> Result<(SocketAddr, String, Arc<Session>), Failure> {
    let file = |name: &str| scratch.path().join(name).display().to_string();
    let settings = Settings::try_parse_from([
        "bequest",
        "--data",
        &file("data"),
        "--access-log",
        &file("access.log"),
        "--error-log",
        &file("error.log"),
    ])?;
    let logs = Arc::new(Logs::open(&settings.log)?);
    // As the service does by default.
    bequest::inspect::enable();
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let (app, parts) = app::build(settings, &Trust::open(None)?, nowhere, ctx, &logs).await?;
    let (id, session) = app.identity.sessions.begin(ctx, user(), None).await?;
    let listener = TcpListener::bind(nowhere).await?;
    let addr = listener.local_addr()?;
    let (service, ctx) = (routes::public(app), ctx.clone());
    tokio::spawn(async move { parts.server.serve(listener, service, &ctx).await });
    Ok((addr, format!("x-myapp-session: {}\r\n", id.expose()), session))
}

/// The same route for a session that is always the same: no middleware, no logs.
async fn serve_bare(ctx: &Context, session: Arc<Session>) -> Result<SocketAddr, Failure> {
    let answer = move || std::future::ready(routes::me::answer(&session));
    let router: Router = Router::new().route("/me", get(answer));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let ctx = ctx.clone();
    tokio::spawn(async move { Server::builder().serve(listener, router, &ctx).await });
    Ok(addr)
}

/// How many requests are answered in one slice.
async fn measure(addr: SocketAddr, header: &str) -> Result<u64, Failure> {
    let until = Instant::now() + SLICE;
    let mut clients = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let header = header.to_string();
        clients.spawn(async move {
            let mut client = TcpStream::connect(addr).await?;
            client.set_nodelay(true)?;
            let mut answered = 0;
            while Instant::now() < until {
                exchange(&mut client, &header).await?;
                answered += 1;
            }
            Ok::<u64, Failure>(answered)
        });
    }
    let mut answered = 0;
    while let Some(client) = clients.join_next().await {
        answered += client??;
    }
    Ok(answered)
}

/// One request and its whole answer, which must be 200.
async fn exchange(client: &mut TcpStream, header: &str) -> Result<String, Failure> {
    let request = format!("GET /me HTTP/1.1\r\nhost: torture\r\n{header}\r\n");
    client.write_all(request.as_bytes()).await?;
    let (mut buffer, mut filled) = ([0; 2048], 0);
    loop {
        let text = std::str::from_utf8(&buffer[..filled])?;
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.ok_or("no content-length")?.parse()? {
                if !head.starts_with("HTTP/1.1 200") {
                    return Err(text.to_string().into());
                }
                return Ok(text.to_string());
            }
        }
        match client.read(&mut buffer[filled..]).await? {
            0 => return Err("the server closed the connection".into()),
            count => filled += count,
        }
    }
}
