//! A handler that hands its context to a query: the statement stops when the client leaves, and at the step's limit.
//!
//! Run it with `cargo run -p bequest-sqlite --example handler`; it says nothing if every assertion holds.

use std::net::SocketAddr;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use axum::{Router, extract::State, http::StatusCode, routing::get};
use bequest_http::Server;
use bequest_sqlite::Database;
use bequest_test::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use bequest_http::axum::Ctx;

async fn top_sellers(Ctx(ctx): Ctx, State(db): State<Database>) -> Result<String, Failure> {
    // This step may take a second of what the request has left, not more.
    let step = ctx.with_timeout(Duration::from_secs(1)).named("top sellers");
    let rows: Vec<String> = db
        .read(&step, |connection| {
            let mut statement =
                connection.prepare("SELECT name FROM products ORDER BY sold DESC LIMIT 10")?;
            statement.query_map([], |row| row.get(0))?.collect()
        })
        .await?;
    Ok(rows.join("\n"))
}

struct Failure(bequest_sqlite::Error);

impl From<bequest_sqlite::Error> for Failure {
    fn from(error: bequest_sqlite::Error) -> Failure {
        Failure(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.0.canceled() {
            Some(end) if end.is_timeout() => StatusCode::GATEWAY_TIMEOUT,
            Some(_) => StatusCode::SERVICE_UNAVAILABLE,
            None => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, self.0.to_string()).into_response()
    }
}

const FEW: &str = "CREATE VIEW products (name, sold) AS VALUES ('tea', 7), ('coffee', 9)";
const ENDLESS: &str = "DROP VIEW products; CREATE VIEW products (name, sold) AS
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT 'product ' || i, i FROM n";

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let clock = Clock::new(); // stands still, so nothing ends by its limit unless the clock is moved
    let process = clock.context().with_cancel();
    let db = Database::temporary(&process).await?;
    db.execute_batch(&process, FEW).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let routes = Router::new().route("/", get(top_sellers)).with_state(db.clone());
    let ctx = process.context();
    let server = tokio::spawn(async move { Server::builder().serve(listener, routes, &ctx).await });

    assert!(read(ask(address).await?).await?.ends_with("coffee\ntea"));
    db.execute_batch(&process, ENDLESS).await?;
    let client = ask(address).await?;
    until(|| db.statistics().running() == 1).await;
    drop(client); // leaves, and the statement with it
    until(|| db.statistics().running() == 0).await;

    let client = ask(address).await?;
    until(|| db.statistics().running() == 1).await;
    clock.advance(Duration::from_secs(1));
    let answer = read(client).await?;
    assert!(answer.contains("deadline passed (top sellers "), "{answer}");

    process.cancel();
    assert_eq!(server.await??.statistics.client_gone, 1);
    Ok(())
}

async fn ask(address: SocketAddr) -> std::io::Result<TcpStream> {
    let mut client = TcpStream::connect(address).await?;
    let question = b"GET / HTTP/1.1\r\nhost: example\r\nconnection: close\r\n\r\n";
    client.write_all(question).await.map(|()| client)
}

async fn read(mut client: TcpStream) -> std::io::Result<String> {
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.map(|_| answer)
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
