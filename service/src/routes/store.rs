//! `/store`: the slow fetch that stops when its client leaves, and writes nothing then.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Query, State};
use axum::response::Response;
use bequest::{Canceled, Context};
use bequest_http::axum::Ctx;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::{self, Code, Refusal, go};
use crate::app::App;
use crate::domain::fetch::{self, Outcome, PIECE, State as Fetch};
use crate::log::{Place, here};
use crate::store;

#[derive(Debug, Deserialize)]
pub(super) struct Question {
    key: Option<String>,
    ms: Option<u64>,
}

/// Without `ms=`, a fetch takes this long.
const USUAL_MS: u64 = 1000;
/// No fetch takes longer than this.
const MOST_MS: u64 = 600_000;
/// The longest key, in bytes.
const LONGEST_KEY: usize = 200;

/// `GET` or `POST /store?key=K[&ms=M]`. A body is left unread on purpose: whether the client is still there must not
/// depend on it.
pub(super) async fn fetch(
    Ctx(ctx): Ctx,
    State(app): State<Arc<App>>,
    Query(question): Query<Question>,
) -> Result<Response, Refusal> {
    let key = question
        .key
        .filter(|key| !key.is_empty() && key.len() <= LONGEST_KEY);
    let key = key.ok_or_else(|| {
        Refusal::new(
            here!(),
            Code::BadKey,
            "key= is missing, empty or longer than 200 bytes",
        )
    })?;
    let pieces = question.ms.unwrap_or(USUAL_MS).min(MOST_MS).div_ceil(10);
    let record = Record::begin(app, key, pieces);
    let (record, built) = build(&ctx, record).await?;
    let text = built.map_err(|end| Refusal::ended(here!(), &ctx, &end))?;
    match record
        .app
        .store
        .put_answer(&ctx, record.key.clone(), text.clone())
        .await
    {
        Ok(()) => record.set(pieces, Fetch::Written),
        Err(error) => return Err(refused(here!(), &ctx, &record, &error)),
    }
    Ok(answer::text(format!("{text}\n")))
}

/// `GET /store/last`: what became of the last fetch.
pub(super) async fn last(Ctx(ctx): Ctx, State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    let Some(outcome) = app.last_fetch.get() else {
        return Err(Refusal::new(
            here!(),
            Code::NoFetch,
            "nothing has been fetched yet",
        ));
    };
    let stored = app.store.answer(&ctx, outcome.key.clone()).await;
    let stored = stored.map_err(|error| match error.canceled() {
        Some(end) => Refusal::ended(here!(), &ctx, end),
        None => Refusal::new(here!(), Code::Internal, error.to_string()),
    })?;
    Ok(answer::json_response(
        StatusCode::OK,
        &tell(&outcome, stored.is_some()),
    ))
}

/// The fetch that is under way, to be told of when it has ended.
struct Record {
    app: Arc<App>,
    key: String,
    of: u64,
    begun: Instant,
}

impl Record {
    fn begin(app: Arc<App>, key: String, of: u64) -> Record {
        let record = Record {
            app,
            key,
            of,
            begun: Instant::now(),
        };
        record.set(0, Fetch::Running);
        record
    }

    fn set(&self, pieces: u64, state: Fetch) {
        let (key, elapsed) = (self.key.clone(), self.begun.elapsed());
        self.app.last_fetch.set(Outcome {
            key,
            pieces,
            of: self.of,
            state,
            elapsed,
        });
    }
}

/// Builds the answer on a thread that may block. The thread itself records where it stopped.
async fn build(ctx: &Context, record: Record) -> Result<(Record, Result<String, Canceled>), Refusal> {
    let ctx = ctx.clone();
    let work = tokio::task::spawn_blocking(move || {
        let built = fetch::build(&ctx, &record.key, record.of).map_err(|(pieces, end)| {
            record.set(
                pieces,
                Fetch::Stopped {
                    after: fetch::since_end(&end),
                    end: end.clone(),
                },
            );
            end
        });
        (record, built)
    });
    work.await
        .map_err(|error| Refusal::new(here!(), Code::Internal, format!("the fetch: {error}")))
}

fn refused(place: Place, ctx: &Context, record: &Record, error: &store::Error) -> Refusal {
    match error.canceled() {
        // It may have been written: then "stopped" would be a promise too much.
        Some(end) if error.is_in_doubt() => {
            record.set(record.of, Fetch::Failed(error.to_string()));
            Refusal::ended(place, ctx, end)
        }
        Some(end) => {
            record.set(
                record.of,
                Fetch::Stopped {
                    after: fetch::since_end(end),
                    end: end.clone(),
                },
            );
            Refusal::ended(place, ctx, end)
        }
        None => {
            record.set(record.of, Fetch::Failed(error.to_string()));
            Refusal::new(place, Code::Internal, "the store refused the answer")
        }
    }
}

fn tell(outcome: &Outcome, stored: bool) -> Value {
    let (state, why, after) = match &outcome.state {
        Fetch::Running => ("running", None, None),
        Fetch::Written => ("written", None, None),
        Fetch::Stopped { end, after } => ("stopped", Some(end.to_string()), *after),
        Fetch::Failed(error) => ("failed", Some(error.clone()), None),
    };
    json!({
        "key": outcome.key,
        "state": state,
        "written": matches!(outcome.state, Fetch::Written),
        "pieces": format!("{} of {}, {} each", outcome.pieces, outcome.of, go(PIECE)),
        "elapsed": go(outcome.elapsed),
        "why": why,
        "stopped_after_ms": after.map(answer::millis),
        "key_in_store": stored,
    })
}
